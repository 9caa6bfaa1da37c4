"""What the library's networks share: named layers, their initial draws, and how a shift and a scale go into them."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, get_args

import numpy as np

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import OptionError
from ismcore.models.activations import get_activation
from ismcore.models.base import Model, refuse_context
from ismcore.ops import Array, Params
from ismcore.seeds import stream

__all__ = ["Init", "Network", "check_widths"]

Init = Literal["kaiming_uniform", "glorot_uniform"]
INITS: tuple[Init, ...] = get_args(Init)


class Network(Model):
    """A feed-forward network of affine layers, `{name}.weight` of shape (out, in) and `{name}.bias` of shape (out,).

    Attributes:
        activation: Name of the activation.
        init: How the initial parameters are drawn.
        output_bias: Whether the last layer has a bias.
    """

    activation: str
    init: Init
    output_bias: bool = True

    @abstractmethod
    def layers(self, fan_in: int, fan_out: int) -> dict[str, tuple[int, int]]:
        """Name and (out, in) of every affine layer, from the one that reads x to the one that gives the output."""

    @abstractmethod
    def forward(self, calculus: Calculus, params: Params, x: Array) -> Array:
        """Output of the network at inputs x, (n, fan_in): (n, fan_out)."""

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """See `Model.smooth`."""
        return get_activation(self.activation).smooth

    def shapes(self, d: int, *, context: int = 0, out: int | None = None) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`; an input may have context columns after the d of x, an output another width than d."""
        shapes: dict[str, tuple[int, ...]] = {}
        layers = self.layers(d + context, d if out is None else out)
        for name, shape in layers.items():
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
        if not self.output_bias:
            del shapes[f"{list(layers)[-1]}.bias"]
        return shapes

    def initial_params(self, seed: int, d: int, *, context: int = 0, out: int | None = None) -> Params:
        """See `Model.initial_params`."""
        rng = stream(seed, "init")
        layers = self.layers(d + context, d if out is None else out)
        last = list(layers)[-1]
        params: Params = {}
        for name, (fan_out, fan_in) in layers.items():
            weight, bias = self._bounds(fan_in, fan_out, last=name == last)
            params[f"{name}.weight"] = rng.uniform(-weight, weight, (fan_out, fan_in))
            params[f"{name}.bias"] = rng.uniform(-bias, bias, fan_out) if bias else np.zeros(fan_out)
        if not self.output_bias:
            del params[f"{last}.bias"]
        return params

    def at_zero(self, params: Params) -> Params:
        """See `Model.at_zero`."""
        last = list(self.layers(1, 1))[-1]
        return {name: 0.0 * value if name.startswith(f"{last}.") else value for name, value in params.items()}

    def _bounds(self, fan_in: int, fan_out: int, *, last: bool) -> tuple[float, float]:
        if self.init == "glorot_uniform":
            return math.sqrt(6.0 / (fan_in + fan_out)), 0.0
        gain = 1.0 if last else get_activation(self.activation).gain
        return math.sqrt(3.0) * gain / math.sqrt(fan_in), 1.0 / math.sqrt(fan_in)

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `Model.score`."""
        refuse_context(self, context)
        return self.forward(calculus, params, x)

    def from_units(self, params: Params, coordinates: Coordinates) -> tuple[Model, Params]:
        """See `Model.from_units`; the coordinates go into the first and the last layer, so the model stays the same."""
        _, scale, back = coordinates.affine()
        last = list(self.layers(1, 1))[-1]
        moved = self.input_from_units(params, coordinates)
        full = None if coordinates.matrix is None else np.diag(back) if back.ndim == 1 else back
        weight = moved[f"{last}.weight"] * scale[:, None]
        moved[f"{last}.weight"] = weight if full is None else full.T @ weight
        if self.output_bias:
            bias = moved[f"{last}.bias"] * scale
            moved[f"{last}.bias"] = bias if full is None else full.T @ bias
        return self, moved

    def input_from_units(self, params: Params, coordinates: Coordinates) -> Params:
        """Parameters of the network that reads z, float64, given those of one that reads x = x_0 + scale (A^-1 z).

        W x + b = (W scale A^-1) z + (b + W x_0); context columns come after those of x and stay as they are.
        """
        middle, scale, back = coordinates.affine()
        d = len(middle)
        first = next(iter(self.layers(1, 1)))
        weight = np.array(params[f"{first}.weight"], dtype=np.float64)
        bias = params[f"{first}.bias"] + weight[:, :d] @ middle
        weight[:, :d] *= scale
        if coordinates.matrix is not None:
            weight[:, :d] = weight[:, :d] * back if back.ndim == 1 else weight[:, :d] @ back
        return {**params, f"{first}.weight": weight, f"{first}.bias": bias}


def affine(calculus: Calculus, params: Params, name: str, h: Array) -> Array:
    """One affine layer: h W^T + b, (n, in) -> (n, out); without b where there is none."""
    z, bias = h @ calculus.ops.permute_dims(params[f"{name}.weight"], (1, 0)), f"{name}.bias"
    return z + params[bias] if bias in params else z


def check_widths(hidden: object, activation: str, init: str) -> tuple[int, ...]:
    """The hidden widths as a tuple, once all options of a network are known to be right.

    Raises:
        OptionError: One of them is not; the message lists the valid ones.
    """
    widths = tuple(hidden) if isinstance(hidden, list | tuple) else (hidden,)
    if not widths or not all(isinstance(w, int | np.integer) and not isinstance(w, bool) and w > 0 for w in widths):
        raise OptionError(f"hidden must be one or more widths from 1, such as (64, 64), not {hidden!r}")
    get_activation(activation)
    if init not in INITS:
        raise OptionError(f"init must be {' or '.join(map(repr, INITS))}, not {init!r}")
    return tuple(int(w) for w in widths)

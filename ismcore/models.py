"""Models of a score function: psi(x; params) for x of shape (n, d), written once over a backend's operations.

A model is a frozen specification. Its parameters are a flat dict of arrays that travels beside it, and d comes from the data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ismcore.activations import get_activation
from ismcore.calculus import Calculus
from ismcore.errors import ModelError, OptionError, ParameterError
from ismcore.ops import Array
from ismcore.problem import Params
from ismcore.seeds import stream

__all__ = ["MLP", "Affine", "Model", "ScoreFunction", "Standardized", "check_params"]


class Model(ABC):
    """A family of score functions.

    Attributes:
        smooth: Whether the score has a useful second derivative in x.
        backend: Name of the only backend that can run it, or None for any.
    """

    smooth: bool = True
    backend: str | None = None

    @abstractmethod
    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the order in which they are drawn."""

    @abstractmethod
    def initial_params(self, seed: int, d: int) -> Params:
        """Parameters to start from, float64, drawn from the stream "init" of the seed."""

    @abstractmethod
    def score(self, calculus: Calculus, params: Params, x: Array) -> Array:
        """psi(x; params), (n, d), in units 1/[x]."""

    def fold(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """Model and parameters in the user's units, given parameters for standardised samples z = (x - mean) / scale.

        If psi is the score of z, then psi((x - mean) / scale) / scale is the score of x.
        """
        return Standardized(self, mean, scale), params

    def unfold(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """Model and parameters for standardised samples, given those in the user's units: the inverse of `fold`."""
        return self, params


def check_params(model: Model, params: Mapping[str, Any], d: int) -> Params:
    """Parameters as arrays of floats, in the model's order, once names, shapes and values are known to be right.

    Raises:
        ParameterError: A name is missing or unknown, a shape is wrong, or a value is not a finite real number.
    """
    expected = model.shapes(d)
    faults = {"missing": [n for n in expected if n not in params], "unknown": [n for n in params if n not in expected]}
    if any(faults.values()):
        found = "; ".join(f"{what}: {', '.join(map(str, names))}" for what, names in faults.items() if names)
        raise ParameterError(f"{model!r} for d = {d} has the parameters {', '.join(expected)}; {found}")
    checked = {}
    for name, shape in expected.items():
        value = np.asarray(params[name])
        if value.shape != shape:
            raise ParameterError(f"parameter {name!r} of {model!r} for d = {d} must have shape {shape}, not {value.shape}")
        if value.dtype.kind not in "fiu" or not np.all(np.isfinite(value)):
            raise ParameterError(f"parameter {name!r} must hold finite real numbers; got {np.array_repr(value)[:80]}")
        checked[name] = value if value.dtype.kind == "f" else value.astype(np.float64)
    return checked


@dataclass(frozen=True)
class MLP(Model):
    """A fully connected network: z = W h + b in every layer, the activation after every layer but the last.

    Parameters: `layers.{l}.weight` of shape (out, in) and `layers.{l}.bias` of shape (out,), torch's and Equinox's layout.

    Args:
        hidden: Widths of the hidden layers.
        activation: "sigmoid", "tanh", "softplus", "silu", "gelu" (the exact one), "gelu_tanh", or "relu", which is refused
            by objectives that differentiate in x.
        init: "kaiming_uniform": weights U(+-sqrt(3) gain / sqrt(in)), the gain that of the activation after the layer (1 for
            none), biases U(+-1 / sqrt(in)), as in the reference run (He et al. 2015). "glorot_uniform": weights
            U(+-sqrt(6 / (in + out))), biases zero (Glorot & Bengio 2010, equation 16).

    Raises:
        OptionError: An option is none of the above.

    Cost: sum(in * out) multiplications a row and score.

    Example:
        >>> ismcore.MLP(hidden=(8,)).shapes(d=1)
        {'layers.0.weight': (8, 1), 'layers.0.bias': (8,), 'layers.1.weight': (1, 8), 'layers.1.bias': (1,)}
    """

    hidden: tuple[int, ...] = (8,)
    activation: str = "sigmoid"
    init: str = "kaiming_uniform"

    def __post_init__(self) -> None:
        widths = tuple(self.hidden) if isinstance(self.hidden, list | tuple) else (self.hidden,)
        if not widths or not all(isinstance(w, int | np.integer) and w > 0 for w in widths):
            raise OptionError(f"hidden must be one or more widths from 1, such as (64, 64), not {self.hidden!r}")
        object.__setattr__(self, "hidden", tuple(int(w) for w in widths))
        get_activation(self.activation)
        if self.init not in ("kaiming_uniform", "glorot_uniform"):
            raise OptionError(f"init must be 'kaiming_uniform' or 'glorot_uniform', not {self.init!r}")

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """See `Model.smooth`."""
        return get_activation(self.activation).smooth

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise((d, *self.hidden, d))):
            shapes[f"layers.{layer}.weight"] = (fan_out, fan_in)
            shapes[f"layers.{layer}.bias"] = (fan_out,)
        return shapes

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`."""
        rng = stream(seed, "init")
        params: Params = {}
        for name, shape in self.shapes(d).items():
            if name.endswith("weight"):
                fan_out, fan_in = shape
                last = name == f"layers.{len(self.hidden)}.weight"
            bound = self._bounds(fan_in, fan_out, last)[name.endswith("bias")]
            params[name] = rng.uniform(-bound, bound, shape) if bound else np.zeros(shape)
        return params

    def _bounds(self, fan_in: int, fan_out: int, last: bool) -> tuple[float, float]:
        if self.init == "glorot_uniform":
            return math.sqrt(6.0 / (fan_in + fan_out)), 0.0
        gain = 1.0 if last else get_activation(self.activation).gain
        return math.sqrt(3.0) * gain / math.sqrt(fan_in), 1.0 / math.sqrt(fan_in)

    def score(self, calculus: Calculus, params: Params, x: Array) -> Array:
        """See `Model.score`."""
        sigma = get_activation(self.activation).value
        last = len(self.hidden)
        h = x
        for layer in range(last + 1):
            weight = calculus.ops.permute_dims(params[f"layers.{layer}.weight"], (1, 0))
            z = h @ weight + params[f"layers.{layer}.bias"]
            h = sigma(calculus.ops, z) if layer < last else z
        return h

    def fold(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.fold`; the shift and the scale go into the first and the last layer, so the model stays the same."""
        first, last = "layers.0", f"layers.{len(self.hidden)}"
        folded = dict(params)
        folded[f"{first}.weight"] = params[f"{first}.weight"] / scale
        folded[f"{first}.bias"] = params[f"{first}.bias"] - folded[f"{first}.weight"] @ mean
        folded[f"{last}.weight"] = params[f"{last}.weight"] / scale[:, None]
        folded[f"{last}.bias"] = params[f"{last}.bias"] / scale
        return self, folded

    def unfold(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.unfold`."""
        return self.fold(params, -mean / scale, 1.0 / scale)


@dataclass(frozen=True)
class Affine(Model):
    """psi(x) = weight x + bias: the score of a normal law, whose weight is minus the inverse covariance.

    Parameters: `weight` (d, d) and `bias` (d,), both zero at the start. The minimiser of plain implicit score matching is
    known: weight = -K and bias = K m, with m the sample's mean and K the inverse of its covariance (divided by n).

    Example:
        >>> ismcore.Affine().shapes(d=2)
        {'weight': (2, 2), 'bias': (2,)}
    """

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        return {"weight": (d, d), "bias": (d,)}

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`; the objective is convex here, so there is nothing to draw."""
        return {name: np.zeros(shape) for name, shape in self.shapes(d).items()}

    def score(self, calculus: Calculus, params: Params, x: Array) -> Array:
        """See `Model.score`."""
        return x @ calculus.ops.permute_dims(params["weight"], (1, 0)) + params["bias"]

    def fold(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.fold`."""
        weight = params["weight"] / scale / scale[:, None]
        return self, {"weight": weight, "bias": params["bias"] / scale - weight @ mean}

    def unfold(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.unfold`."""
        return self.fold(params, -mean / scale, 1.0 / scale)


@dataclass(frozen=True, eq=False)
class ScoreFunction(Model):
    """A score function of the user's own.

    Args:
        apply: `apply(ops, params, x) -> (n, d)`, written over `ismcore.ops.Ops`, which runs on every backend; or, with a
            backend named, `apply(params, x)` in that backend's framework. Rows must be independent.
        params: Parameters to start from, by name.
        backend: The backend whose framework `apply` is written in.

    Raises:
        ModelError: `apply` is not callable, or there are no parameters.

    Example:
        >>> def apply(ops, params, x):
        ...     return params["a"] * x
        >>> ismcore.ScoreFunction(apply, {"a": -1.0}).shapes(d=3)
        {'a': ()}
    """

    apply: Callable[..., Array]
    params: Mapping[str, Any]
    backend: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.apply):
            raise ModelError(f"apply must be a function (ops, params, x) -> (n, d), not {self.apply!r}")
        if not isinstance(self.params, Mapping) or not self.params:
            raise ModelError("params must be a dict with at least one array: without a parameter there is nothing to fit")

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`; they are those of the parameters given, whatever d is."""
        return {name: np.shape(value) for name, value in self.params.items()}

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`; a copy of the parameters given."""
        return {name: np.array(value, dtype=np.float64) for name, value in self.params.items()}

    def score(self, calculus: Calculus, params: Params, x: Array) -> Array:
        """See `Model.score`."""
        psi = self.apply(calculus.ops, params, x) if self.backend is None else self.apply(params, x)
        if tuple(psi.shape) != tuple(x.shape):
            raise ModelError(f"apply must return one score a row, of shape {tuple(x.shape)}; it returned {tuple(psi.shape)}")
        return psi


@dataclass(frozen=True, eq=False)
class Standardized(Model):
    """A model of standardised samples, seen in the user's units: psi(x) = inner((x - mean) / scale) / scale.

    `fit` returns one where it cannot fold the standardising into the parameters; these keep the inner model's names.
    """

    inner: Model
    mean: np.ndarray
    scale: np.ndarray

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """See `Model.smooth`."""
        return self.inner.smooth

    @property
    def backend(self) -> str | None:  # type: ignore[override]
        """See `Model.backend`."""
        return self.inner.backend

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        return self.inner.shapes(d)

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`."""
        return self.inner.initial_params(seed, d)

    def score(self, calculus: Calculus, params: Params, x: Array) -> Array:
        """See `Model.score`."""
        scale = calculus.asarray(self.scale)
        return self.inner.score(calculus, params, (x - calculus.asarray(self.mean)) / scale) / scale

    def unfold(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.unfold`."""
        return self.inner, params

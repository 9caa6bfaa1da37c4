"""Scores that depend on a noise scale too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError, OptionError
from ismcore.models.base import Model
from ismcore.models.network import Network
from ismcore.ops import Array, Params

__all__ = ["NoiseConditional", "as_context"]


def as_context(context: Any, n: int, *, positive: bool = False, dtype: str = "float64") -> np.ndarray:
    """What a score is conditional on, for n points: (n, c), float64.

    Args:
        context: One number for all points; one for each, (n,) or (n, 1); or (n, c).
        n: The number of points.
        positive: Whether it is a noise scale, from which a score asks a positive number.
        dtype: The dtype that the computation will run in, which must hold it too.

    Raises:
        OptionError: It has another shape, is no number, not finite, or not positive where it has to be.
    """
    try:
        array = np.asarray(context, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OptionError(f"context must be numbers, not {context!r}: {error}") from error
    if array.ndim == 0:
        array = np.full((n, 1), float(array))
    if array.shape == (n,):
        array = array[:, None]
    if array.ndim != 2 or len(array) != n or (positive and array.shape[1] != 1):
        wanted = f"one number, ({n},) or ({n}, {'1' if positive else 'c'})"
        raise OptionError(f"context must be {wanted} for {n} points, not of shape {np.shape(context)}")
    limits = np.finfo(dtype)
    bad = np.argwhere(~((np.abs(array) <= limits.max) & ((array >= limits.tiny) | (not positive))))
    if len(bad):
        wanted = "a noise scale must be a positive finite number" if positive else "context must be finite"
        raise OptionError(f"{wanted} of {dtype}; context is {array[tuple(bad[0])]:g} in row {bad[0][0]}")
    return array


@dataclass(frozen=True)
class NoiseConditional(Model):
    """A score at every noise scale s: psi(x; s) = net([x, log s]) / s.

    The context is s, (n, 1), positive, in the units of the samples as trained on. Dividing by s gives the network an output
    of one size at every scale (Song & Ermon 2020, technique 3). Parameters keep the network's names.

    Args:
        net: An `MLP` or a `ResidualMLP`.

    Raises:
        ModelError: The network is neither.

    Example:
        >>> ismcore.NoiseConditional(ismcore.MLP(hidden=(8,))).shapes(d=2)["layers.0.weight"]
        (8, 3)
    """

    net: Network

    def __post_init__(self) -> None:
        if not isinstance(self.net, Network):
            raise ModelError(f"net must be ismcore.MLP or ismcore.ResidualMLP, not {self.net!r}")

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """See `Model.smooth`."""
        return self.net.smooth

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        return self.net.shapes(d, context=1)

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`."""
        return self.net.initial_params(seed, d, context=1)

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `Model.score`."""
        if context is None:
            raise ModelError(
                f"{self!r} needs a noise scale: train it by ismcore.NoiseConditionalScoreMatching, and pass context= to score"
            )
        ops = calculus.ops
        return self.net.forward(calculus, params, ops.concat([x, ops.log(context)], axis=1)) / context

    def from_units(self, params: Params, coordinates: Coordinates) -> tuple[Model, Params]:
        """See `Model.from_units`; the noise scale stays that of the standardised samples."""
        return self, self.net.from_units(params, coordinates)[1]

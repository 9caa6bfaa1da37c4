"""Scores that depend on a noise scale too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ismcore.calculus import Calculus
from ismcore.errors import ModelError
from ismcore.models.base import Model
from ismcore.models.network import Network
from ismcore.ops import Array, Params

__all__ = ["NoiseConditional"]


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

    def from_units(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.from_units`; the noise scale stays that of the standardised samples."""
        return self, self.net.from_units(params, mean, scale)[1]

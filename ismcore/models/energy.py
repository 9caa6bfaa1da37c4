"""Energies: scores that are gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ismcore.calculus import Calculus
from ismcore.errors import ModelError
from ismcore.models.base import Model, refuse_context
from ismcore.models.function import ScoreFunction
from ismcore.models.network import Network
from ismcore.ops import Array
from ismcore.problem import Params

__all__ = ["Energy"]


@dataclass(frozen=True)
class Energy(Model):
    """The score of an unnormalised density exp(-U): psi = -grad U, with U a network of scalar output.

    Its Jacobian, minus the Hessian of U, is symmetric, and U is a density's logarithm up to sign and constant. Training by
    implicit score matching differentiates U three times. Parameters keep the network's names.

    Args:
        net: An `MLP`, a `ResidualMLP`, or a `ScoreFunction` whose `apply` returns U, (n,) or (n, 1). The bias of the last
            layer has no effect on the score.

    Raises:
        ModelError: The network is none of these.

    Example:
        >>> ismcore.Energy(ismcore.MLP(hidden=(8,))).shapes(d=3)["layers.1.weight"]
        (1, 8)
    """

    net: Network | ScoreFunction

    def __post_init__(self) -> None:
        if not isinstance(self.net, Network | ScoreFunction):
            raise ModelError(f"net must be ismcore.MLP, ismcore.ResidualMLP or ismcore.ScoreFunction, not {self.net!r}")

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """See `Model.smooth`."""
        return self.net.smooth

    @property
    def backend(self) -> str | None:  # type: ignore[override]
        """See `Model.backend`."""
        return self.net.backend

    @property
    def portable(self) -> bool:
        """See `Model.portable`."""
        return False

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        return self.net.shapes(d, out=1) if isinstance(self.net, Network) else self.net.shapes(d)

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`."""
        if isinstance(self.net, Network):
            return self.net.initial_params(seed, d, out=1)
        return self.net.initial_params(seed, d)

    def energy(self, calculus: Calculus, params: Params, x: Array) -> Array:
        """U(x; params), (n,), without a unit."""
        net = self.net
        u = net.forward(calculus, params, x) if isinstance(net, Network) else net.output(calculus, params, x)
        if tuple(u.shape) not in ((x.shape[0],), (x.shape[0], 1)):
            raise ModelError(f"an energy must have shape {(x.shape[0],)} or {(x.shape[0], 1)}; apply returned {tuple(u.shape)}")
        return calculus.ops.reshape(u, (x.shape[0],))

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `Model.score`."""
        refuse_context(self, context)
        return -calculus.gradient(lambda points: self.energy(calculus, params, points), x)

    def fold(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.fold`; the energy of x is that of (x - mean) / scale, so only the first layer changes."""
        if isinstance(self.net, Network):
            return self, self.net.fold_input(params, mean, scale)
        return super().fold(params, mean, scale)

    def unfold(self, params: Params, mean: np.ndarray, scale: np.ndarray) -> tuple[Model, Params]:
        """See `Model.unfold`."""
        if isinstance(self.net, Network):
            return self, self.net.fold_input(params, -mean / scale, 1.0 / scale)
        return super().unfold(params, mean, scale)

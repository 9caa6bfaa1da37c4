"""Energies: scores that are gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models.base import Model, refuse_context
from ismcore.models.network import Network
from ismcore.models.user import UserModel
from ismcore.ops import Array, Params

__all__ = ["Energy"]


@dataclass(frozen=True)
class Energy(Model):
    """The score of an unnormalised density exp(-U): psi = -grad U, with U a network of scalar output.

    Its Jacobian, minus the Hessian of U, is symmetric, and U is a density's logarithm up to sign and constant. Training by
    implicit score matching differentiates U three times. Parameters keep the network's names.

    Args:
        net: An `MLP`, a `ResidualMLP`, or a `ScoreFunction` or module of torch, Flax or Equinox that returns U, (n,) or
            (n, 1). The bias of the last layer has no effect on the score.

    Raises:
        ModelError: The network is another model, or a plain value.

    Example:
        >>> ismcore.Energy(ismcore.MLP(hidden=(8,))).shapes(d=3)["layers.1.weight"]
        (1, 8)
    """

    net: Network | UserModel | Any

    def __post_init__(self) -> None:
        # a framework's module is left to adoption, which knows the samples and the plugins
        is_foreign = not isinstance(self.net, Model | type | str | int | float | None)
        if not isinstance(self.net, Network | UserModel) and not is_foreign:
            raise ModelError(
                "net must be ismcore.MLP, ismcore.ResidualMLP, ismcore.ScoreFunction, or a module of torch, Flax or Equinox, "
                f"not {self.net!r}"
            )

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """See `Model.smooth`."""
        return bool(self.net.smooth)

    @property
    def backend(self) -> str | None:  # type: ignore[override]
        """See `Model.backend`."""
        found: str | None = self.net.backend
        return found

    @property
    def portable(self) -> bool:
        """See `Model.portable`."""
        return False

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        shapes: dict[str, tuple[int, ...]] = self.net.shapes(d, out=1) if isinstance(self.net, Network) else self.net.shapes(d)
        return shapes

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`."""
        if isinstance(self.net, Network):
            return self.net.initial_params(seed, d, out=1)
        params: Params = self.net.initial_params(seed, d)
        return params

    def at_zero(self, params: Params) -> Params:
        """See `Model.at_zero`."""
        zeroed: Params = self.net.at_zero(params)
        return zeroed

    def canonical(self) -> Energy:
        """See `Model.canonical`."""
        net = self.net.canonical()
        return self if net is self.net else replace(self, net=net)

    def energy(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """U(x; params), (n,), without a unit."""
        net = self.net
        if isinstance(net, Network):
            u = net.forward(calculus, params, x)
        else:
            u = net.output(calculus, params, x, context)
        if tuple(u.shape) not in ((x.shape[0],), (x.shape[0], 1)):
            hint = "; a score is a model as it is, outside of ismcore.Energy" if tuple(u.shape) == tuple(x.shape) else ""
            raise ModelError(
                f"an energy must have shape {(x.shape[0],)} or {(x.shape[0], 1)}; it came with {tuple(u.shape)}{hint}"
            )
        return calculus.ops.reshape(u, (x.shape[0],))

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `Model.score`."""
        if isinstance(self.net, Network):
            refuse_context(self, context)
        return -calculus.gradient(lambda points: self.energy(calculus, params, points, context), x)

    def from_units(self, params: Params, coordinates: Coordinates) -> tuple[Model, Params]:
        """See `Model.from_units`; the energy of x is that of z, so only the first layer changes."""
        if isinstance(self.net, Network):
            return self, self.net.input_from_units(params, coordinates)
        return super().from_units(params, coordinates)

"""Weighted sums of models: what a fit of several members gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models.base import Model
from ismcore.ops import Array, Params

__all__ = ["Combination", "joined", "parted"]


def joined(parts: Sequence[Mapping[str, Array]]) -> Params:
    """Parameters of several members as one dict, those of member k under `members.{k}.`."""
    return {f"members.{k}.{name}": value for k, part in enumerate(parts) for name, value in part.items()}


def parted(params: Mapping[str, Array], count: int) -> list[Params]:
    """The parameters of each of so many members: the inverse of `joined`."""
    parts: list[Params] = [{} for _ in range(count)]
    for key, value in params.items():
        group, _, rest = key.partition(".")
        number, _, name = rest.partition(".")
        if group == "members":
            parts[int(number)][name] = value
    return parts


@dataclass(frozen=True)
class Combination(Model):
    """A weighted sum of models: psi(x) = sum_k w_k psi_k(x).

    Parameters: `weights`, w, (K,), without a unit, and those of member k under `members.{k}.`. What `fit` gives back where the
    members of folds are averaged: `Affine` for the normal law, and a network or an energy a fold.

    Args:
        members: One or more models of one dimension, that take no context.

    Raises:
        ModelError: There is no member, or one that is no model.

    Cost: that of all members together.

    Example:
        >>> ismcore.models.Combination((ismcore.Affine(), ismcore.Affine())).shapes(d=1)["members.1.weight"]
        (1, 1)
    """

    members: tuple[Model, ...]

    def __post_init__(self) -> None:
        if not self.members or not all(isinstance(member, Model) for member in self.members):
            raise ModelError(f"members must be one or more models, not {self.members!r}")
        object.__setattr__(self, "members", tuple(self.members))

    def __repr__(self) -> str:
        counts = {name: [repr(member) for member in self.members].count(name) for name in map(repr, self.members)}
        return f"Combination({', '.join(name if count == 1 else f'{count} x {name}' for name, count in counts.items())})"

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """See `Model.smooth`."""
        return all(member.smooth for member in self.members)

    @property
    def backend(self) -> str | None:  # type: ignore[override]
        """See `Model.backend`."""
        return next((member.backend for member in self.members if member.backend is not None), None)

    @property
    def portable(self) -> bool:
        """See `Model.portable`."""
        return all(member.portable for member in self.members)

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        shapes: dict[str, tuple[int, ...]] = {"weights": (len(self.members),)}
        return {**shapes, **joined([member.shapes(d) for member in self.members])}

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`; member k from seed + k, and equal weights of sum 1."""
        count = len(self.members)
        parts = [member.initial_params(seed + k, d) for k, member in enumerate(self.members)]
        return {"weights": np.full(count, 1.0 / count), **joined(parts)}

    def canonical(self) -> Combination:
        """See `Model.canonical`."""
        members = tuple(member.canonical() for member in self.members)
        alike = all(one is other for one, other in zip(members, self.members, strict=True))
        return self if alike else Combination(members)

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `Model.score`."""
        weights, parts = params["weights"], parted(params, len(self.members))
        scores = [m.score(calculus, part, x, context) for m, part in zip(self.members, parts, strict=True)]
        return sum((weights[k] * score for k, score in enumerate(scores[1:], 1)), weights[0] * scores[0])

    def from_units(self, params: Params, coordinates: Coordinates) -> tuple[Model, Params]:
        """See `Model.from_units`; a score's units do not depend on the member, so the weights stay."""
        parts = parted(params, len(self.members))
        moved = [m.from_units(part, coordinates) for m, part in zip(self.members, parts, strict=True)]
        return Combination(tuple(m for m, _ in moved)), {"weights": params["weights"], **joined([p for _, p in moved])}

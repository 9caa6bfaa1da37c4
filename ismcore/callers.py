"""What the losses for training loops of one's own share in every framework: checks of what the caller passes, and the sum."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import ModelError, OptionError
from ismcore.objectives import DenoisingScoreMatching, Hutchinson, ImplicitScoreMatching, LossInputs, Objective
from ismcore.ops import Array
from ismcore.problem import Params

__all__ = ["CallerCalculus", "Draw"]

REDUCTIONS = ("mean", "sum", "none")

Draw = Callable[[str, tuple[int, ...]], Array]
"""From a law of `ismcore.Hutchinson` and a shape to random numbers of the framework; "gaussian" is standard normal."""


class CallerCalculus(Calculus):
    """A calculus on a caller's own arrays, in their dtype and place, inside whatever differentiates or compiles around it.

    A backend's `ArrayCalculus` adds the derivatives, and says which arrays are the framework's. No array's values are looked
    at, so that everything here can be traced.

    Args:
        like: Samples, (n, d), whose dtype and device all constants take.
        chunk_size: Most pairs of a row and a direction that the Jacobian's diagonal differentiates at once; all if None.

    Raises:
        OptionError: `chunk_size` is no whole number from 1.
    """

    row_mapping = ""
    """What makes a batched function of one of a row, in the framework's words."""

    def __init__(self, like: Array, chunk_size: int | None = None) -> None:
        if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
            raise OptionError(f"chunk_size must be a whole number from 1, or None for all at once, not {chunk_size!r}")
        self.like = like
        self.dtype = str(like.dtype).rpartition(".")[2]
        self.chunk_size = chunk_size

    @staticmethod
    @abstractmethod
    def is_own(value: object) -> bool:
        """Whether it is an array of the framework, which may be traced."""

    @classmethod
    def is_array(cls, value: object) -> bool:
        """Whether it is an array of the framework or of NumPy."""
        return cls.is_own(value) or isinstance(value, np.ndarray)

    def checked(self, score_fn: Any) -> ScoreFn:
        """The score function, which refuses to return another shape than it was given.

        Raises:
            ModelError: It does, or is no function.
        """
        if not callable(score_fn):
            raise ModelError(f"score_fn must be a function (n, d) -> (n, d), not {score_fn!r}")

        def score(points: Array) -> Array:
            psi = score_fn(points)
            if not self.is_array(psi) or psi.shape != points.shape:
                came = f"shape {tuple(psi.shape)}" if self.is_array(psi) else type(psi).__name__
                hint = f"; wrap a function of one row by {self.row_mapping}" if self.row_mapping else ""
                raise ModelError(
                    f"score_fn must return the score of each row, of shape {tuple(points.shape)}, not {came}{hint}"
                )
            return psi

        return score

    def given(self, what: str, value: Any, *shapes: tuple[int | str, ...]) -> Array:
        """An array of the caller's in the samples' dtype and place.

        Raises:
            OptionError: Its shape is none of `shapes`, where "m" stands for any length from 1.
        """
        array = self.asarray(value)
        for shape in shapes:
            if len(shape) == array.ndim and all(w in ("m", got) and got for w, got in zip(shape, array.shape, strict=True)):
                return array
        wanted = " or ".join(str(shape).replace("'", "") for shape in shapes)
        raise OptionError(f"{what} must have shape {wanted} for these samples, not {tuple(array.shape)}")

    def curvature(self, weight: Any) -> Params:
        """The penalty's weight as the objective takes it; nothing if it is the number 0."""
        d = self.like.shape[1]
        if self.is_own(weight):
            return {"curvature_weight": self.given("curvature_weight", weight, (), (d,))}
        checked = ImplicitScoreMatching(weight).curvature_weight
        if isinstance(checked, tuple):
            return {"curvature_weight": self.given("curvature_weight", np.array(checked), (d,))}
        if not isinstance(checked, int | float | np.number):
            raise OptionError(f"only ismcore.fit searches for a curvature_weight: give a number here, not {weight!r}")
        return {"curvature_weight": float(checked)} if checked else {}

    def noise_scale(self, scale: Any) -> Array:
        """The noise scale as the objective takes it."""
        if self.is_array(scale):
            return self.given("noise_scale", scale, (), (self.like.shape[0], 1))
        return float(DenoisingScoreMatching(scale).noise_scale)

    def probes(self, n_probes: int, probes: Any, draw: Draw) -> Array:
        """Probes, (m, n, d): drawn by a law of `ismcore.Hutchinson`, or those given.

        Raises:
            OptionError: An unknown law, a number of probes below 1, or an array of another shape.
        """
        if self.is_array(probes):
            return self.given("probes", probes, ("m", *self.like.shape))
        source = Hutchinson(n_probes, probes)
        if source.law == "given":
            return self.given("probes", np.asarray(source.probes), ("m", *self.like.shape))
        return draw(source.law, (n_probes, *self.like.shape))

    def noise(self, noise: Any, draw: Draw) -> Array:
        """Standard normal noise, (n, d), drawn or given.

        Raises:
            OptionError: An array of another shape.
        """
        shape = tuple(self.like.shape)
        return draw("gaussian", shape) if noise is None else self.given("noise", noise, shape)

    def loss(self, objective: Objective, score_fn: Any, given: LossInputs, reduction: str) -> Array:
        """The objective's terms of all rows, reduced: a mean or a sum, (), or "none", (n,).

        Raises:
            OptionError: An unknown reduction.
        """
        if reduction not in REDUCTIONS:
            raise OptionError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
        terms = objective.terms(self, self.checked(score_fn), self.like, given)
        if reduction == "none":
            return terms
        total = self.ops.sum(terms)
        return total if reduction == "sum" else total * (1.0 / self.like.shape[0])

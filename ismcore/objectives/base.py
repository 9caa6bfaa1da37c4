"""What an objective is: one term a row, and the arrays that enter it. Nothing else in the library knows a 1/2 or a sign."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, TypedDict

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.coordinates import Coordinates
from ismcore.domains import Domain, Reals
from ismcore.errors import OptionError
from ismcore.objectives.search import CurvatureSearch
from ismcore.ops import Array

__all__ = ["LossInputs", "Objective"]


class LossInputs(TypedDict, total=False):
    """Arrays that enter a loss beside parameters and samples; which of them are there, objective and problem say.

    An objective of one's own may add others, under names of its own.
    """

    curvature_weight: Array
    """lambda, () or (d,): there where the curvature is penalised."""
    probes: Array
    """Directions v, (m, n, d), of an estimated divergence."""
    noise: Array
    """Standard normal noise e, (n, d)."""
    noise_scale: Array
    """s, () or, one for each row, (n, 1)."""
    noise_unit: Array
    """What a noise scale is divided by, (), where it is in the units of the samples as they were given."""
    target_score: Array
    """The score to be met, (n, d)."""
    context: Array
    """What the score is conditional on, (n, c), where the objective itself gives it none."""
    base_weight: Array
    """W, (d, d), of a base score W x + b that is added to the model's and not learned; b and W's diagonal are there with it."""
    base_bias: Array
    """b, (d,)."""
    base_diagonal: Array
    """The diagonal of W, (d,): that of the base's Jacobian."""
    edge_weight: Array
    """h, (n, d), or (n, 1) for one weight a row: 0 at the edges of a domain, see `ismcore.domains`; there where it has any."""
    edge_slope: Array
    """d h_i / d x_i, (n, d)."""
    row_weight: Array
    """Weight of each row in the loss, (n,), in the place of 1/n."""


class Objective(ABC):
    """A loss for score functions, as one term a row; the loss is their mean."""

    differentiates_in_x: bool
    """Whether the loss holds a derivative in x, so that training needs the score's second derivatives."""
    separable: bool = False
    """Whether each term is a sum over the outputs i of the score, of what psi_i alone says: known, it saves `ismcore.solve`
    most of its evaluations."""
    row_axes: ClassVar[dict[str, int]] = {}
    """Those of `inputs` that hold something for each row, and the axis that counts the rows: batches take them by it."""

    def inputs(self, x: np.ndarray, coordinates: Coordinates) -> LossInputs:
        """Arrays that enter the terms and stay the same, so that changing them never recompiles a program.

        Args:
            x: Samples as trained on, (n, d).
            coordinates: Took them there from the user's units.

        Raises:
            OptionError: A value of the objective does not fit the samples' shape.
        """
        return {}

    def advice(self, x: np.ndarray, coordinates: Coordinates, dtype: str) -> tuple[str, ...]:
        """What of this objective makes a fit to the samples x, (n, d), as trained on, unreliable, in words; see `inputs`."""
        return ()

    def draws(self, rng: np.random.Generator, n: int, d: int) -> LossInputs:
        """Arrays that enter the terms and are drawn anew for every evaluation of the loss on n rows."""
        return {}

    def canonical(self) -> Objective:
        """The same for all objectives that one compiled program serves: those that differ in `inputs` alone."""
        return self

    @property
    def domain(self) -> Domain | None:
        """Where the samples end at edges that the objective knows of; None for nowhere."""
        return None

    def on(self, domain: Domain) -> Objective:
        """The same objective on a domain.

        Raises:
            OptionError: There is none.
        """
        raise OptionError(f"{self!r} has no form on a domain: use ismcore.ImplicitScoreMatching, or samples without an edge")

    @property
    def title(self) -> str:
        """What a picture of a fit is called."""
        return type(self).__name__

    @property
    def search(self) -> CurvatureSearch | None:
        """How a curvature weight is to be chosen, where that is left open."""
        return None

    @property
    def least_curvature_weight(self) -> float:
        """The smallest weight of a curvature penalty, over the columns; 0 where there is none."""
        return 0.0

    def with_curvature_weight(self, weight: float) -> Objective:
        """The same objective with this curvature weight, of those that have one."""
        return self

    def standardized(self, coordinates: Coordinates) -> Objective:
        """The objective that takes standardised samples for what they are, where it holds something in the user's units."""
        return self

    @abstractmethod
    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """The row terms, (n,), whose mean is the loss.

        Args:
            calculus: Operations and derivatives.
            score_fn: The score, (n, d) -> (n, d).
            x: Samples, (n, d).
            inputs: What `inputs` and `draws` gave, as arrays of the framework.
        """


def on_domain(objective: Objective, domain: Any, *samples: np.ndarray, weight: np.ndarray | None = None) -> Objective:
    """The objective on the domain that was asked for, or on its own; its width is by the first of the samples, (n, d) each.

    Raises:
        OptionError: It is no domain, or not the objective's own, or the objective has no form on one.
        SamplesError: Rows lie outside.
    """
    if domain is not None and not isinstance(domain, Domain):
        raise OptionError(
            f"domain must be 'auto' or one of ismcore.domains: Positive(), Box(lower, upper), Halfspaces(A, b), not {domain!r}"
        )
    if domain is not None and objective.domain not in (None, domain):
        raise OptionError(f"domain={domain!r} is not that of the objective, {objective.domain!r}: leave one of the two away")
    domain = objective.domain if domain is None else domain
    if domain is None:
        return objective
    for x in samples:
        domain.check(x)
    return objective if isinstance(domain, Reals) else objective.on(domain.measured(samples[0], weight))


def check_shape(what: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A float array of the shape.

    Raises:
        OptionError: It has another shape, or is not finite.
    """
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape or not np.all(np.isfinite(array)):
        raise OptionError(f"{what} must be finite and of shape {shape} for these samples, not {array.shape}")
    return array


def check_positive(what: str, value: object) -> None:
    """Refuse what is no positive finite number.

    Raises:
        OptionError: See above.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0.0 < value < np.inf:
        raise OptionError(f"{what} must be a positive finite number, not {value!r}")


def as_scales(scales: Any) -> tuple[float, ...]:
    """Noise scales as numbers, (k,).

    Raises:
        OptionError: They are no sequence of numbers.
    """
    listed = tuple(scales) if isinstance(scales, Iterable) and not isinstance(scales, str) else (None,)
    if not all(np.ndim(scale) == 0 and hasattr(scale, "__float__") for scale in listed):
        raise OptionError(f"noise_scales must be a sequence of numbers, not {scales!r:.80}")
    return tuple(map(float, listed))

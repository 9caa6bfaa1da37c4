"""How a curvature weight is chosen by held-out rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ismcore.errors import OptionError

__all__ = ["CurvatureSearch", "is_weight"]


@dataclass(frozen=True)
class CurvatureSearch:
    """A choice of the curvature weight by held-out rows: one fit for each weight, and the one of the lowest validation loss.

    Values of the regularised loss at different weights do not compare, so one loss compares all: by default the plain one, of
    rows with noise as wide as the step of a discrete column.

    Args:
        weights: What to try.
        folds: Parts that take turns in being held out, from 2; 0 for the rows that the fit holds out anyway.
        judge_weight: Curvature weight of the loss that compares them; a positive one favours its like.

    Raises:
        OptionError: A value is none of these.
    """

    weights: tuple[float, ...] = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
    folds: int = 0
    judge_weight: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        if not self.weights or not all(is_weight(w) for w in (*self.weights, self.judge_weight)):
            raise OptionError(f"a search needs curvature weights that are finite and from 0, not {self.weights!r}")
        if isinstance(self.folds, bool) or not isinstance(self.folds, int) or self.folds < 0 or self.folds == 1:
            raise OptionError(f"folds must be a whole number from 2, or 0 for none, not {self.folds!r}")


def is_weight(value: object) -> bool:
    """Whether it is a finite number from 0."""
    return not isinstance(value, bool) and isinstance(value, int | float | np.number) and 0.0 <= float(value) < np.inf

"""Rows to judge by: which of them depend on each other, and how they are parted in two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.errors import OptionError, SamplesError
from ismcore.samples.checks import as_groups, as_samples, check_spread
from ismcore.samples.diagnosis import Diagnosis, diagnosis_of
from ismcore.samples.splitting import HoldOut, batch_labels, held_out_rows
from ismcore.samples.ties import mostly_shared
from ismcore.training.set_aside import SetAside

__all__ = ["Judged"]


def _halves(x: np.ndarray, diagnosis: Diagnosis, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows that competitors are fitted to, and rows that judge, (m,), bool: about half each, dependent ones never parted."""
    how = diagnosis.holdout if groups is None else HoldOut("groups")
    split = held_out_rows(x, 0.5, 0, how, groups=groups)
    return split.trained, split.held_out


def _check_new(rows: np.ndarray, seen: np.ndarray, whose: str) -> None:
    """Refuse rows (m, d) that are mostly among those seen (k, d), or most of these among them: its own flatter a fit."""
    if mostly_shared(rows, seen):
        raise OptionError(
            f"most rows of x are among those of {whose}, or most of its rows among them: rows that a fit has seen flatter it, "
            "so pass others, or set some aside before the fit, as in fit(x, test=0.2) and then check()"
        )


@dataclass(frozen=True, eq=False)
class Judged:
    """Rows that judge, and what is known of them.

    Attributes:
        x: (m, d), in [x].
        labels: (m,); rows of one label may depend on each other.
        fitted: The rows that competitors are fitted to, (n, d), in [x].
        units: Coordinates in which each column of those has mean 0 and standard deviation 1.
        diagnosis: Of those rows, or where they are a part of the rows given, of all of these.
        weight: Weights of x, (m,), of sum 1; None where all weigh alike.
        fitted_weight: Weights of the rows that competitors are fitted to, likewise.
    """

    x: np.ndarray
    labels: np.ndarray
    fitted: np.ndarray
    units: Coordinates
    diagnosis: Diagnosis
    weight: np.ndarray | None = None
    fitted_weight: np.ndarray | None = None

    @property
    def independent(self) -> int:
        """How many labels there are, of rows that have weight."""
        return len(np.unique(self.labels if self.weight is None else self.labels[self.weight > 0.0]))

    def mean(self, values: np.ndarray) -> float:
        """Weighted mean of values at x, (m,)."""
        return float(np.mean(values) if self.weight is None else self.weight @ values)

    @classmethod
    def set_aside(cls, test: SetAside) -> Judged:
        """The rows that a fit has set aside, with its own rows for competitors."""
        units = Coordinates.standardizing(test.fitted, test.fitted_weight)
        diagnosis = diagnosis_of(test.fitted, weight=test.fitted_weight)
        return cls(test.x, test.labels, test.fitted, units, diagnosis, test.weight, test.fitted_weight)

    @classmethod
    def of(cls, result: Any, x: Any, train: Any, groups: Any) -> Judged:
        """The rows given, or half of them where there are no training rows to fit competitors to.

        Raises:
            SamplesError: They cannot be used.
            OptionError: Most rows of x are among those of the fit, as far as it keeps them, or among the training rows given.
        """
        d, names = result.d, result.feature_names
        rows = as_samples(x, d=d, names=names)
        if len(rows) < (fewest := 2 if train is not None else 4):
            raise SamplesError(f"a check needs at least {fewest} rows, and got {len(rows)}: pass more, new to the fit")
        check_spread(rows)
        diagnosis = diagnosis_of(rows)
        if result.kept is not None and not diagnosis.has_atoms:
            _check_new(rows, result.kept, "the fit")
        given = None if groups is None else as_groups(groups, len(rows))
        labels = batch_labels(rows, diagnosis.holdout, given)
        if train is None:
            fitting, judging = _halves(rows, diagnosis, given)
            fitted, rows, labels = rows[fitting], rows[judging], labels[judging]
            check_spread(fitted)
        else:
            fitted = as_samples(train, d=d, names=names)
            check_spread(fitted)
            diagnosis = diagnosis_of(fitted)
            if not diagnosis.has_atoms:
                _check_new(rows, fitted, "train")
        return cls(
            rows, np.unique(labels, return_inverse=True)[1].reshape(-1), fitted, Coordinates.standardizing(fitted), diagnosis
        )

"""Rows to judge by: which of them depend on each other, and how they are parted in two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.errors import OptionError
from ismcore.samples.checks import as_groups, as_samples, check_spread
from ismcore.samples.diagnosis import Diagnosis, diagnosis_of
from ismcore.samples.neighbours import rows_within
from ismcore.samples.splitting import HoldOut, held_out_rows
from ismcore.samples.ties import row_groups

__all__ = ["Judged", "dependent_rows"]

TIMES, FEWEST_BLOCKS = 5, 10
"""A block of a series is so many correlation times long, but there are at least so many blocks."""


def dependent_rows(x: np.ndarray, how: HoldOut, groups: np.ndarray | None) -> np.ndarray:
    """A label for each row, (m,), from 0: rows of one label may depend on each other, and of different ones do not.

    Labels are the groups given; for a series, blocks of 5 correlation times, one after another (batch means); near-copies and
    equal rows, where there are some; else a label a row.

    Args:
        x: Rows, (m, d), in the order in which they came.
        how: What `ismcore.diagnose` found of their dependence.
        groups: Labels, (m,), from 0.
    """
    m = len(x)
    if groups is not None:
        return np.unique(groups, return_inverse=True)[1].reshape(-1)
    if how.by == "blocks":
        return np.arange(m) // max(1, min(TIMES * how.time, m // FEWEST_BLOCKS))
    if how.by == "near-copies":
        return rows_within(x, how.radius)
    return row_groups(x) if how.by == "equal rows" else np.arange(m)


def _halves(x: np.ndarray, diagnosis: Diagnosis, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows that competitors are fitted to, and rows that judge, (m,), bool: about half each, dependent ones never parted."""
    how = diagnosis.holdout if groups is None else HoldOut("groups")
    split = held_out_rows(x, 0.5, 0, how, groups=groups)
    return split.trained, split.held_out


@dataclass(frozen=True, eq=False)
class Judged:
    """Rows that judge, and what is known of them.

    Attributes:
        x: (m, d), in [x].
        labels: (m,); rows of one label may depend on each other.
        fitted: The rows that competitors are fitted to, (n, d), in [x].
        units: Coordinates in which each column of those has mean 0 and standard deviation 1.
        diagnosis: Of those rows, or where they are a part of the rows given, of all of these.
    """

    x: np.ndarray
    labels: np.ndarray
    fitted: np.ndarray
    units: Coordinates
    diagnosis: Diagnosis

    @property
    def independent(self) -> int:
        """How many labels there are."""
        return len(np.unique(self.labels))

    @classmethod
    def of(cls, result: Any, x: Any, train: Any, groups: Any) -> Judged:
        """The rows given, or half of them where there are no training rows to fit competitors to.

        Raises:
            SamplesError: They cannot be used.
            OptionError: Most rows of x are among the training rows.
        """
        d, names = result.d, result.feature_names
        rows = as_samples(x, d=d, names=names)
        check_spread(rows)
        diagnosis = diagnosis_of(rows)
        given = None if groups is None else as_groups(groups, len(rows))
        labels = dependent_rows(rows, diagnosis.holdout, given)
        if train is None:
            fitting, judging = _halves(rows, diagnosis, given)
            fitted, rows, labels = rows[fitting], rows[judging], labels[judging]
            check_spread(fitted)
        else:
            fitted = as_samples(train, d=d, names=names)
            check_spread(fitted)
            diagnosis = diagnosis_of(fitted)
            seen = {row.tobytes() for row in fitted}
            if not diagnosis.has_atoms and 2 * sum(row.tobytes() in seen for row in rows) > len(rows):
                raise OptionError("most rows of x are among those of train: pass rows that the fit has not seen")
        return cls(
            rows, np.unique(labels, return_inverse=True)[1].reshape(-1), fitted, Coordinates.standardizing(fitted), diagnosis
        )

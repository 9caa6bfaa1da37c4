"""Rows to judge by: which of them depend on each other, and how they are parted in two."""

from __future__ import annotations

import numpy as np

from ismcore.samples.diagnosis import Diagnosis
from ismcore.samples.neighbours import rows_within
from ismcore.samples.splitting import HoldOut, held_out_rows
from ismcore.samples.ties import row_groups

__all__ = ["dependent_rows", "halves"]

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


def halves(x: np.ndarray, diagnosis: Diagnosis, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows that competitors are fitted to, and rows that judge, (m,), bool: about half each, dependent ones never parted."""
    how = diagnosis.holdout if groups is None else HoldOut("groups")
    split = held_out_rows(x, 0.5, 0, how, groups=groups)
    return split.trained, split.held_out

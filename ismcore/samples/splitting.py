"""Holding rows out: which ones train, and which ones validate."""

from __future__ import annotations

import numpy as np

from ismcore.samples.advice import row_groups
from ismcore.seeds import stream

__all__ = ["fold_rows", "held_out_rows"]


def held_out_rows(x: np.ndarray, share: float, seed: int, *, together: bool) -> np.ndarray:
    """Which rows to hold out, (n,), bool: about the share given, at least one and never all.

    Args:
        x: Samples, (n, d).
        share: The share, in (0, 1).
        seed: Source of the choice.
        together: Keep identical rows on one side: a copy of a training row would reward the steep step that the fit made
            there. Not where most rows repeat: the groups are then the points of a lattice, and to hold them out whole tears
            holes into what is trained on; see `ismcore.advice.Traits.keeps_copies_together`.
    """
    return np.asarray(fold_rows(x, share, 1, seed, together=together)[0])


def fold_rows(x: np.ndarray, share: float, folds: int, seed: int, *, together: bool) -> np.ndarray:
    """Which rows to hold out in each of some disjoint folds, (folds, n), bool; see `held_out_rows`."""
    groups = row_groups(x) if together else np.arange(len(x))
    sizes = np.bincount(groups)
    order = stream(seed, "split").permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]  # rows in the groups before each one, in the drawn order
    fold = np.full(len(sizes), folds)
    fold[order] = np.minimum(before / max(1.0, share * len(x)), folds).astype(int)
    if folds == 1 and not (fold == 1).any():  # one group alone: nothing is left to train on
        fold[order[1:]] = 1
    return np.stack([(fold == k)[groups] for k in range(folds)])

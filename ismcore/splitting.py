"""Holding rows out: which ones train, and which ones judge."""

from __future__ import annotations

import numpy as np

from ismcore.seeds import stream

__all__ = ["fold_rows", "held_out_rows", "row_groups"]

_ODD = np.uint64(0x9E3779B97F4A7C15)


def row_groups(x: np.ndarray) -> np.ndarray:
    """A number for each row, (n,), from 0, the same for identical rows.

    Rows are told apart by a 64-bit hash of their bits, in one pass; two different rows that share one would only be kept
    together.
    """
    bits = np.ascontiguousarray(x + 0.0, dtype=np.float64).view(np.uint64)  # + 0.0: one zero, not two
    with np.errstate(over="ignore"):
        mixed = np.zeros(len(x), dtype=np.uint64)
        for column in bits.T:
            mixed = (mixed ^ column) * _ODD
            mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed, return_inverse=True)[1]


def held_out_rows(x: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which rows to hold out, (n,), bool: about the share given, at least one and never all.

    Identical rows stay on one side: a copy of a training row would reward the steep step that the fit made there.
    """
    return np.asarray(fold_rows(x, share, 1, seed)[0])


def fold_rows(x: np.ndarray, share: float, folds: int, seed: int) -> np.ndarray:
    """Which rows to hold out in each of some disjoint folds, (folds, n), bool; see `held_out_rows`."""
    groups = row_groups(x)
    sizes = np.bincount(groups)
    order = stream(seed, "split").permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]  # rows in the groups before each one, in the drawn order
    fold = np.full(len(sizes), folds)
    fold[order] = np.minimum(before / max(1.0, share * len(x)), folds).astype(int)
    if folds == 1 and not (fold == 1).any():  # one group alone: nothing is left to train on
        fold[order[1:]] = 1
    return np.stack([(fold == k)[groups] for k in range(folds)])

"""Holding rows out: which ones train, and which ones validate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ismcore.samples.neighbours import rows_within
from ismcore.samples.ties import row_groups
from ismcore.seeds import stream

__all__ = ["HoldOut", "Split", "batch_labels", "dependent_rows", "fold_rows", "held_out_rows"]

BLOCKS = 20
"""So many blocks of a series are held out in each fold, or as many as there are rows to hold out."""
GAPS = 0.3
"""At most this part of the rows of a series lies between blocks held out and rows trained on."""
TIMES, FEWEST_BLOCKS = 5, 10
"""A block of a series is so many correlation times long, but there are at least so many blocks."""


@dataclass(frozen=True)
class HoldOut:
    """How rows are held out.

    Attributes:
        by: "rows", each for itself; "equal rows", "near-copies" and "groups", which stay on one side; or "blocks" of rows one
            after another.
        time: The correlation time in rows, for blocks.
        radius: What is near, between whitened rows; see `ismcore.samples.neighbours.rows_within`.
        by_weight: Whether shares are of the weight of the rows, and not of their number, so that no part is without.
    """

    by: str = "rows"
    time: int = 0
    radius: float = 0.0
    by_weight: bool = False


@dataclass(frozen=True, eq=False)
class Split:
    """Which rows train and which are held out, (n,), bool. Rows that do neither lie between dependent ones."""

    trained: np.ndarray
    held_out: np.ndarray


def held_out_rows(
    x: np.ndarray,
    share: float,
    seed: int,
    how: HoldOut | None = None,
    *,
    weight: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Split:
    """Hold out about the share given, in (0, 1): at least one row and never all; see `fold_rows`."""
    return fold_rows(x, share, 1, seed, how, weight=weight, groups=groups)[0]


def fold_rows(
    x: np.ndarray,
    share: float,
    folds: int,
    seed: int,
    how: HoldOut | None = None,
    *,
    weight: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> list[Split]:
    """Some splits whose held-out parts are disjoint.

    Args:
        x: Samples, (n, d).
        share: The share to hold out in each, in (0, 1).
        folds: How many.
        seed: Source of the choice.
        how: Which rows stay together; each for itself if None. Rows that are held out beside a copy reward the steep step that
            the fit made there. Not where most rows repeat: the groups are then the points of a lattice, and to hold them out
            whole tears holes into what is trained on; see `ismcore.samples.diagnosis.Diagnosis.holdout`.
        weight: Row weights, (n,), of sum 1, for `how.by_weight`.
        groups: Labels, (n,), from 0, for `how.by == "groups"`.
    """
    how = HoldOut() if how is None else how
    if how.by == "blocks":
        return _blocks(len(x), share, folds, seed, how.time)
    fold = _dealt(_groups(x, how, groups), share, folds, seed, weight if how.by_weight else None)
    return [Split(fold != k, fold == k) for k in range(folds)]


def dependent_rows(x: np.ndarray, how: HoldOut, groups: np.ndarray | None = None) -> np.ndarray | None:
    """Labels, (n,), from 0, of rows that are not independent and so count as one in a standard error; None where all are."""
    if how.by == "rows":
        return None
    if how.by == "blocks":
        return np.arange(len(x)) // max(1, how.time, len(x) // (BLOCKS * BLOCKS))
    return _groups(x, how, groups)


def batch_labels(x: np.ndarray, how: HoldOut, groups: np.ndarray | None = None) -> np.ndarray:
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


def _groups(x: np.ndarray, how: HoldOut, groups: np.ndarray | None) -> np.ndarray:
    if how.by == "groups" and groups is not None:
        return groups
    if how.by == "near-copies":
        return rows_within(x, how.radius)
    return row_groups(x) if how.by == "equal rows" else np.arange(len(x))


def _dealt(groups: np.ndarray, share: float, folds: int, seed: int, weight: np.ndarray | None) -> np.ndarray:
    """The fold that each row is held out in, (n,), by the groups drawn in a random order; `folds` for none."""
    n = len(groups)
    sizes = np.bincount(groups) if weight is None else n * np.bincount(groups, weight)
    order = stream(seed, "split").permutation(len(sizes))
    if folds == 1:  # a group of most rows is trained on, whatever its place
        order = order[np.argsort(sizes[order] > 0.5 * n, kind="stable")]
    before = np.cumsum(sizes[order]) - sizes[order]  # rows, or weight, in the groups before each one, in the drawn order
    fold = np.full(len(sizes), folds)
    fold[order] = np.minimum(before / max(1.0, share * n), folds).astype(int)
    if folds == 1 and not sizes[fold == 1].any():  # one group alone: nothing is left to train on
        first = np.flatnonzero(sizes[order])[0]
        fold[order[first + 1 :]] = 1
    return np.asarray(fold[groups])


def _blocks(n: int, share: float, folds: int, seed: int, time: int) -> list[Split]:
    """Each stretch of n / 20 rows is cut into pieces of the share's length; each fold holds one of each stretch out.

    Up to a correlation time of rows on either side is not trained on, as far as 30 % of all rows allow.
    """
    blocks = max(1, min(BLOCKS, int(share * n)))
    pieces = max(folds, int(1.0 / share), 2)
    gap = min(time, int(GAPS * n / (2 * blocks)))
    bounds = np.linspace(0, n, blocks * pieces + 1).astype(int)
    source = stream(seed, "split")
    chosen = np.stack([source.permutation(pieces) for _ in range(blocks)])
    rows = np.arange(n)
    piece = np.searchsorted(bounds, rows, side="right") - 1
    splits = []
    for k in range(folds):
        held_out = np.isin(piece, np.arange(blocks) * pieces + chosen[:, k])
        near = np.cumsum(np.concatenate([[0], held_out]))
        low, high = np.maximum(rows - gap, 0), np.minimum(rows + gap + 1, n)
        splits.append(Split(near[high] == near[low], held_out))
    return splits

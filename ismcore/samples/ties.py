"""Values that repeat: equal rows, atoms, discrete columns.

Empirical implicit score matching, mean_n [ 1/2 |psi(x_n)|^2 + div psi(x_n) ], pays for a steep step of psi at a sample. Where
values repeat, held-out rows sit on the same steps, so that a held-out loss pays for them too and is no judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Ties", "distinct_rows", "mostly_shared", "row_groups", "ties"]

ROWS, NUMBERS = 10_000, 1_000_000
"""Columns are searched for ties in at most so many rows and numbers, so that a lattice too fine to matter goes unseen: of
10,000 rows of a normal column three share a value where the step is 1/1000 of a standard deviation, which no fit resolves."""

ATOM_SHARE = 0.02
"""A value that holds this part of the rows, and three of them, is an atom."""

PER_VALUE = 3.0
"""A column is discrete where each of its values comes at least so often in the mean."""

FEWEST_COPIED, OWN, STEADY = 100, 0.9, 0.1
"""Rows most of which repeat are copies of so many rows or more, where some column has a value of its own for this part of them,
and the ratio of two gaps between neighbouring values is that of the next two, to 1 %, for less than that part of the values.
On a lattice it is so wherever it is filled, also on one that is bent, as of logarithms or of values of three digits; most rows
can only repeat where it is filled. Of a density it is so for 0.2 %."""


@dataclass(frozen=True)
class Ties:
    """The values of a sample that repeat.

    Attributes:
        repeated: Rows that equal an earlier row.
        atoms: Column, value [x] and share of the rows of each value that many rows have in a column that is not discrete.
        steps: Column and step [x] of each discrete column; the step is 0 where its values lie on no lattice.
        copied: Whether most rows repeat as whole rows do that are given several times, and not as rounded values do: the values
            of columns are then counted in distinct rows.
    """

    repeated: int = 0
    atoms: tuple[tuple[int, float, float], ...] = ()
    steps: tuple[tuple[int, float], ...] = ()
    copied: bool = False


def ties(x: np.ndarray) -> Ties:
    """The repeated values of a sample, (n, d), in any units.

    Cost: a few operations a number for repeated rows; a sort of each column, of at most 10,000 rows drawn by a fixed seed.
    """
    given = len(x)
    repeated = given - len(_runs(np.sort(_fingerprints(x + 0.0)))[0])
    copied = 2 * repeated > given and _are_copies(x)
    if copied:
        x = distinct_rows(x)
    n, d = x.shape
    rows = min(n, ROWS, max(1000, NUMBERS // d))
    some = x if rows == n else x[np.random.default_rng(0).choice(n, rows, replace=False, shuffle=False)]
    atoms: list[tuple[int, float, float]] = []
    steps: list[tuple[int, float]] = []
    for j, column in enumerate(np.sort(some.T, axis=1)):
        values, counts = _runs(column)
        if len(column) >= PER_VALUE * len(values):
            steps.append((j, _step(values)))
        else:
            heavy = np.flatnonzero(counts >= max(3.0, ATOM_SHARE * len(column)))
            atoms.extend((j, float(values[k]), float(counts[k] / len(column))) for k in heavy)
    return Ties(repeated, tuple(atoms), tuple(steps), copied)


def distinct_rows(x: np.ndarray) -> np.ndarray:
    """The rows of (n, d) that equal no earlier one, in their order."""
    return np.asarray(x[np.unique(row_groups(x), return_index=True)[1]])


def mostly_shared(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether most of the distinct rows of x, (n, d), are rows of y, (m, d), or the other way round."""
    ours, theirs = (np.unique(_fingerprints(rows + 0.0)) for rows in (x, y))
    return 2 * len(np.intersect1d(ours, theirs, assume_unique=True)) > min(len(ours), len(theirs))


def _are_copies(x: np.ndarray) -> bool:
    """Whether rows most of which repeat were given several times, and are not rounded, nor atoms; see `FEWEST_COPIED`."""
    number = row_groups(x)
    times = np.bincount(number)
    if len(times) < FEWEST_COPIED or times.max() >= ATOM_SHARE * len(x):
        return False
    rows = x[np.unique(number, return_index=True)[1]]
    columns = (_runs(column)[0] for column in np.sort(rows.T, axis=1))
    return any(len(values) >= OWN * len(rows) and not _on_lattice(values) for values in columns)


def _on_lattice(values: np.ndarray) -> bool:
    """Whether distinct increasing values fill a lattice, straight or bent; see `FEWEST_COPIED`."""
    gaps = np.diff(values)
    with np.errstate(all="ignore"):  # of gaps of all sizes
        ratio = gaps[1:] / gaps[:-1]
        return bool(np.mean(np.abs(ratio[1:] / ratio[:-1] - 1.0) < 0.01) >= STEADY)


def row_groups(x: np.ndarray) -> np.ndarray:
    """A number for each row, (n,), equal exactly where rows are equal, from 0 and in order of first appearance.

    A split that deals groups instead of rows never has the same row on both sides; see `Diagnosis.keeps_copies_together`.

    Args:
        x: Samples (n, d); -0.0 equals 0.0.

    Cost: n d operations and a sort of n integers.

    Example:
        >>> row_groups(np.array([[3.0], [1.0], [3.0]])).tolist()
        [0, 1, 0]
    """
    rows = np.asarray(x, dtype=np.float64) + 0.0  # + 0.0 turns -0.0 into 0.0
    key = _fingerprints(rows)
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order[1:]] == key[order[:-1]])
    if np.any(rows[order[same + 1]] != rows[order[same]]):  # two rows with one fingerprint
        key = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        order = np.argsort(key, kind="stable")
        same = np.flatnonzero(key[order[1:]] == key[order[:-1]])
    first = np.ones(len(rows), dtype=bool)
    first[same + 1] = False
    # The sort is stable: each run begins with the row that appears first, and runs are numbered by that row.
    number = np.empty(int(first.sum()), dtype=np.int64)
    number[np.argsort(order[first])] = np.arange(len(number))
    group = np.empty(len(rows), dtype=np.int64)
    group[order] = number[np.cumsum(first) - 1]
    return group


def _fingerprints(rows: np.ndarray) -> np.ndarray:
    """64 bits of each row, (n,): xor with each column's bits, then a multiplication and a shift that mix them."""
    key = np.zeros(len(rows), dtype=np.uint64)
    for column in np.ascontiguousarray(rows.T).view(np.uint64):
        key ^= column
        key *= np.uint64(0xBF58476D1CE4E5B9)
        key ^= key >> np.uint64(29)
    return key


def _runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values of a sorted column and how often each comes."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def _step(values: np.ndarray) -> float:
    """Step of the lattice that distinct increasing values lie on, to a twentieth of a step; 0.0 where there is none."""
    if len(values) < 2:
        return 0.0
    offset = values - values[0]
    step = float(np.diff(values).min())
    # Rounding blurs the smallest gap; the whole range divided by its number of steps is sharper.
    step = float(offset[-1] / np.round(offset[-1] / step))
    places = offset / step
    return step if np.abs(places - np.round(places)).max() < 0.05 else 0.0

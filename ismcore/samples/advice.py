"""What a sample can and cannot teach a score: repeated rows, atoms, lattices, dependent columns, gaps, and warnings in words.

Empirical implicit score matching, mean_n [ 1/2 |psi(x_n)|^2 + div psi(x_n) ], pays for a steep step of psi at a sample. Where
values repeat, held-out rows sit on the same steps, so that a held-out loss pays for them too and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.samples.dependence import Dependence, dependence
from ismcore.samples.gaps import Gap, emptiest_gap

__all__ = ["ON_ATOMS", "Traits", "more_curvature", "row_groups", "runs_away", "traits_of", "warnings_for"]

ROWS, NUMBERS = 10_000, 1_000_000
"""Columns are searched for ties in at most so many rows and numbers, so that a lattice too fine to matter goes unseen: of
10,000 rows of a normal column three share a value where the step is 1/1000 of a standard deviation, which no fit resolves."""

ATOM_SHARE = 0.02
"""A value that holds this part of the rows, and three of them, is an atom."""

PER_VALUE = 3.0
"""A column is discrete where each of its values comes at least so often in the mean."""

ON_ATOMS = 0.1
"""The curvature weight, of standardised samples, where values repeat and none is given or can be chosen; measured in
docs/decisions/2026-11-23-default-protocol.md."""

REPEATED_SHARE = 0.01
"""Repeated rows are worth a word from this part of the rows on."""


@dataclass(frozen=True)
class Traits:
    """What of a sample bears on how to fit a score to it.

    Attributes:
        n: Rows.
        d: Columns.
        repeated: Rows that equal an earlier row.
        atoms: Column, value [x] and share of the rows of each value that many rows have in a column that is not discrete.
        steps: Column and step [x] of each discrete column; the step is 0 where its values lie on no lattice.
        gap: The emptiest gap between two clusters of the sample, if score matching cannot see across it.
        dependence: The linear dependence of columns, if there is one.
    """

    n: int
    d: int
    repeated: int = 0
    atoms: tuple[tuple[int, float, float], ...] = ()
    steps: tuple[tuple[int, float], ...] = ()
    gap: Gap | None = None
    dependence: Dependence | None = None

    @property
    def has_atoms(self) -> bool:
        """Whether values repeat so much that only a bounded objective, curvature_weight > 0, has a minimum to find.

        Repeated rows alone do not count: a split that keeps them on one side (`row_groups`) leaves the held-out loss good.
        """
        return bool(self.atoms or self.steps)

    @property
    def rounding(self) -> np.ndarray:
        """Width [x] of the uniform noise that undoes the rounding of each column, (d,): its step, or 0.

        The plain loss of held-out rows so dequantised is good where that of the rows as they are is not: noise carries them
        off a step of psi that is narrower than the rounding.
        """
        width = np.zeros(self.d)
        for column, step in self.steps:
            width[column] = step
        return width

    @property
    def keeps_copies_together(self) -> bool:
        """Whether a split should deal groups of equal rows (`row_groups`): some rows repeat, and most do not.

        Where most rows repeat, as in a few coarse columns, groups are the lattice's points: to hold them out whole tears holes
        into the training part, and a normal column rounded to a tenth is fitted ten times worse for it.
        """
        return 0 < self.repeated <= self.n // 2


def row_groups(x: np.ndarray) -> np.ndarray:
    """A number for each row, (n,), equal exactly where rows are equal, from 0 and in order of first appearance.

    A split that deals groups instead of rows never has the same row on both sides; see `Traits.keeps_copies_together`.

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


def traits_of(x: np.ndarray, dtype: str = "float64") -> Traits:
    """Look at a sample, (n, d), in any units; no column may be constant. A fit to it computes in the dtype.

    Cost: a few operations a number for repeated rows; ties, dependence and gaps on at most 20,000 rows, drawn by a fixed seed.

    Example:
        >>> traits_of(np.round(np.random.default_rng(0).normal(size=(1000, 1)), 1)).has_atoms
        True
    """
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
    repeated = n - len(_runs(np.sort(_fingerprints(x + 0.0)))[0])
    # Between the values of a lattice every gap is empty, and says nothing of modes.
    smooth = np.setdiff1d(np.arange(d), [j for j, _ in steps])
    gap = emptiest_gap(x, smooth, dtype) if len(smooth) else None
    return Traits(n, d, repeated, tuple(atoms), tuple(steps), gap, dependence(x, dtype))


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


def warnings_for(
    x: Any,
    *,
    traits: Traits | None = None,
    parameters: int = 0,
    curvature_weight: float = 0.0,
    held_out: int | None = None,
    validation: Sequence[float] | np.ndarray | None = None,
) -> tuple[str, ...]:
    """Warnings in words about a fit to the samples x, for `FitResult.warnings`.

    Args:
        x: Samples, (n, d), in the user's units [x].
        traits: `traits_of(x)`, where it is known already.
        parameters: Numbers that the model learns.
        curvature_weight: That of the objective; 0 for one without.
        held_out: Rows of the validation part, if there is one.
        validation: Held-out losses in the order of the epochs, (k,), if there are any.

    Returns:
        One or two sentences each: what was seen, what it does to the fit, what to do.

    Example:
        >>> warnings_for(np.random.default_rng(0).normal(size=(1000, 2)), parameters=100)
        ()
    """
    seen = traits_of(np.asarray(x, dtype=np.float64)) if traits is None else traits
    found = [
        _about_repeated_rows(seen, curvature_weight),
        _about_atoms(seen, curvature_weight),
        _about_steps(seen, curvature_weight),
        _about_dependence(seen),
        _about_rows(seen, parameters, held_out),
        _about_modes(seen),
        "" if validation is None else _about_validation(np.asarray(validation, dtype=np.float64), curvature_weight),
    ]
    return tuple(text for text in found if text)


def _cure(seen: Traits, curvature_weight: float) -> str:
    """What to do where the loss falls without bound; what has been done already is told as done."""
    dequantise = "dequantise: add noise as wide as the rounding"
    if curvature_weight == ON_ATOMS and seen.has_atoms:
        return f"a curvature weight of {curvature_weight:g} was therefore used, which bounds it; you may also {dequantise}"
    if curvature_weight > 0.0:
        return f"the curvature weight of {curvature_weight:g} bounds it; you may also {dequantise}"
    return f"set a curvature_weight, such as {ON_ATOMS:g}, or {dequantise}"


def _about_repeated_rows(seen: Traits, curvature_weight: float) -> str:
    # In one column repeated rows are ties, and told of as atoms or as a discrete column.
    if seen.d == 1 or seen.repeated < max(2.0, REPEATED_SHARE * seen.n):
        return ""
    return (
        f"{seen.repeated} of {seen.n} rows repeat an earlier row: the plain loss falls without bound there, and a held-out row "
        f"that equals a training row rewards it; drop the repeats if they are copies; if not, {_cure(seen, curvature_weight)}"
    )


def _about_atoms(seen: Traits, curvature_weight: float) -> str:
    if not seen.atoms:
        return ""
    listed = ", ".join(f"{value:g} in column {j} ({share:.0%} of the rows)" for j, value, share in seen.atoms[:5])
    more = f" and {len(seen.atoms) - 5} more" if len(seen.atoms) > 5 else ""
    return (
        f"the samples have atoms, values that repeat: {listed}{more}; the plain loss, held-out too, falls without bound there: "
        + _cure(seen, curvature_weight)
    )


def _about_steps(seen: Traits, curvature_weight: float) -> str:
    if not seen.steps:
        return ""
    listed = ", ".join(f"{j} (step {step:g})" if step else f"{j} (uneven steps)" for j, step in seen.steps[:12])
    more = f" and {len(seen.steps) - 12} more" if len(seen.steps) > 12 else ""
    return (
        f"discrete columns, whose few values repeat (atoms): {listed}{more}; the plain loss, held-out too, falls without bound "
        f"there: {_cure(seen, curvature_weight)}"
    )


def _about_dependence(seen: Traits) -> str:
    found = seen.dependence
    if found is None:
        return ""
    listed = ", ".join(map(str, found.columns[:12]))
    more = f" and {len(found.columns) - 12} more" if len(found.columns) > 12 else ""
    many = f", in {found.directions} directions" if found.directions > 1 else ""
    return (
        f"columns {listed}{more} are linearly dependent up to rounding{many}: the smallest eigenvalue of the correlation "
        f"matrix is {found.eigenvalue:.2g}; such a law has no density and no score, and the loss, held-out too, no lower "
        f"bound: drop {found.directions} of these columns"
    )


def _about_rows(seen: Traits, parameters: int, held_out: int | None) -> str:
    if seen.n * seen.d < parameters:
        smaller = parameters > seen.d * (seen.d + 1)  # than which Affine has no more
        cure = "a smaller model, ismcore.Affine() at the smallest," if smaller else "fewer columns"
        return (
            f"too few rows for the model: {seen.n} rows of {seen.d} numbers against {parameters} parameters; take {cure} or "
            "more rows"
        )
    if seen.n < 10 * (seen.d + 1):
        return (
            f"too few rows for {seen.d} dimensions: {seen.n}, and even a Gaussian's score wants {10 * (seen.d + 1)} to be "
            "right to a tenth; take fewer columns or more rows"
        )
    if held_out is not None and held_out < 20:
        return (
            f"the held-out part has {held_out} rows, too few to tell a better fit from a worse; hold out more, or switch "
            "validation off"
        )
    return ""


def _about_modes(seen: Traits) -> str:
    gap = seen.gap
    if gap is None:
        return ""
    return (
        f"along {gap.direction} the samples fall into clusters of {gap.share:.0%} and {1.0 - gap.share:.0%} with "
        f"{gap.rows} rows between {gap.low:.3g} and {gap.high:.3g}: score matching cannot see the weights of modes so far "
        "apart, so trust the score within each and take their weights from counts"
    )


def _about_validation(losses: np.ndarray, curvature_weight: float) -> str:
    if not runs_away(losses):
        return ""
    best, cure = int(np.nanargmin(losses)), more_curvature(curvature_weight)
    return (
        f"the held-out loss ran away: {losses[best]:.4g} at its best, look {best + 1} of {len(losses)}, {losses[-1]:.4g} at "
        f"the end; the weights of the best are returned; a smaller model, {cure} or more rows would help"
    )


def more_curvature(curvature_weight: float) -> str:
    """The curvature weight as a cure, beside what there is of it."""
    return "a larger curvature_weight" if curvature_weight > 0.0 else "a curvature_weight"


def runs_away(losses: np.ndarray) -> bool:
    """Whether held-out losses, (k,), end as far above their best as the best was below the first, or not finite.

    Noise makes a last loss a little higher than the best; a fit that ends worse than it began has lost all it had learned.

    Example:
        >>> runs_away(np.array([0.0, -1.0, -0.9])), runs_away(np.array([0.0, -1.0, 0.5]))
        (False, True)
    """
    if len(losses) < 3:
        return False
    if not np.isfinite(losses[-1]):
        return True
    best = float(np.min(losses[np.isfinite(losses)]))
    return bool(losses[-1] > best and losses[-1] - best >= max(losses[0] - best, 0.1 * abs(best)))

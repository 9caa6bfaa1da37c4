"""What a sample can and cannot teach a score: `diagnose`, a table of findings that `ismcore.fit` acts on and repeats."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ismcore.domains import Domain
from ismcore.samples import findings, html
from ismcore.samples.checks import as_samples, as_weights, check_spread
from ismcore.samples.dependence import Dependence, dependence
from ismcore.samples.edges import Edge, edges
from ismcore.samples.findings import Finding
from ismcore.samples.gaps import FEWEST as FEWEST_APART
from ismcore.samples.gaps import Gap, Modes, emptiest_gap, modes_of
from ismcore.samples.neighbours import Copies, Neighbours, neighbours, rows_within
from ismcore.samples.series import Series, series
from ismcore.samples.splitting import HoldOut
from ismcore.samples.stairs import Stairs, is_coarse, stairs
from ismcore.samples.tables.frames import names_of
from ismcore.samples.tails import Tail, tails
from ismcore.samples.ties import Ties, distinct_rows, ties

__all__ = ["Diagnosis", "diagnose", "diagnosis_of"]

REPEATED_SHARE = 0.01
"""Repeated rows are worth a word from this part of the rows on."""

FEW_SHARE, FEW_A_COLUMN = 0.1, 50.0
"""Effective rows are few below this part of the rows, or so many a column and one, where they are below half of the rows."""

FEWEST_COUNTED = 20
"""A column counts rows only where there are so many."""

FINDING = ("name", "what", "evidence", "effect", "cure")
"""What is shown of a `Finding`."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a sample of n rows and d columns; prints as a table.

    Attributes:
        n: Rows that have weight.
        d: Columns.
        repeated: Rows that equal an earlier row.
        atoms: Column, value [x] and share of the rows of each value that many rows have in a column that is not discrete.
        steps: Column and step [x] of each discrete column; the step is 0 where its values lie on no lattice.
        gap: The emptiest gap between two clusters of the sample, if score matching cannot see across it.
        dependence: The linear dependence of columns, if there is one.
        series: The dependence of rows on their neighbours in the order given, if there is one.
        copies: Near-copies, if there are any.
        dimension: The intrinsic dimension, where it is below the number of columns.
        edges: Ends of columns at which the density does not fall to 0.
        tails: Columns whose standard deviation is set by a few rows.
        effective: (sum w)^2 / sum w^2 of the row weights, where that is small.
        counters: Columns that count the rows.
        coarse: Discrete columns whose step is wider than their spread.
        stairs: Columns that are constant on cells wider than their spread.
        names: Names of the columns, (d,), where they have some: findings call them so.
        modes: The modes that gaps part, with the share of the rows in each, where there is such a gap.
        copied: Whether most rows repeat, and are copies of each other rather than rounded values.
    """

    n: int
    d: int
    repeated: int = 0
    atoms: tuple[tuple[int, float, float], ...] = ()
    steps: tuple[tuple[int, float], ...] = ()
    gap: Gap | None = None
    dependence: Dependence | None = None
    series: Series | None = None
    copies: Copies | None = None
    dimension: float | None = None
    edges: tuple[Edge, ...] = ()
    tails: tuple[Tail, ...] = ()
    effective: float | None = None
    counters: tuple[int, ...] = ()
    coarse: tuple[int, ...] = ()
    stairs: tuple[Stairs, ...] = ()
    names: tuple[str, ...] | None = None
    modes: Modes | None = field(default=None, compare=False, repr=False)
    copied: bool = False

    @property
    def has_atoms(self) -> bool:
        """Whether values repeat so much that only a bounded objective, curvature_weight > 0, has a minimum to find.

        Repeated rows alone do not count: a split that keeps them on one side (`row_groups`) leaves the held-out loss a judge.
        """
        return bool(self.atoms or self.steps)

    @property
    def rounding(self) -> np.ndarray:
        """Width [x] of the uniform noise that undoes the rounding of each column, (d,): its step, or 0.

        The plain loss of held-out rows so dequantised is a judge where that of the rows as they are is none: noise carries them
        off a step of psi that is narrower than the rounding.
        """
        width = np.zeros(self.d)
        for column, step in self.steps:
            width[column] = step
        return width

    @property
    def keeps_copies_together(self) -> bool:
        """Whether a split should deal groups of equal rows (`row_groups`): some rows repeat, and most do not, or are copies.

        Where most rows repeat, as in a few coarse columns, groups are the lattice's points: to hold them out whole tears holes
        into the training part, and a normal column rounded to a tenth is fitted ten times worse for it.
        """
        return 0 < self.repeated <= self.n // 2 or self.copied

    @property
    def holdout(self) -> HoldOut:
        """How rows are to be held out, so that those held out are independent of those trained on."""
        by_weight = self.effective is not None
        if self.series is not None:
            return HoldOut("blocks", time=self.series.time, by_weight=by_weight)
        if self.copies is not None:
            return HoldOut("near-copies", radius=self.copies.radius, by_weight=by_weight)
        return HoldOut("equal rows" if self.keeps_copies_together else "rows", by_weight=by_weight)

    def keeps_together(self, x: np.ndarray, groups: np.ndarray) -> bool:
        """Whether rows that depend on each other have one label.

        Args:
            x: The samples, (n, d).
            groups: Labels, (n,).

        Of a series nine of ten rows must share that of the row a lag on; of 20 sets of near-copies one may have two.
        """
        if self.series is not None:
            lag = self.series.lag
            return bool(np.mean(groups[lag:] == groups[:-lag]) >= 0.9)
        if self.copies is None:
            return True
        near = rows_within(x, self.copies.radius)
        return bool(np.unique(np.stack([near, groups]), axis=1).shape[1] <= 1.05 * (near.max() + 1))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that was found, as it stands before a fit."""
        return self.findings_for()

    def findings_for(
        self,
        curvature_weight: float = 0.0,
        held_out: str = "",
        scaled: str = "",
        *,
        bounded_by_recipe: bool = False,
        parted: bool = False,
        drawn_in: bool = False,
        domain: Domain | None = None,
        without_edges: str = "",
    ) -> tuple[Finding, ...]:
        """All that was found, with the cures that a fit has applied already told as applied.

        Args:
            curvature_weight: That of the fit's objective.
            held_out: How the fit holds rows out, in words.
            scaled: How the fit scales columns because of heavy tails, in words.
            bounded_by_recipe: Whether the recipe gave it that weight, and not the user.
            parted: Whether arguments of the fit, `groups` or `validation`, part the rows that depend on each other from those
                that judge them.
            drawn_in: Whether an argument of the fit, `transform`, draws the tails in.
            domain: That of the fit's objective.
            without_edges: How an argument of the fit takes the edges away, in words.
        """
        cure = findings.bounding(curvature_weight, bounded_by_recipe, self.coarse, self.names)
        bounded = curvature_weight > 0.0 and not bounded_by_recipe
        found: list[Finding] = []
        # In one column repeated rows that are no copies are ties, and told of as atoms or as a discrete column.
        if (self.d > 1 or self.copied) and self.repeated >= max(2.0, REPEATED_SHARE * self.n):
            found.append(findings.about_repeats(self.repeated, self.n, cure, bounded))
        if self.atoms:
            found.append(findings.about_atoms(self.atoms, cure, bounded, names=self.names))
        if self.steps:
            found.append(findings.about_steps(self.steps, cure, bounded, names=self.names))
        if self.dependence is not None:
            found.append(findings.about_dependence(self.dependence, names=self.names))
        if self.dimension is not None:
            found.append(findings.about_dimension(self.dimension, self.d))
        if self.series is not None:
            found.append(findings.about_series(self.series, self.n, held_out, parted, names=self.names))
        if self.copies is not None:
            found.append(findings.about_copies(self.copies, held_out, parted))
        covered = [domain is not None and domain.covers(e.column, e.value, lower=e.lower) for e in self.edges]
        for of, kept in ((domain, True), (None, False)):
            told = [edge for edge, is_covered in zip(self.edges, covered, strict=True) if is_covered is kept]
            if told:
                found.append(findings.about_edges(told, of, without_edges, names=self.names))
        if self.tails:
            found.append(findings.about_tails(self.tails, scaled, drawn_in, names=self.names))
        if self.stairs:
            found.append(findings.about_stairs(self.stairs, names=self.names))
        if self.effective is not None:
            found.append(findings.about_weights(self.effective, self.n))
        if self.n < self.d:
            found.append(findings.about_shape(self.n, self.d))
        if self.counters:
            found.append(findings.about_counters(self.counters, names=self.names))
        if self.gap is not None:
            found.append(findings.about_modes(self.gap, names=self.names))
        return tuple(found)

    @property
    def _head(self) -> str:
        count = len(self.findings)
        return f"{self.n} rows, {self.d} columns: {count or 'no'} finding{'s' * (count != 1)}"

    def _repr_html_(self) -> str:
        rows = [[getattr(finding, name) for name in FINDING] for finding in self.findings]
        table = html.html_table(FINDING, rows) if rows else ""
        return html.fragment(html.notice("bad" if rows else "note", self._head), table)

    def __str__(self) -> str:
        found = self.findings
        lines = [self._head]
        for finding in found:
            lines.append("")
            lines.append(finding.name)
            for label in FINDING[1:]:
                lines += textwrap.wrap(
                    getattr(finding, label), 118, initial_indent=f"  {label:<10}", subsequent_indent=" " * 12
                )
        return "\n".join(lines)


def diagnose(x: Any, *, sample_weight: Any = None) -> Diagnosis:
    """Look at samples before a score is fitted to them: what stands in the way, what it does to a fit, and the cure.

    `ismcore.fit` does the same: by what is found it holds rows out and bounds its objective, and it says it in
    `result.warnings`. How often each finding is right and wrong is measured in docs/diagnose.md.

    Args:
        x: Samples, (n, d) or (n,), in any units [x], in the order in which they came.
        sample_weight: Weight of each row, (n,), from 0; rows of weight 0 are not looked at.

    Returns:
        A table of `findings`; it is empty where nothing was found, which does not prove that there is nothing.

    Raises:
        SamplesError: No score can be fitted at all: no numbers, not finite, a single row, a column without spread.

    Cost: about 30 ms for 5000 rows of 5 columns, and for more rows little more, as parts of them are looked at.

    Example:
        >>> steps = np.random.default_rng(0).normal(size=(1000, 2))
        >>> [finding.name for finding in ismcore.diagnose(steps).findings]
        []
        >>> [finding.name for finding in ismcore.diagnose(np.c_[steps, steps.sum(axis=1)]).findings]
        ['dependent columns']
    """
    array, names = as_samples(x), names_of(x)
    weight = None if sample_weight is None else as_weights(sample_weight, len(array))
    check_spread(array, weight, names)
    return diagnosis_of(array, weight=weight, names=names)


def diagnosis_of(
    x: np.ndarray, dtype: str = "float64", weight: np.ndarray | None = None, names: tuple[str, ...] | None = None
) -> Diagnosis:
    """The diagnosis of a sample, (n, d), with weights (n,) of sum 1 and names (d,), that a fit in the dtype would be given.

    Cost: a few operations a number for repeated rows; the rest on at most 20,000 rows, drawn by a fixed seed.

    Example:
        >>> diagnosis_of(np.round(np.random.default_rng(0).normal(size=(1000, 1)), 1)).has_atoms
        True
    """
    effective = None
    if weight is not None:
        effective = _few_effective(weight, x.shape[1])
        x, weight = x[weight > 0.0], weight[weight > 0.0]
    n, d = x.shape
    tied = ties(x)
    span = x.max(axis=0) - x.min(axis=0)
    spread = np.flatnonzero(span > 0.0)
    # Between the values of a lattice every gap is empty, and says nothing of modes.
    continuous = np.setdiff1d(spread, [j for j, _ in tied.steps])
    counters = tuple(int(j) for j in np.flatnonzero(span == n - 1) if _counts_rows(x[:, j]))
    smooth = np.setdiff1d(continuous, [*counters, *(j for j, _, _ in tied.atoms)])
    dependent = dependence(x, dtype)
    in_order = _in_order(x, np.setdiff1d(spread, counters), tied)
    near, heavy = Neighbours(), tails(x, smooth, span)
    if in_order is None and dependent is None and len(smooth):
        near = neighbours(x, smooth)
        if near.dimension is not None and heavy:  # rows far out lie in few directions, whatever the dimension of the law
            near = replace(near, dimension=neighbours(_drawn_in(x[:, smooth])).dimension)
    apart = _independent(x, in_order, near.copies, tied.copied)
    if apart is not x:
        continuous = continuous[np.ptp(apart[:, continuous], axis=0) > 0.0]
    gap = emptiest_gap(apart, continuous, dtype) if len(continuous) and len(apart) >= FEWEST_APART else None
    return Diagnosis(
        n,
        d,
        tied.repeated,
        tied.atoms,
        tied.steps,
        gap,
        dependent,
        in_order,
        near.copies,
        near.dimension,
        edges(apart, smooth),
        heavy,
        effective,
        counters,
        tuple(j for j, step in tied.steps if is_coarse(step, float(x[:, j].std()))),
        stairs(x, smooth),
        names,
        None if gap is None else modes_of(x, weight, apart, continuous, dtype),
        tied.copied,
    )


def _in_order(x: np.ndarray, columns: np.ndarray, tied: Ties) -> Series | None:
    """The dependence of rows on their neighbours, rows that equal an earlier one left out unless they are rounded values.

    Equal rows are kept on one side of a split for themselves, wherever they stand.
    """
    n, repeated = len(x), tied.repeated
    if not (0 < repeated <= n // 2 or tied.copied):
        return series(x, columns)
    found = series(distinct_rows(x), columns)
    return None if found is None else replace(found, time=round(found.time * n / (n - repeated)))


def _independent(x: np.ndarray, in_order: Series | None, copies: Copies | None, copied: bool) -> np.ndarray:
    """Rows a correlation time apart, or one of each set of copies: what the others add looks like clusters and edges."""
    if in_order is not None:
        return x[:: max(1, in_order.time)]
    if copied:
        return distinct_rows(x)
    return x if copies is None else x[np.unique(rows_within(x, copies.radius), return_index=True)[1]]


def _drawn_in(x: np.ndarray) -> np.ndarray:
    """Each column, (n, d), by the logistic law's quantiles in place of its own, linear between 65 of them: no heavy tails.

    Ranks would lie on a lattice, and a curve's nearest neighbours on it tell no dimension.
    """
    u = (np.arange(65) + 0.5) / 65
    knots = np.quantile(x, np.linspace(0.0, 1.0, 65), axis=0)
    return np.stack([np.interp(x[:, j], knots[:, j], np.log(u / (1.0 - u))) for j in range(x.shape[1])], axis=1)


def _few_effective(weight: np.ndarray, d: int) -> float | None:
    """1 / sum w^2 of weights of sum 1, where that is few."""
    n, effective = len(weight), 1.0 / float(weight @ weight)
    few = effective < 0.5 * n and effective < max(FEW_SHARE * n, FEW_A_COLUMN * (d + 1))
    return effective if few else None


def _counts_rows(column: np.ndarray) -> bool:
    """Whether a column, (n,), that spans n - 1, holds n whole numbers one after another, in any order."""
    n = len(column)
    if n < FEWEST_COUNTED or (column != np.round(column)).any():
        return False
    return bool((np.bincount((column - column.min()).astype(np.int64), minlength=n) == 1).all())

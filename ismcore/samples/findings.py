"""What is found in samples, in words: name, what was seen, numbers, what it does to a fit, and the cure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ismcore.domains import Domain
from ismcore.samples.checks import label, label_all
from ismcore.samples.dependence import Dependence
from ismcore.samples.edges import Edge
from ismcore.samples.gaps import Gap
from ismcore.samples.neighbours import Copies
from ismcore.samples.series import Series
from ismcore.samples.stairs import Stairs
from ismcore.samples.tails import Tail

__all__ = ["ON_ATOMS", "Finding"]

Names = Sequence[str] | None

ON_ATOMS = 0.1
"""The curvature weight, of standardised samples, where values repeat and none is given or can be chosen; measured in
docs/decisions/2026-11-23-default-protocol.md."""


@dataclass(frozen=True)
class Finding:
    """One thing that a sample does to a fit.

    Attributes:
        name: A few words to know it by.
        what: What was seen.
        evidence: The numbers that show it.
        effect: What it does to a fit.
        cure: What to do, or what has been done.
        cured: Whether arguments of the fit have applied the cure, so that the fit tells it as a note and not as a warning.
    """

    name: str
    what: str
    evidence: str
    effect: str
    cure: str
    cured: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.evidence}; {self.effect}; {self.cure}"


def _listed(items: Sequence[str], most: int) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _column(found: Edge | Tail | Stairs, names: Names) -> str:
    return f"column {label(found.column, names)}"


def bounding(curvature_weight: float, by_recipe: bool, coarse: Sequence[int] = (), names: Names = None) -> str:
    """What to do where the loss falls without bound; what has been done already is told as done.

    Args:
        curvature_weight: That of the fit's objective.
        by_recipe: Whether the recipe gave it that.
        coarse: Discrete columns that uniform noise leaves stairs of.
        names: Names of all columns, (d,), as in the functions below.
    """
    dequantise = "dequantise: add noise as wide as the rounding"
    if coarse:
        columns = label_all(coarse, names)
        dequantise += (
            f", but normal noise of half a step to column {columns}, whose step is wider than its spread: uniform noise "
            "would leave stairs, with a score of 0 between jumps"
        )
    if by_recipe:
        return f"a curvature weight of {curvature_weight:g} was therefore used, which bounds it; you may also {dequantise}"
    if curvature_weight > 0.0:
        return f"the curvature weight of {curvature_weight:g} bounds it; you may also {dequantise}"
    return f"set a curvature_weight, such as {ON_ATOMS:g}, or {dequantise}"


def about_repeats(repeated: int, n: int, cure: str, cured: bool = False) -> Finding:
    return Finding(
        "repeated rows",
        f"{repeated} of {n} rows repeat an earlier row",
        f"{repeated / n:.1%} of all",
        "the plain loss falls without bound there, and a held-out row that equals a training row rewards it",
        f"drop the repeats if they are copies; if not, {cure}",
        cured,
    )


def about_atoms(atoms: Sequence[tuple[int, float, float]], cure: str, cured: bool = False, *, names: Names = None) -> Finding:
    return Finding(
        "atoms",
        "the samples have atoms, values that repeat",
        _listed([f"{value:g} in column {label(j, names)} ({share:.0%} of the rows)" for j, value, share in atoms], 5),
        "the plain loss, held-out too, falls without bound there",
        cure,
        cured,
    )


def about_steps(steps: Sequence[tuple[int, float]], cure: str, cured: bool = False, *, names: Names = None) -> Finding:
    return Finding(
        "discrete columns",
        "discrete columns, whose few values repeat (atoms)",
        _listed([f"{label(j, names)} ({f'step {step:g}' if step else 'uneven steps'})" for j, step in steps], 12),
        "the plain loss, held-out too, falls without bound there",
        cure,
        cured,
    )


def about_dependence(found: Dependence, *, names: Names = None) -> Finding:
    many = f", in {found.directions} directions" if found.directions > 1 else ""
    columns = label_all(found.columns, names)
    return Finding(
        "dependent columns",
        f"columns {columns} are linearly dependent up to rounding{many}",
        f"the smallest eigenvalue of the correlation matrix is {found.eigenvalue:.2g}",
        "such a law has no density and no score, and the loss, held-out too, no lower bound",
        f"drop {found.directions} of these columns",
    )


def about_dimension(dimension: float, d: int) -> Finding:
    return Finding(
        "fewer dimensions than columns",
        "the rows lie on a set of fewer dimensions than columns, such as a curve or a surface",
        f"the intrinsic dimension is {dimension:.2g} of {d}, by distances to the nearest neighbours",
        "such a law has no density and no score, and the loss, held-out too, no lower bound",
        "fit coordinates along the set, such as the angle of a circle, or add noise: "
        "objective=ismcore.DenoisingScoreMatching(noise_scale) has a score",
    )


def about_modes(gap: Gap, *, names: Names = None) -> Finding:
    return Finding(
        "modes far apart",
        f"along {gap.direction if gap.column is None else f'column {label(gap.column, names)}'} the samples fall into clusters",
        f"{gap.share:.0%} and {1.0 - gap.share:.0%} of the rows with {gap.rows} rows between {gap.low:.3g} and {gap.high:.3g}",
        "score matching cannot see the weights of modes so far apart",
        "trust the score within each and take their weights from counts, as log_density and sample do",
    )


def about_series(found: Series, n: int, held_out: str, cured: bool = False, *, names: Names = None) -> Finding:
    return Finding(
        "dependent rows",
        "rows depend on their neighbours in the order given, as in a chain or a series",
        f"the ranks of column {label(found.column, names)} have autocorrelation {found.correlation:.2f} at lag {found.lag}, "
        f"and the correlation time is {found.time} rows of {n}",
        "the rows tell less than as many independent ones, and one held out at random beside its neighbours judges nothing",
        held_out or "fit holds out short blocks, spread over the rows; or pass validation=, rows of another chain",
        cured,
    )


def about_copies(found: Copies, held_out: str, cured: bool = False) -> Finding:
    return Finding(
        "near-copies",
        "rows nearly equal other rows, as copies with jitter do",
        f"{found.share:.0%} of the rows have another within {found.radius:.2g} standard deviations, the next lie far beyond",
        "the loss rewards a steep step at each, and a held-out row beside its copies rewards it too",
        f"keep one row of each; {held_out or 'or name the rows that belong together by groups='}",
        cured,
    )


def about_edges(edges: Sequence[Edge], domain: Domain | None = None, applied: str = "", *, names: Names = None) -> Finding:
    if domain is not None:
        applied = f"domain={domain!r} has its edges there, and the objective a weight that vanishes at them"
    return Finding(
        "hard edges",
        "the density of columns ends at an edge without falling to 0 (positive or bounded values, or an angle that is cut)",
        _listed([f"{_column(e, names)} {'from' if e.lower else 'to'} {e.value:.3g}" for e in edges], 6),
        "implicit score matching integrates by parts and has a term left at the edge: the score is wrong there and inside, and "
        "the held-out loss does not show it",
        applied
        or 'fit(domain="auto"), or one of ismcore.domains, weighs the objective to 0 at the edge; fit(transform="log") trains '
        "behind log x of what is positive, ismcore.Logit(lower, upper) behind logit of what is bounded; cut an angle where it "
        "is rare",
        bool(applied),
    )


def about_tails(tails: Sequence[Tail], scaled: str, cured: bool = False, *, names: Names = None) -> Finding:
    return Finding(
        "heavy tails",
        "columns have such heavy tails that a few rows set the standard deviation",
        _listed(
            [f"column {label(t.column, names)}: {t.deviation:.3g}, and {t.quartiles:.3g} by the quartiles" for t in tails], 6
        ),
        "in this unit the other rows have hardly any spread, and their score is not learned",
        scaled or 'fit(transform="asinh") trains behind asinh((x - median) / (interquartile range / 1.349))',
        cured,
    )


def about_stairs(found: Sequence[Stairs], *, names: Names = None) -> Finding:
    return Finding(
        "noise wider than the samples",
        "columns are stairs, as rounded values are to which uniform noise was added, of steps wider than their spread",
        _listed(
            [f"column {label(s.column, names)}: step {s.step:.3g}, standard deviation {s.deviation:.3g}" for s in found], 6
        ),
        "the score of the stairs is learned, which is 0 on each and a jump between them, and not that of what was rounded",
        "add normal noise of half a step instead, which smooths them and adds its variance to the law, or measure finer",
    )


def about_weights(effective: float, n: int) -> Finding:
    return Finding(
        "few effective rows",
        "sample_weight leaves few effective rows",
        f"(sum w)^2 / sum w^2 is {effective:.3g} of {n} rows",
        "the loss, held-out too, is that of so few rows",
        "cap the largest weights, or draw rows where they are large",
    )


def about_shape(n: int, d: int) -> Finding:
    return Finding(
        "more columns than rows",
        "there are more columns than rows (is x transposed?)",
        f"{n} rows of {d} columns",
        "not even the score of a normal law is determined by so few rows",
        "pass x.T if each column is a sample",
    )


def about_counters(columns: Sequence[int], *, names: Names = None) -> Finding:
    return Finding(
        "row numbers",
        "columns that look like a row number or an index: they count the rows",
        "column " + label_all(columns, names, 6),
        "such a column tells nothing of the law that the rows are drawn from",
        "leave it out",
    )

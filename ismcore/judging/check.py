"""`FitResult.check`: is a fit wrong, by how much at least, and how is that known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ismcore.errors import OptionError, SamplesError
from ismcore.judging.certificate import Gap, gaps
from ismcore.judging.competitors import competitors_at, derivatives_of
from ismcore.judging.lines import line_of, lines_of_result, lines_of_rows
from ismcore.judging.rows import Judged
from ismcore.judging.table import Check, Line
from ismcore.models import NoiseConditional, Standardized
from ismcore.objectives import NoiseConditionalScoreMatching

__all__ = ["check"]

VISIBLE = 0.25
"""No fault is said to be found only where one of this share of E|score|^2 would have been seen."""
FEWEST = 10
"""Fewer independent rows say nothing."""
VOID = ("atoms", "discrete columns", "dependent columns", "fewer dimensions than columns", "hard edges")
"""Findings with which the loss of independent rows is no measure of the distance from the score."""


def check(
    result: Any, x: Any = None, *, train: Any = None, groups: Any = None, competitors: Mapping[str, Any] | None = None
) -> Check:
    """See `FitResult.check`.

    Raises:
        SamplesError, OptionError: See there.
    """
    own = lines_of_result(result)
    if x is None:
        _check_alone(result, train, groups, competitors)
        if result.test is None:
            return _verdict(own, "no rows were given that the fit has not seen, as in check(x_new)")
    inner = result.model.inner if isinstance(result.model, Standardized) else result.model
    if isinstance(inner, NoiseConditional) or isinstance(result.objective, NoiseConditionalScoreMatching):
        raise OptionError("a noise-conditional fit has a score for each noise scale, and no single one to check")
    judged = Judged.set_aside(result.test) if x is None else Judged.of(result, x, train, groups)
    domain = result.objective.domain
    if domain is not None:
        domain.check(judged.x)
        domain.check(judged.fitted)
    fit = derivatives_of(result, judged.x, judged.units, domain)
    if not np.isfinite(fit.terms).all():
        raise SamplesError("the fitted score is not finite at some rows of x, or has no finite divergence there")
    rivals = competitors_at(judged.x, judged.fitted, judged.units, competitors, judged.fitted_weight, domain)
    square = -2.0 * min(judged.mean(one.terms) for one in (fit, *rivals.values()))
    lines = (*lines_of_rows(result, judged, fit, square), *own)
    seen = judged.diagnosis.findings_for(domain=domain)
    void = [finding.name for finding in seen if finding.name in VOID and not finding.cured]
    about: dict[str, Any] = {"rows": len(judged.x), "independent": judged.independent}
    if void:
        return _verdict(lines, f"the rows have {', '.join(void)}, where no loss on held-out rows is a measure", **about)
    if judged.independent < FEWEST or not rivals:
        return _verdict(lines, f"{judged.independent} independent rows and {len(rivals)} competitors show nothing", **about)
    found = gaps(fit, rivals, judged.labels, judged.weight)
    return _certified(judged.mean(fit.terms), square, found, lines, about)


def _check_alone(result: Any, train: Any, groups: Any, competitors: Any) -> None:
    """Refuse what goes with rows, where none are given."""
    if groups is not None or train is not None or (competitors is not None and result.test is None):
        raise OptionError(
            "train=, groups= and competitors= go with rows that the fit has not seen: check(x_new, ...), or for competitors= "
            "those of fit(test=...)"
        )


def _verdict(lines: tuple[Line, ...], cannot: str, **about: Any) -> Check:
    """A verdict without a bound; `cannot` says why none is there."""
    faults = [line.name for line in lines if line.fault]
    if faults:
        return Check("fault found", f"{', '.join(faults)}; how large it is cannot be told: {cannot}", lines, **about)
    return Check("cannot tell", cannot, lines, **about)


def _certified(loss: float, square: float, found: tuple[Gap, ...], lines: tuple[Line, ...], about: dict[str, Any]) -> Check:
    """The verdict where there are competitors.

    With J = E T the mean loss, E|s|^2 = E|psi - s|^2 - 2 J_psi, so that a bound B of E|psi - s|^2 is at least the share
    B / (B - 2 J_psi) of E|s|^2. `square` is -2 min(J) over fit and competitors, a little less than E|s|^2.
    """
    best = max(found, key=lambda gap: gap.bound)
    bound = max(0.0, best.bound)
    share = bound / (bound - 2.0 * min(loss, 0.0)) if bound else 0.0
    visible = min((gap.visible for gap in found if gap.telling), default=math.inf)
    visible_share = visible / square if square > 0.0 else math.inf
    about |= {"at_least": bound, "at_least_share": share, "visible": visible, "visible_share": visible_share}
    lines = (*(line_of(gap, square) for gap in found), *lines)
    faults = [line.name for line in lines if line.fault]
    at_least = f"E|psi - score|^2 is at least {bound:.2g}, {share:.1%} of E|score|^2, with 95 % confidence"
    if faults:
        return Check(
            "fault found", f"{', '.join(faults)}; {at_least if bound else 'no competitor bounds how large'}", lines, **about
        )
    seen = f"; {at_least}, by the {best.competitor}, too little to be called a fault" if bound else ""
    smallest = f"{visible:.2g}, {visible_share:.0%} of E|score|^2"
    if visible_share <= VISIBLE:
        return Check("no fault found", f"one of {smallest}, beyond a competitor's, would have been seen{seen}", lines, **about)
    if math.isinf(visible):
        return Check("cannot tell", f"no competitor but the normal law differs from the fit{seen}", lines, **about)
    why = f"competitors are not close enough to the score, or the rows too few, to see a fault below {smallest}"
    return Check("cannot tell", why + seen, lines, **about)

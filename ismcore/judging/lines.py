"""The lines of a check: what each statistic is, and what it means beyond its limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ismcore.judging.certificate import Derivatives, Gap
from ismcore.judging.rows import Judged
from ismcore.judging.table import Line
from ismcore.models import Combination, Standardized, joined, parted
from ismcore.seeds import stream
from ismcore.training.baseline import mean_and_error

__all__ = ["antisymmetric_share", "folds_of", "line_of", "lines_of_result", "lines_of_rows"]

MATERIAL = 0.15
"""What is certain is called a fault from this share of E|score|^2 on. Chosen, as all limits here, on the first set of laws of
bench/laws.py; docs/check.md reports on others."""
NORM = 3.0
"""Standard errors by which E|psi|^2 may differ from -E div psi."""
ASYMMETRY = 0.02
"""The limit of `antisymmetric_share`."""
SPREAD = 0.25
"""The limit of the spread of bootstrap members, as a share of E|psi|^2."""
WORSE = 2.0
"""Standard errors by which the held-out loss may be above the normal law's."""
NUMBERS, JACOBIANS = 2**20, 512
"""At most so many numbers of Jacobians, and so many of them, are computed, but at least 8 Jacobians."""


def line_of(gap: Gap, square: float) -> Line:
    """The certificate against one competitor; `square` estimates E|score|^2."""
    deviate = gap.estimate / gap.standard_error if gap.standard_error > 0.0 else 0.0
    return Line(
        gap.competitor,
        deviate,
        gap.quantile,
        gap.bound > 0.0 and gap.estimate >= MATERIAL * square,
        f"standard errors by which this competitor is closer to the score: E|psi - score|^2 is above its own by "
        f"{gap.estimate:.3g} +- {gap.standard_error:.2g}; a fault beyond the limit, and from {MATERIAL:g} E|score|^2 on",
    )


def lines_of_rows(result: Any, judged: Judged, fit: Derivatives, square: float) -> tuple[Line, ...]:
    """What rows say without a competitor; `square` estimates E|score|^2."""
    x, scale = judged.x, judged.units.scale
    lines = [_norm_identity(fit, judged, square)]
    if x.shape[1] > 1:
        few = max(8, min(JACOBIANS, NUMBERS // x.shape[1] ** 2))
        some = x if len(x) <= few else x[stream(0, "check").choice(len(x), few, replace=False)]
        share = antisymmetric_share(result.jacobian(some) * scale[:, None] * scale)
        meaning = "E|J - J^T|^2 / 2 E|J|^2 of the Jacobian J, which is symmetric for every score; 0 for an energy"
        lines.append(Line("asymmetry", share, ASYMMETRY, share > ASYMMETRY, meaning))
    if result.resamples:
        lines.append(_spread(result, x, scale))
    lines += _spread_of_folds(result, x, scale)
    differentiated, domain = result.objective.differentiates_in_x, result.objective.domain
    if domain is not None:
        meaning = (
            f"losses, and what is written E|.|^2, have the weight h that vanishes at the edges of {domain!r}: they are "
            "those of sqrt(h_i) psi_i"
        )
        lines.append(Line("domain", None, None, False, meaning))
    for finding in judged.diagnosis.findings_for(domain=domain):
        wrong = finding.name == "hard edges" and differentiated and not finding.cured
        lines.append(Line(finding.name, None, None, wrong, f"{finding.what}: {finding.evidence}; {finding.effect}"))
    return tuple(lines)


def lines_of_result(result: Any) -> tuple[Line, ...]:
    """What the result says itself."""
    lines = []
    baseline = result.baseline
    if baseline is not None:
        error = max(baseline.standard_error, 1e-12 * abs(baseline.loss))
        deviate = baseline.difference / error if error else 0.0
        large = 2.0 * baseline.difference >= MATERIAL * max(0.0, -2.0 * min(baseline.loss, baseline.fit_loss))
        meaning = (
            "standard errors by which the held-out loss is above that of the normal law; on rows that chose the epoch, so it "
            "flatters the fit, and is no bound"
        )
        if result.candidates:
            meaning = (
                "standard errors by which the loss of the rows, each by the member that has not seen it, is above that of the "
                "normal law; of the members, which their mean can be much closer than, and no bound"
            )
        name = "members, held out" if result.candidates else "normal law, held out"
        meaning += f"; a fault beyond the limit, and from {MATERIAL:g} E|score|^2 on"
        lines.append(Line(name, deviate, WORSE, deviate > WORSE and large, meaning))
    epochs = len(result.history["loss"])
    if result.held_out and epochs and result.status == "completed":
        meaning = "best epoch over epochs: at 1 the held-out loss was still falling, and more epochs may help"
        lines.append(Line("best epoch", result.best_epoch / epochs, None, False, meaning))
    lines += [Line("warning of the fit", None, None, False, text) for text in result.warnings]
    return tuple(lines)


def _norm_identity(fit: Derivatives, judged: Judged, square: float) -> Line:
    """E|psi|^2 = -E div psi holds for psi = score, by one integration by parts.

    Of the scores c psi the best has c = -E div psi / E|psi|^2, and is closer by (E|psi|^2 + E div psi)^2 / E|psi|^2.
    """
    norms = np.sum(fit.psi**2, axis=1)
    mean, error = mean_and_error(norms + fit.divergence, judged.weight, judged.labels)
    deviate = mean / error if error > 0.0 else 0.0
    norm = max(judged.mean(norms), 1e-300)
    best = -judged.mean(fit.divergence) / norm
    fault = abs(deviate) > NORM and mean**2 / norm >= MATERIAL * square
    meaning = (
        f"standard errors by which E|psi|^2 differs from -E div psi, which are equal for the score; {best:.2f} psi is the best "
        f"multiple, closer by {mean**2 / norm:.3g}; a fault beyond the limit, and from {MATERIAL:g} E|score|^2 on"
    )
    return Line("norm identity", deviate, NORM, fault, meaning)


def antisymmetric_share(jacobian: np.ndarray) -> float:
    """E|J - J^T|^2 / 2 E|J|^2 of Jacobians, (m, d, d): 0 for a gradient field, 2 where J = -J^T."""
    away = float(np.sum((jacobian - jacobian.transpose(0, 2, 1)) ** 2))
    return away / (2.0 * float(np.sum(jacobian**2))) if away else 0.0


def _spread_of_folds(result: Any, x: np.ndarray, scale: np.ndarray) -> list[Line]:
    """1 / (K - 1) sum_k |psi_k - psi|^2 over E|psi|^2, psi_k the part of the fit that fold k has learned; none of one fold."""
    scores = np.array([part.score(x) * scale for part in folds_of(result)])
    if len(scores) < 2:
        return []
    share = float(np.sum(np.var(scores, axis=0, ddof=1)) / np.sum(np.mean(scores, axis=0) ** 2))
    meaning = (
        f"variance of the score over the {len(scores)} folds, each trained without a part of the rows of its own, as a share "
        "of E|psi|^2; the fit is their mean, and the folds share most rows, so that it is no error bar"
    )
    return [Line("spread of folds", share, None, False, meaning)]


def folds_of(result: Any) -> list[Any]:
    """The fit with the members of each fold alone, as a result of its own; empty where it has no folds.

    The affine part is that of all folds together.
    """
    inner = result.model.inner if isinstance(result.model, Standardized) else result.model
    used = sum(row["weight"] > 0.0 for row in result.candidates[1:])
    if not isinstance(inner, Combination) or not used:
        return []
    count = (len(inner.members) - 1) // used
    parts, weights = parted(result.params, len(inner.members)), result.params["weights"]
    found = []
    for k in range(count):
        chosen = [0, *(1 + k + count * candidate for candidate in range(used))]
        own = Combination(tuple(inner.members[i] for i in chosen))
        params = {"weights": np.array([weights[0], *(count * weights[chosen[1:]])]), **joined([parts[i] for i in chosen])}
        model = own if inner is result.model else Standardized(own, result.model.coordinates)
        found.append(replace(result, model=model, params=params))
    return found


def _spread(result: Any, x: np.ndarray, scale: np.ndarray) -> Line:
    variance, psi = result.standard_error(x) ** 2, result.score(x)
    share = float(np.sum(variance * scale**2) / np.sum((psi * scale) ** 2))
    meaning = "variance of the score over bootstrap fits, as a share of E|psi|^2: how much of it is chance"
    return Line("spread of resamples", share, SPREAD, share > SPREAD, meaning)

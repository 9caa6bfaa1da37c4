"""Warnings in words about a fit: what was found in the samples, whether rows suffice, and how its losses went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ismcore.samples.diagnosis import Diagnosis, diagnosis_of
from ismcore.samples.findings import Finding

__all__ = ["more_curvature", "notes_for", "rises", "runs_away", "still_falls", "warnings_for"]

FALLING, MATTERS = 0.1, 0.02
"""A held-out loss still falls where the second half of the looks brought this part of its fall, and this part of itself."""
RISES = 0.1
"""A training loss has risen where it did so by this part of itself: steps of batches and of noise make it waver by less."""


def warnings_for(
    x: Any,
    *,
    diagnosis: Diagnosis | None = None,
    parameters: int = 0,
    findings: Sequence[Finding] | None = None,
    curvature_weight: float = 0.0,
    held_out: int | None = None,
    validation: Sequence[float] | np.ndarray | None = None,
    training: Sequence[float] | np.ndarray | None = None,
    standard_error: float = 0.0,
) -> tuple[str, ...]:
    """Warnings in words about a fit to the samples x, for `FitResult.warnings`.

    Args:
        x: Samples, (n, d), in the user's units [x].
        diagnosis: `diagnosis_of(x)`, where it is known already.
        parameters: Numbers that the model learns.
        findings: What of `diagnosis.findings_for` is to be told, if not all; those that are cured are left out.
        curvature_weight: That of the objective; 0 for one without.
        held_out: Rows of the validation part, if there is one.
        validation: Held-out losses in the order of the epochs, (k,), if there are any.
        training: Training losses of the epochs from the one on whose parameters are given back, (k,).
        standard_error: Of the held-out loss.

    Returns:
        One or two sentences each: what was seen, what it does to the fit, what to do.

    Example:
        >>> warnings_for(np.random.default_rng(0).normal(size=(1000, 2)), parameters=100)
        ()
    """
    seen = diagnosis_of(np.asarray(x, dtype=np.float64)) if diagnosis is None else diagnosis
    findings = seen.findings_for(curvature_weight) if findings is None else findings
    found = [str(finding) for finding in findings if not finding.cured]
    found.append(_about_rows(seen, parameters, held_out))
    losses, since = (np.asarray([] if given is None else given, dtype=np.float64) for given in (validation, training))
    found.append(_about_steps(since))
    found.append(_about_falling(losses, standard_error))
    return tuple(text for text in found if text)


def notes_for(
    findings: Sequence[Finding], validation: Sequence[float] | np.ndarray, curvature_weight: float
) -> tuple[str, ...]:
    """Notes in words about a fit, for `FitResult.notes`: what was found and is cured, and a held-out loss that ran away.

    That one needs no care, as the parameters of its best are given back, which are judged by themselves.

    Args:
        findings: What was found in the samples.
        validation: Held-out losses in the order of the epochs, (k,).
        curvature_weight: That of the objective; 0 for one without.
    """
    found = [str(finding) for finding in findings if finding.cured]
    losses = np.asarray(validation, dtype=np.float64)
    if runs_away(losses):
        best, cure = int(np.nanargmin(losses)), more_curvature(curvature_weight)
        found.append(
            f"the held-out loss ran away: {losses[best]:.4g} at its best, look {best + 1} of {len(losses)}, {losses[-1]:.4g} "
            f"at the end; the weights of the best are returned; a smaller model, {cure} or more rows might lower it"
        )
    return tuple(found)


def _about_rows(seen: Diagnosis, parameters: int, held_out: int | None) -> str:
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


def _about_steps(since: np.ndarray) -> str:
    if not rises(since):
        return ""
    return (
        f"training raised the loss: {since[0]:.4g} in the epoch whose parameters are given back, {_end(since):.4g} at the end; "
        "the learning rate is too high; lower it, or give clip_norm"
    )


def _about_falling(losses: np.ndarray, standard_error: float) -> str:
    if not still_falls(losses, standard_error):
        return ""
    return (
        f"the held-out loss was still falling at the last epoch: from {losses[len(losses) // 2 - 1]:.4g} to {losses[-1]:.4g} "
        "in the second half; more epochs would help, or a larger model"
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


def still_falls(losses: np.ndarray, standard_error: float = 0.0) -> bool:
    """Whether held-out losses, (k,), end at their best, and the second half of them brought much of what was gained.

    With F = L_{k/2} - L_k that is F >= 0.1 (L_1 - L_k), F >= 0.02 |L_k|, and F at least two standard errors of the loss.

    Example:
        >>> still_falls(np.array([0.0, -1.0, -1.5, -2.0])), still_falls(np.array([0.0, -1.0, -1.05, -1.05]))
        (True, False)
    """
    if len(losses) < 3 or not np.isfinite(losses).all() or losses[-1] > losses.min():
        return False
    fall = float(losses[len(losses) // 2 - 1] - losses[-1])
    return fall >= max(FALLING * float(losses[0] - losses[-1]), MATTERS * abs(float(losses[-1])), 2.0 * standard_error) > 0.0


def rises(losses: np.ndarray) -> bool:
    """Whether training losses, (k,), end above the first: their median over the last quarter, by a tenth of the first.

    A fit that learns its rows by heart goes on lowering its training loss; one whose steps are too long does not.

    Example:
        >>> rises(np.array([-1.0, 3.0, 40.0, 7.0])), rises(np.array([-1.0, -1.2, -0.95, -1.3]))
        (True, False)
    """
    if len(losses) < 4 or not np.isfinite(losses).all():
        return False
    return _end(losses) > float(losses[0]) + RISES * abs(float(losses[0]))


def _end(losses: np.ndarray) -> float:
    return float(np.median(losses[-(len(losses) // 4) :]))

"""Warnings in words about a fit: what was found in the samples, whether rows suffice, and how its held-out loss went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ismcore.samples.diagnosis import Diagnosis, diagnosis_of

__all__ = ["more_curvature", "runs_away", "warnings_for"]


def warnings_for(
    x: Any,
    *,
    diagnosis: Diagnosis | None = None,
    parameters: int = 0,
    curvature_weight: float = 0.0,
    held_out: int | None = None,
    validation: Sequence[float] | np.ndarray | None = None,
    held_out_by: str = "",
    scaled_by: str = "",
) -> tuple[str, ...]:
    """Warnings in words about a fit to the samples x, for `FitResult.warnings`.

    Args:
        x: Samples, (n, d), in the user's units [x].
        diagnosis: `diagnosis_of(x)`, where it is known already.
        parameters: Numbers that the model learns.
        curvature_weight: That of the objective; 0 for one without.
        held_out: Rows of the validation part, if there is one.
        validation: Held-out losses in the order of the epochs, (k,), if there are any.
        held_out_by: How rows are held out, in words.
        scaled_by: How columns are scaled because of heavy tails, in words.

    Returns:
        One or two sentences each: what was seen, what it does to the fit, what to do.

    Example:
        >>> warnings_for(np.random.default_rng(0).normal(size=(1000, 2)), parameters=100)
        ()
    """
    seen = diagnosis_of(np.asarray(x, dtype=np.float64)) if diagnosis is None else diagnosis
    found = [str(finding) for finding in seen.findings_for(curvature_weight, held_out_by, scaled_by)]
    found.append(_about_rows(seen, parameters, held_out))
    found.append("" if validation is None else _about_validation(np.asarray(validation, dtype=np.float64), curvature_weight))
    return tuple(text for text in found if text)


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

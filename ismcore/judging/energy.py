"""The energy nearest to a fitted score, and how much of the score is of no energy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ismcore.fitting.fit import fit
from ismcore.judging.lines import antisymmetric_share
from ismcore.models import MLP, Energy
from ismcore.objectives import ExplicitScoreMatching
from ismcore.samples.checks import as_samples
from ismcore.training.warning import warn_now

__all__ = ["asymmetry", "nearest_energy"]

MUCH = 0.1
"""Share of the score's square that is said to be lost."""


def nearest_energy(result: Any, x: Any, model: Any = None, **options: Any) -> Any:
    """See `FitResult.as_energy`."""
    points = as_samples(x, d=result.d, names=result.feature_names)
    energy = Energy(MLP((64, 64), "softplus")) if model is None else model
    given = {"backend": result.backend, "device": result.device, "dtype": result.dtype, "seed": result.seed, **options}
    found = fit(points, model=energy, objective=ExplicitScoreMatching(result.score), **given)
    if result._modes_are_known:  # the points may be others than the samples
        found = replace(found, kept=result.kept)._with_modes(result.modes)
    target = result.score(points)
    size = np.maximum(target.std(axis=0), np.finfo(np.float64).tiny)
    lost = float(np.mean(((found.score(points) - target) / size) ** 2) / np.mean((target / size) ** 2))
    text = f"the energy differs from the score that it was fitted to by {lost:.2g} of its square, which is lost"
    if lost <= MUCH:
        return replace(found, objective=result.objective, feature_names=result.feature_names, notes=(*found.notes, text))
    warn_now(text)
    return replace(found, objective=result.objective, feature_names=result.feature_names, warnings=(*found.warnings, text))


def asymmetry(result: Any, x: Any) -> float:
    """See `FitResult.asymmetry`."""
    points = as_samples(x, d=result.d, names=result.feature_names)
    scale = points.std(axis=0)
    scale[scale == 0.0] = 1.0
    return antisymmetric_share(result.jacobian(points) * scale[:, None] * scale)

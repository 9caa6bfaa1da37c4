"""Sampling from a fitted score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ismcore.errors import Diverged, OptionError
from ismcore.objectives import NoiseConditionalScoreMatching, Objective
from ismcore.objectives.base import as_scales, check_positive
from ismcore.ops import Array, Params
from ismcore.plugins.lookup import load_backend
from ismcore.seeds import stream

if TYPE_CHECKING:
    from ismcore.results.result import FitResult

__all__ = ["annealed_langevin"]

FARTHEST = 1e6
"""No sample of a law that a fit has seen lies so many standard deviations, or largest noise scales, from its mean."""


def annealed_langevin(
    result: FitResult,
    n: int,
    noise_scales: Sequence[float] | None = None,
    *,
    steps: int = 100,
    step_size: float = 0.1,
    denoise: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """Draw samples from a noise-conditional fit by annealed Langevin dynamics (Song & Ermon 2019, algorithm 1).

    For each noise scale s, from the largest to the smallest, `steps` times:

        z += a / 2 psi(z; s) + sqrt(a) e,   a = step_size s^2,   e standard normal

    from z = s_1 e at the start, in the coordinates that the model was trained in; a last z += s^2 psi(z; s) at the smallest
    scale removes what is left of the noise. All draws come from the stream "langevin" of the seed, so that equal seeds give
    equal samples on every backend, up to rounding.

    Args:
        result: A fit of `ismcore.NoiseConditional` by `ismcore.NoiseConditionalScoreMatching`.
        n: How many samples.
        noise_scales: The ladder that the fit was trained on, or a finer one within its range, in the units of its objective;
            from largest to smallest. That of the fit if None.
        steps: Steps at each scale.
        step_size: a / s^2. The algorithm's epsilon is step_size times the square of the smallest scale.
        denoise: Take the last step.
        seed: Source of the draws.

    Returns:
        The samples, (n, d), float64, in the units of the samples that were fitted.

    Raises:
        OptionError: The scales do not fall, or a number is out of range.
        Diverged: A step left the finite numbers, or went a million times farther than noise and standardised samples reach;
            its `epoch` is the number of the step, from 1 over all scales.

    Cost: steps * len(noise_scales) scores at n points.
    """
    objective = result.objective
    coordinates = result.coordinates
    unit = objective.unit(coordinates) if isinstance(objective, NoiseConditionalScoreMatching) else 1.0
    if noise_scales is None:
        noise_scales = _ladder(objective)
    scales = list(as_scales(noise_scales))
    for value in (*scales, step_size):
        check_positive("noise scales and step_size", value)
    if not scales or any(b >= a for a, b in pairwise(scales)):
        raise OptionError(f"noise_scales must fall from the largest to the smallest, not {scales}")
    if not all(isinstance(count, int | np.integer) and count >= 1 for count in (n, steps)):
        raise OptionError(f"n and steps must be whole numbers from 1, not {n!r} and {steps!r}")

    scales = [s / unit for s in scales]
    limit = np.inf if coordinates.is_identity else FARTHEST * max(1.0, scales[0])
    engine = load_backend(result.backend)(dtype=result.dtype, device=result.device)
    wide = {name: np.asarray(value, dtype=np.float64) for name, value in result.params.items()}
    model, params = result.model.from_units(wide, coordinates)
    rng = stream(seed, "langevin")

    def drift(at: Params, z: Array, scale: Array) -> Array:
        return scale * scale * model.score(engine, at, z, engine.ops.broadcast_to(scale, (n, 1)))

    def move(at: Params, z: Array, scale: Array, noise: Array) -> Array:
        return z + 0.5 * step_size * drift(at, z, scale) + step_size**0.5 * scale * noise

    with engine.scope():
        move, drift = engine.compiled(move), engine.compiled(drift)
        at = engine.asarrays(params)
        z = engine.asarray(scales[0] * rng.standard_normal((n, result.d)))
        for k, s in enumerate(scales):
            scale = engine.asarray(np.asarray(s))
            for step in range(steps):
                z = move(at, z, scale, engine.asarray(rng.standard_normal((n, result.d))))
                if not _reach(engine.to_numpy(z)) <= limit:
                    raise _blown_up(k * steps + step + 1, step + 1, s * unit, step_size)
        if denoise:
            z = z + drift(at, z, scale)
        found = engine.to_numpy(z).astype(np.float64)
        if not _reach(found) <= limit:
            raise _blown_up(len(scales) * steps + 1, steps + 1, s * unit, step_size)
    return coordinates.inverse(found)


def _ladder(objective: Objective) -> list[float]:
    """The noise scales of a fit, from the largest to the smallest."""
    if not isinstance(objective, NoiseConditionalScoreMatching):
        raise OptionError(f"a fit by {objective!r} has no ladder of noise scales: pass noise_scales=")
    return sorted(set(objective.noise_scales), reverse=True)


def _reach(z: np.ndarray) -> float:
    """The largest number of all by size, or NaN; infinite numbers are of no size, and NaN too."""
    largest = float(np.abs(z).max())
    return largest if np.isfinite(largest) else np.nan


def _blown_up(step: int, at_scale: int, noise_scale: float, step_size: float) -> Diverged:
    return Diverged(
        f"Langevin dynamics blew up: step {step}, number {at_scale} at noise scale {noise_scale:g}, left the finite numbers or "
        f"all reason; use a smaller step_size than {step_size:g}, a finer ladder of noise scales, or a fit trained for longer",
        epoch=step,
    )

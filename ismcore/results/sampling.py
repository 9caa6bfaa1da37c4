"""Sampling from a fitted score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ismcore.errors import OptionError
from ismcore.objectives.base import check_positive
from ismcore.ops import Array, Params
from ismcore.plugins.lookup import load_backend
from ismcore.results.result import FitResult
from ismcore.seeds import stream

__all__ = ["annealed_langevin"]


def annealed_langevin(
    result: FitResult,
    n: int,
    noise_scales: Sequence[float],
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
        noise_scales: The ladder that the fit was trained on, or a finer one within its range; from largest to smallest.
        steps: Steps at each scale.
        step_size: a / s^2. The algorithm's epsilon is step_size times the square of the smallest scale.
        denoise: Take the last step.
        seed: Source of the draws.

    Returns:
        The samples, (n, d), float64, in the units of the samples that were fitted.

    Raises:
        OptionError: The scales do not fall, or a number is out of range.

    Cost: steps * len(noise_scales) scores at n points.
    """
    scales = [float(s) for s in noise_scales]
    for value in (*scales, step_size):
        check_positive("noise scales and step_size", value)
    if not scales or any(b >= a for a, b in pairwise(scales)):
        raise OptionError(f"noise_scales must fall from the largest to the smallest, not {scales}")
    if n < 1 or steps < 1:
        raise OptionError(f"n and steps must be whole numbers from 1, not {n!r} and {steps!r}")

    engine = load_backend(result.backend)(dtype=result.dtype, device=result.device)
    wide = {name: np.asarray(value, dtype=np.float64) for name, value in result.params.items()}
    model, params = result.model.from_units(wide, result.mean, result.scale)
    rng = stream(seed, "langevin")

    def drift(at: Params, z: Array, scale: Array) -> Array:
        return scale * scale * model.score(engine, at, z, engine.ops.broadcast_to(scale, (n, 1)))

    def move(at: Params, z: Array, scale: Array, noise: Array) -> Array:
        return z + 0.5 * step_size * drift(at, z, scale) + step_size**0.5 * scale * noise

    with engine.scope():
        move, drift = engine.compiled(move), engine.compiled(drift)
        at = engine.asarrays(params)
        z = engine.asarray(scales[0] * rng.standard_normal((n, result.d)))
        for s in scales:
            scale = engine.asarray(np.asarray(s))
            for _ in range(steps):
                z = move(at, z, scale, engine.asarray(rng.standard_normal((n, result.d))))
        if denoise:
            z = z + drift(at, z, scale)
        found = engine.to_numpy(z).astype(np.float64)
    return np.asarray(found * result.scale + result.mean)

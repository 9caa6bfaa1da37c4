"""Denoising score matching, at one noise scale and over a ladder of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import OptionError
from ismcore.objectives.base import LossInputs, Objective, check_positive, check_shape
from ismcore.ops import Array
from ismcore.samples.checks import Standardizer

__all__ = ["DenoisingScoreMatching", "NoiseConditionalScoreMatching"]


@dataclass(frozen=True)
class DenoisingScoreMatching(Objective):
    """Denoising score matching at one noise scale s (Vincent 2011).

        mean_n 1/2 |psi(x_n + s e_n) + e_n / s|^2,   e_n standard normal

    Its minimiser is the score of the samples blurred by normal noise of standard deviation s, not of the samples. No derivative
    in x, so any activation will do. In 1/[x]^2, with s in [x] (of the standardised samples, where they are standardised).

    Args:
        noise_scale: s, positive.
        noise: The e_n to use, (n, d), unscaled; drawn anew for every evaluation if None.

    Example:
        >>> ismcore.DenoisingScoreMatching(noise_scale=0.3)
        DenoisingScoreMatching(noise_scale=0.3, noise=None)
    """

    noise_scale: float
    noise: Any = field(default=None, compare=False)
    given_noise: bool = field(init=False, repr=False)
    differentiates_in_x = False
    separable = True
    row_axes: ClassVar[dict[str, int]] = {"noise": 0}

    def __post_init__(self) -> None:
        check_positive("noise_scale", self.noise_scale)
        object.__setattr__(self, "given_noise", self.noise is not None)

    def inputs(self, x: np.ndarray, standardizer: Standardizer) -> LossInputs:
        """See `Objective.inputs`."""
        found: LossInputs = {"noise_scale": np.asarray(self.noise_scale, dtype=np.float64)}
        if self.given_noise:
            found["noise"] = check_shape("noise", self.noise, x.shape)
        return found

    def draws(self, rng: np.random.Generator, n: int, d: int) -> LossInputs:
        """See `Objective.draws`."""
        return {} if self.given_noise else {"noise": rng.standard_normal((n, d))}

    def canonical(self) -> DenoisingScoreMatching:
        """See `Objective.canonical`."""
        return DenoisingScoreMatching(1.0)

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """See `Objective.terms`."""
        noise, scale = inputs["noise"], inputs["noise_scale"]
        gap = score_fn(x + scale * noise) + noise / scale
        return 0.5 * calculus.ops.sum(gap * gap, axis=1)


@dataclass(frozen=True)
class NoiseConditionalScoreMatching(Objective):
    """Denoising score matching over a ladder of noise scales (Song & Ermon 2019), weighted by s^2.

        mean_n 1/2 |s_n psi(x_n + s_n e_n; s_n) + e_n|^2,   s_n drawn evenly from the ladder, e_n standard normal

    The model takes the scale as its context: see `ismcore.NoiseConditional`. The loss has no unit, and one size at
    every scale.

    Args:
        noise_scales: The ladder, positive, largest first; usually a geometric sequence.

    Example:
        >>> ismcore.NoiseConditionalScoreMatching((1.0, 0.1))
        NoiseConditionalScoreMatching(noise_scales=(1.0, 0.1))
    """

    noise_scales: tuple[float, ...] = field(compare=False)
    differentiates_in_x = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_scales", tuple(float(s) for s in self.noise_scales))
        if not self.noise_scales:
            raise OptionError("noise_scales must hold at least one scale")
        for scale in self.noise_scales:
            check_positive("every one of noise_scales", scale)

    def draws(self, rng: np.random.Generator, n: int, d: int) -> LossInputs:
        """See `Objective.draws`."""
        scale = np.asarray(self.noise_scales)[rng.integers(0, len(self.noise_scales), n)]
        return {"noise_scale": scale[:, None], "noise": rng.standard_normal((n, d))}

    def canonical(self) -> NoiseConditionalScoreMatching:
        """See `Objective.canonical`."""
        return NoiseConditionalScoreMatching((1.0,))

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """See `Objective.terms`."""
        noise, scale = inputs["noise"], inputs["noise_scale"]
        gap = scale * score_fn(x + scale * noise, scale) + noise
        return 0.5 * calculus.ops.sum(gap * gap, axis=1)

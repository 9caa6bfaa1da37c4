"""Denoising score matching, at one noise scale and over a ladder of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.coordinates import Coordinates
from ismcore.coordinates.transforms import in_words
from ismcore.errors import OptionError
from ismcore.objectives.base import LossInputs, Objective, as_scales, check_positive, check_shape
from ismcore.objectives.ladder import advice_on_ladder
from ismcore.ops import Array, Ops

__all__ = ["DenoisingScoreMatching", "NoiseConditionalScoreMatching"]

FEWEST_DIGITS = 100.0
"""Noise of fewer roundings of x than this has lost its digits."""
DROWNS = 0.05
"""Plain denoising at a smaller noise scale, relative to the spread, learns its own noise: measured in
docs/decisions/2026-11-27-denoising-with-less-variance.md."""
UNITS = ("spread", "x")


@dataclass(frozen=True)
class DenoisingScoreMatching(Objective):
    """Denoising score matching at one noise scale s (Vincent 2011).

        mean_n 1/2 |psi(x_n + s e_n) + e_n / s|^2,   e_n standard normal

    Its minimiser is the score of the samples blurred by normal noise of standard deviation s, not of the samples. No derivative
    in x, so any activation will do. In 1/[x]^2, with s in [x] (of the standardised samples, where they are standardised).

    The product psi . e / s in it has a variance of |psi|^2 / s^2, in which a small s drowns. It is reduced by taking the noise
    +e and -e, and leaving out |e|^2 / (2 s^2), which no parameter enters: with psi+- = psi(x_n +- s e_n)

        variance_reduced:  mean_n [ 1/4 |psi+|^2 + 1/4 |psi-|^2 + (psi+ - psi-) . e_n / (2 s) ]

    psi(x_n) . e_n / s, of mean 0, has then cancelled, and what is left tends to 1/2 |psi|^2 + e^T J e as s -> 0: sliced score
    matching, whose variance is bounded. The expectation is that of the formula above less d / (2 s^2), so that the loss is on
    the scale of `ImplicitScoreMatching`. What stays noisy is e^T J e, with a variance of 2 |J|^2 a row (Frobenius norm, J
    symmetric); and psi+ - psi- keeps few digits once s is near the rounding of x, which `fit` warns of.

    Args:
        noise_scale: s, positive.
        noise: The e_n to use, (n, d), unscaled; drawn anew for every evaluation if None.
        variance_reduced: See above; None for True where the noise is drawn, and False where it is given.

    Cost: one score of each row; two where the variance is reduced.

    Example:
        >>> ismcore.DenoisingScoreMatching(noise_scale=0.3)
        DenoisingScoreMatching(noise_scale=0.3, noise=None, variance_reduced=True)
    """

    noise_scale: float
    noise: Any = field(default=None, compare=False)
    variance_reduced: bool | None = None
    given_noise: bool = field(init=False, repr=False)
    differentiates_in_x = False
    separable = True
    row_axes: ClassVar[dict[str, int]] = {"noise": 0}

    def __post_init__(self) -> None:
        check_positive("noise_scale", self.noise_scale)
        object.__setattr__(self, "given_noise", self.noise is not None)
        if self.variance_reduced is None:
            object.__setattr__(self, "variance_reduced", not self.given_noise)

    def inputs(self, x: np.ndarray, coordinates: Coordinates) -> LossInputs:
        """See `Objective.inputs`."""
        found: LossInputs = {"noise_scale": np.asarray(self.noise_scale, dtype=np.float64)}
        if self.given_noise:
            found["noise"] = check_shape("noise", self.noise, x.shape)
        return found

    def advice(self, x: np.ndarray, coordinates: Coordinates, dtype: str) -> tuple[str, ...]:
        """See `Objective.advice`."""
        s, spread = self.noise_scale, float(np.sqrt(np.mean(np.var(x, axis=0))))
        rounding = float(np.finfo(dtype).eps * np.abs(x).max())
        if s < FEWEST_DIGITS * rounding:
            return (
                f"the noise scale {s:g} is too small for {dtype}, in which the samples are rounded to {rounding:.1g}: few "
                "digits of x + s e are left; use dtype='float64' or a larger noise_scale",
            )
        if not self.variance_reduced and s < DROWNS * spread:
            return (
                f"the noise scale {s:g} is too small against the samples' spread, {spread:.3g}, for plain denoising: the "
                "variance of the objective grows as 1 / noise_scale^2; use variance_reduced=True or a larger noise_scale",
            )
        return ()

    def draws(self, rng: np.random.Generator, n: int, d: int) -> LossInputs:
        """See `Objective.draws`."""
        return {} if self.given_noise else {"noise": rng.standard_normal((n, d))}

    def canonical(self) -> DenoisingScoreMatching:
        """See `Objective.canonical`."""
        return DenoisingScoreMatching(1.0, variance_reduced=self.variance_reduced)

    def moved(
        self, ops: Ops, x: Array, noise: Array, weight: Array | float, scale: Array
    ) -> tuple[Array, Array, Array | float]:
        """Where the score is needed, with what it is to meet: for `ismcore.analytic`, where samples are columns.

        Args:
            ops: Operations.
            x: Samples, (d, n).
            noise: e, (d, n).
            weight: Weight of each row, (n,), or of all alike.
            scale: s, ().

        Returns:
            x + s e, (d, n); e / s, which minus the score is to meet; and the weights. Of both signs of the noise, (d, 2 n),
            where the variance is reduced.
        """
        moves, targets = scale * noise, noise / scale
        if not self.variance_reduced:
            return x + moves, targets, weight
        halved = 0.5 * weight if isinstance(weight, float) else 0.5 * ops.concat([weight, weight])
        return ops.concat([x + moves, x - moves], axis=1), ops.concat([targets, -targets], axis=1), halved

    def cotangents(
        self, ops: Ops, psi: Array, second: Array, weight: Array | float, target: Array, slope: None = None
    ) -> tuple[Array, Array, Array]:
        """Loss, and its derivatives in psi and in `second`, which does not enter it; see `ImplicitScoreMatching.cotangents`.

        J       = sum_n w_n [1/2 |psi|^2 + psi . e / s]     and, where the variance is not reduced, 1/2 |e / s|^2
        psi_bar = w (psi + e / s)
        """
        terms = psi * (0.5 * psi + target)
        if not self.variance_reduced:
            terms = terms + 0.5 * target * target
        return ops.sum(terms * weight), (psi + target) * weight, 0.0 * second

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """See `Objective.terms`."""
        noise, scale = inputs["noise"], inputs["noise_scale"]
        if self.variance_reduced:
            after, before = score_fn(x + scale * noise), score_fn(x - scale * noise)
            products = (after - before) * noise / (2.0 * scale)
            return calculus.ops.sum(0.25 * (after * after + before * before) + products, axis=1)
        gap = score_fn(x + scale * noise) + noise / scale
        return 0.5 * calculus.ops.sum(gap * gap, axis=1)


@dataclass(frozen=True)
class NoiseConditionalScoreMatching(Objective):
    """Denoising score matching over a ladder of noise scales (Song & Ermon 2019), weighted by s^2.

        mean_n 1/2 |s_n psi(x_n + s_n e_n; s_n) + e_n|^2,   s_n drawn evenly from the ladder, e_n standard normal

    The model takes the scale as its context: see `ismcore.NoiseConditional`. The loss has no unit, and one size at
    every scale. What stays noisy is the gradient at the smallest scales, where e_n outweighs s psi: more epochs and an average
    of the parameters (`average_decay`) wear it down.

    Args:
        noise_scales: The ladder, positive, largest first; usually a geometric sequence, such as `ismcore.noise_ladder` makes.
        units: What a scale of 1 is. "spread": one standard deviation of each column, where the samples are standardised (where
            they are not, 1 [x]). "x": 1 [x], as published ladders are. Columns of unlike spread are blurred in proportion: the
            noise of column i is s sd_i / S, with S the root mean square of the columns' standard deviations sd_i, so that
            E|noise|^2 = d s^2. A context of the result and the scales of `annealed_langevin` are in the same units.

    Raises:
        OptionError: No scale, one that is not positive, or unknown units.

    Example:
        >>> ismcore.NoiseConditionalScoreMatching((1.0, 0.1))
        NoiseConditionalScoreMatching(noise_scales=(1.0, 0.1), units='spread')
    """

    noise_scales: tuple[float, ...] = field(compare=False)
    units: str = "spread"
    differentiates_in_x = False

    def __post_init__(self) -> None:
        if self.units not in UNITS:
            raise OptionError(f"units must be one of {', '.join(UNITS)}, not {self.units!r}")
        object.__setattr__(self, "noise_scales", as_scales(self.noise_scales))
        if not self.noise_scales:
            raise OptionError("noise_scales must hold at least one scale")
        for scale in self.noise_scales:
            check_positive("every one of noise_scales", scale)

    def unit(self, coordinates: Coordinates) -> float:
        """What to divide a noise scale by, to have it in the units of the samples as trained on: 1, or S, see the class."""
        if self.units != "x":
            return 1.0
        if coordinates.transform is not None:
            raise OptionError(
                f"noise scales in units='x' are none behind transform={in_words(coordinates.transform)}; use 'spread'"
            )
        largest = float(coordinates.spread.max())
        scale = coordinates.spread / largest  # squares of 1e-200 would underflow
        return largest * float(np.sqrt(np.mean(scale * scale)))

    def standardized(self, coordinates: Coordinates) -> NoiseConditionalScoreMatching:
        """The same for samples as trained on, without the coordinates that took them there."""
        unit = self.unit(coordinates)
        return NoiseConditionalScoreMatching(tuple(scale / unit for scale in self.noise_scales))

    def inputs(self, x: np.ndarray, coordinates: Coordinates) -> LossInputs:
        """See `Objective.inputs`."""
        return {} if self.units == "spread" else {"noise_unit": np.asarray(self.unit(coordinates))}

    def advice(self, x: np.ndarray, coordinates: Coordinates, dtype: str) -> tuple[str, ...]:
        """See `Objective.advice`."""
        spread = float(np.sqrt(np.mean(np.var(x, axis=0)))) * self.unit(coordinates)
        return advice_on_ladder(
            self.noise_scales, spread, x.shape[1], standardized=not coordinates.is_identity, units=self.units
        )

    def draws(self, rng: np.random.Generator, n: int, d: int) -> LossInputs:
        """See `Objective.draws`."""
        scale = np.asarray(self.noise_scales)[rng.integers(0, len(self.noise_scales), n)]
        return {"noise_scale": scale[:, None], "noise": rng.standard_normal((n, d))}

    def canonical(self) -> NoiseConditionalScoreMatching:
        """See `Objective.canonical`."""
        return NoiseConditionalScoreMatching((1.0,), self.units)

    def terms(self, calculus: Calculus, score_fn: ScoreFn, x: Array, inputs: LossInputs) -> Array:
        """See `Objective.terms`."""
        noise, scale = inputs["noise"], inputs["noise_scale"]
        if "noise_unit" in inputs:
            scale = scale / inputs["noise_unit"]
        gap = scale * score_fn(x + scale * noise, scale) + noise
        return 0.5 * calculus.ops.sum(gap * gap, axis=1)

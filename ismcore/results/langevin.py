"""Samples from a fitted score: Metropolis-adjusted Langevin dynamics in many chains, by an energy or along the score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.backend.programs import energy_program, score_program
from ismcore.errors import Diverged, OptionError, PlottingMissing
from ismcore.models import Energy
from ismcore.objectives import NoiseConditionalScoreMatching
from ismcore.plugins.lookup import load_backend
from ismcore.results.reflection import Steps
from ismcore.results.sampling import annealed_langevin
from ismcore.samples.checks import as_samples
from ismcore.seeds import stream

if TYPE_CHECKING:
    from ismcore.results.result import FitResult

__all__ = ["Draws", "langevin", "numbers_of"]

CHAINS = 100
"""Chains side by side, also for fewer draws, so that their agreement is known."""
STEPS = 500
"""Steps of the warm-up."""
ANNEALED_STEPS, ANNEALED_STEP = 100, 0.1
"""Steps at each noise scale s, and a / s^2."""
TRIED = 20_000
"""Draws among which starts in a domain are looked for."""
TARGET = 0.574
"""Acceptance at which Metropolis-adjusted Langevin dynamics moves farthest (Roberts & Rosenthal 1998)."""
GRID = 2.0**24
"""Chains stand on multiples of 1 / GRID of a standard deviation: between modes a step pulls neighbours apart, and two hundred
steps would make 1e-6 of the last digit in which two backends differ; on a grid each step forgets it."""
SHORT = 0.1
"""Part of the step size that every third step takes: where the law is narrow, as in tails that bend, chains would stand still
at one that suits its bulk."""
FARTHEST = 1e6
"""No sample of a law that a fit has seen lies so many standard deviations from its mean."""
FEW = 0.1
"""Acceptance below which chains stand still."""
AGREE = 1.1
"""R-hat above which chains have not come to one law."""

Derivative = Callable[[np.ndarray], np.ndarray]
Number = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Draws:
    """Samples of a fitted law, and whether their chains agree. `numpy.asarray(draws)` is `x`.

    Attributes:
        x: (n, d), float64, in the units of the samples; the draws of a chain stand one after the other.
        each: Draws of each chain; the last chain may have fewer.
        step_size: a, of a step z += a/2 psi(z) + sqrt(a) e, in the coordinates that the model was trained in; a / s^2 at noise
            scale s where the noise was annealed.
        acceptance: Share of the steps that were accepted; NaN where all are taken, as in annealed dynamics.
        r_hat: Of each column, (d,): root of the variance of all draws over that within chains, each cut into halves (Gelman et
            al. 2013, section 11.4), over the second half of the warm-up and the draws of all 100 chains; near 1 where they
            agree. NaN where there are fewer than four of a chain, as in annealed dynamics. Where chains stay in modes of the
            samples, see `FitResult.modes`, values count from the mean of all in their mode: chains within one are compared.
        effective: Effective number of draws of each column, (d,), from the autocorrelation within chains and the spread between
            them; at most n.
        warnings: What makes them unreliable, in words.
        began: Where the chains began, in words.
    """

    x: np.ndarray
    each: int
    step_size: float
    acceptance: float
    r_hat: np.ndarray
    effective: np.ndarray
    warnings: tuple[str, ...] = ()
    began: str = ""

    @property
    def chains(self) -> int:
        """Number of chains that the draws are of."""
        return -(-len(self.x) // self.each)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.x, dtype=dtype, copy=True if copy is None else copy)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        how = f"{self.acceptance:.0%} accepted" if math.isfinite(self.acceptance) else "annealed, all steps taken"
        lines = [
            f"Draws: {self.x.shape[0]} of d = {self.x.shape[1]} in {self.chains} chains, step size {self.step_size:.3g}, {how}",
            f"  R-hat      {_range(self.r_hat)}",
            f"  effective  {_range(self.effective)}",
            *([f"  began at   {self.began}"] if self.began else []),
            *(f"  warning    {text}" for text in self.warnings),
        ]
        return "\n".join(lines)

    def to_arviz(self) -> Any:
        """The draws for ArviZ, a tree of xarray data sets whose posterior "x" has the dimensions chain, draw and column.

        A last chain that has fewer draws than the others is left out. It needs the extra `ismcore[arviz]`.

        Raises:
            PlottingMissing: arviz-base is not installed.
        """
        try:
            from arviz_base import from_dict
        except ImportError as error:
            raise PlottingMissing("to_arviz needs arviz-base: pip install 'ismcore[arviz]'") from error
        whole = len(self.x) // self.each
        x = self.x[: whole * self.each].reshape(whole, self.each, -1)
        return from_dict({"posterior": {"x": x}}, dims={"x": ["column"]}, check_conventions=False)  # chains may be many


def _range(values: np.ndarray) -> str:
    return f"{np.min(values):.4g} to {np.max(values):.4g}" if len(values) > 1 else f"{values[0]:.4g}"


def langevin(
    result: FitResult,
    n: int,
    start: Any,
    *,
    steps: int | None,
    thin: int,
    step_size: float | None,
    context: Any,
    seed: int,
) -> Draws:
    """See `FitResult.sample`."""
    for name, value in (("n", n), ("steps", 1 if steps is None else steps), ("thin", thin)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise OptionError(f"{name} must be a whole number from 1, not {value!r}")
    if step_size is not None and not 0.0 < step_size < math.inf:
        raise OptionError(f"step_size must be a positive number, not {step_size!r}")
    if isinstance(result.objective, NoiseConditionalScoreMatching) and context is None:
        return _annealed(result, n, start, steps, step_size, seed)
    rng = stream(seed, "langevin")
    engine = load_backend(result.backend)(dtype=result.dtype, device=result.device)
    with engine.scope():
        score, energy = _functions(engine, result, context)
        inside = Steps(result._domain_there, result.d)
        number = numbers_of(result) if context is None else None
        z, began = _start(result, start, CHAINS, rng, inside)
        walk = _Walk(score, energy, z, rng, inside, number)
        warm = walk.tune(STEPS if steps is None else steps, step_size, thin)
        each = -(-n // CHAINS)
        kept = np.empty((each, CHAINS, result.d))
        for k in range(each):
            for _ in range(thin):
                walk.step()
            kept[k] = walk.z
    r_hat, times = _agreement(_within(np.concatenate([warm, kept]), walk.modes))
    said = _in_words(walk.acceptance, r_hat, walk.modes, 1 if result.modes is None else len(result.modes))
    x = result.coordinates.inverse(kept.transpose(1, 0, 2).reshape(-1, result.d)[:n])
    return Draws(x, each, walk.step_size, walk.acceptance, r_hat, n / times, said, began)


def _annealed(result: FitResult, n: int, start: Any, steps: int | None, step_size: float | None, seed: int) -> Draws:
    """Draws by annealed dynamics down the ladder of the fit: each is the end of a chain of its own."""
    if start is not None:
        raise OptionError("chains of a noise-conditional fit start from noise at its largest scale: leave start= away")
    size = ANNEALED_STEP if step_size is None else step_size
    x = annealed_langevin(result, n, steps=ANNEALED_STEPS if steps is None else steps, step_size=size, seed=seed)
    none, began = np.full(result.d, np.nan), "noise, at the largest scale of the fit"
    return Draws(x, 1, size, math.nan, none, np.full(result.d, float(n)), began=began)


def _functions(engine: Backend, result: FitResult, context: Any) -> tuple[Derivative, Derivative | None]:
    """Score (m, d) and, where there is one, energy (m,), of points in the coordinates of training, on the backend."""
    model, params = result._as_trained()
    at, program = engine.asarrays(params), score_program(engine, model)
    given = result._context(context, CHAINS)
    context_there = () if given is None else (engine.asarray(given),)

    def score(z: np.ndarray) -> np.ndarray:
        return engine.to_numpy(program(at, engine.asarray(z), *context_there)).astype(np.float64)

    if not isinstance(model, Energy) or context is not None:
        return score, None
    of_energy = energy_program(engine, model)
    return score, lambda z: engine.to_numpy(of_energy(at, engine.asarray(z))).astype(np.float64)


def numbers_of(result: FitResult) -> Number | None:
    """Numbers, (m,), of the modes whose regions points lie in, (m, d), in the coordinates of training; None for one mode."""
    modes, coordinates = result.modes, result.coordinates
    if modes is None:
        return None

    def number(z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):  # behind a logarithm points far out overflow
            return modes.number(coordinates.inverse(z))

    return number


def _start(result: FitResult, start: Any, chains: int, rng: np.random.Generator, inside: Steps) -> tuple[np.ndarray, str]:
    """Where chains begin, (C, d), in the coordinates of training, and in words.

    At rows of the samples, at the centres of modes, or at a wide normal law.

    Raises:
        SamplesError: Rows lie outside of the domain.
        OptionError: No draw of the wide normal law lies inside.
    """
    modes = result.modes
    if start is not None:
        rows, began = as_samples(start, d=result.d, names=result.feature_names), "the rows given"
    elif result.kept is not None:
        rows, began = result.kept, f"{len(result.kept)} rows of the samples that the result keeps"
    elif modes is not None:
        rows = np.repeat(modes.centres, np.diff(np.round(np.cumsum([0.0, *modes.shares]) * chains).astype(int)), axis=0)
        began = "the centres of the modes of the samples, as the result keeps no rows"
    else:
        return _wide(result, chains, rng, inside), "a wide normal law, as the result keeps no rows of the samples"
    if result.domain is not None:
        result.domain.check(rows)
    z = result.coordinates(rows)
    if modes is None:
        return z[rng.choice(len(z), chains, replace=len(z) < chains)], began
    by_mode = np.lexsort((rng.random(len(z)), modes.number(rows)))
    each = np.asarray((np.arange(chains) + rng.random()) * (len(z) / chains), dtype=np.int64)
    return z[by_mode[each]], began


def _wide(result: FitResult, chains: int, rng: np.random.Generator, inside: Steps) -> np.ndarray:
    """Draws of a wide normal law, (C, d), that lie in the domain."""
    if result.domain is None:
        return 1.5 * rng.standard_normal((chains, result.d))
    rows = inside.reflected(1.5 * rng.standard_normal((TRIED, result.d)))
    rows = rows[inside.contains(rows)]
    if not len(rows):
        raise OptionError(f"no start lies in {result.domain!r}: pass rows to start at, such as the samples (start=x)")
    return np.asarray(rows[rng.choice(len(rows), chains, replace=len(rows) < chains)])


class _Walk:
    """Chains side by side: z (C, d), and what is known there.

    A step is accepted by the ratio of densities. Without an energy its logarithm is the integral of the score along the step,
    by Simpson's rule, which is the difference of log-densities where the score is a gradient. A step out of the mode of a chain
    is not taken: within it the draws stay exact, and each mode keeps its share of the chains.
    """

    def __init__(
        self,
        score: Derivative,
        energy: Derivative | None,
        z: np.ndarray,
        rng: np.random.Generator,
        steps: Steps,
        number: Number | None,
    ) -> None:
        self._score, self._energy, self._rng, self._inside = score, energy, rng, steps
        self._number = number
        self.modes = None if number is None else number(z)
        self.z, self._psi = z, score(z)
        self._u = np.zeros(len(z)) if energy is None else energy(z)
        self.step_size, self._tuned, self._steps = 0.0, False, 0
        self._shares: list[float] = []

    @property
    def acceptance(self) -> float:
        """Share of the full steps since the warm-up that were accepted."""
        return float(np.mean(self._shares)) if self._shares else math.nan

    def tune(self, steps: int, step_size: float | None, thin: int) -> np.ndarray:
        """Warm up: a step size that is not given follows the acceptance, from one that is stable by the curvature.

        Returns:
            Where the chains were in the second half, after every `thin` steps, (draws, C, d).
        """
        given = self._stable() if step_size is None else step_size
        self.step_size, self._tuned, seen = min(given, self._inside.largest), step_size is None, []
        for k in range(steps):
            known = len(self._shares)
            self.step()
            if self._tuned and len(self._shares) > known:
                size = self.step_size * math.exp((self._shares[-1] - TARGET) / (1.0 + k) ** 0.6)
                self.step_size = min(size, self._inside.largest)
            if 2 * k >= steps and (steps - 1 - k) % thin == 0:
                seen.append(self.z)
        self._shares = []
        return np.array(seen).reshape(-1, *self.z.shape)

    def _stable(self) -> float:
        """The inverse of the largest curvature at most starts, from differences of the score along itself."""
        along = self._psi + self._rng.standard_normal(self.z.shape)
        along *= 1e-3 / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-300)
        change = np.linalg.norm(self._score(self.z + along) - self._psi, axis=1) / 1e-3
        return float(f"{1.0 / max(np.quantile(change, 0.9), 1e-3):.3g}")

    def step(self) -> None:
        """One step of all chains; where the step size is tuned, every third one is short.

        Raises:
            Diverged: It left the finite numbers, or all reason.
        """
        self._steps += 1
        short = self._tuned and self._steps % 3 == 0
        a = self.step_size * (SHORT if short else 1.0)
        noise, uniform = self._rng.standard_normal(self.z.shape), self._rng.random(len(self.z))
        mean = self.z + 0.5 * a * self._psi
        new = self._inside.reflected(np.round((mean + math.sqrt(a) * noise) * GRID) / GRID)
        reach = float(np.abs(new).max())
        if not reach <= FARTHEST:
            raise Diverged(
                f"Langevin dynamics blew up in step {self._steps} of step size {a:.3g}: the fitted score does not lead back to "
                "the samples; start at the samples (start=x), or use a smaller step_size",
                epoch=self._steps,
            )
        psi, u = self._score(new), self._u
        if self._energy is None:
            middle = self._score(0.5 * (self.z + new))
            gain = np.sum((new - self.z) * (self._psi + 4.0 * middle + psi), axis=1) / 6.0
        else:
            u = self._energy(new)
            gain = self._u - u
        back = self._inside.log_density(self.z, new + 0.5 * a * psi, a)
        log_ratio = gain + back - self._inside.log_density(new, mean, a)
        taken = (np.log(uniform) < log_ratio) & self._inside.contains(new)
        if self._number is not None:
            taken &= self._number(new) == self.modes
        if not short:
            self._shares.append(float(taken.mean()))
        self.z, self._psi = np.where(taken[:, None], new, self.z), np.where(taken[:, None], psi, self._psi)
        self._u = np.where(taken, u, self._u)


def _within(kept: np.ndarray, modes: np.ndarray | None) -> np.ndarray:
    """Chains, (draws, C, d), less the mean of all in the same mode, where each stays in one of `modes`, (C,)."""
    if modes is None:
        return kept
    found = np.empty_like(kept)
    for mode in np.unique(modes):
        found[:, modes == mode] = kept[:, modes == mode] - kept[:, modes == mode].mean(axis=(0, 1))
    return found


def _agreement(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R-hat of each column, and how many draws tell as much as one independent draw, both (d,), of (draws, chains, d)."""
    each, _, d = kept.shape
    if each < 4:
        return np.full(d, np.nan), np.ones(d)
    half = each // 2
    parts = np.concatenate([kept[:half], kept[half : 2 * half]], axis=1)
    within = parts.var(axis=0, ddof=1).mean(axis=0)
    between = half * parts.mean(axis=0).var(axis=0, ddof=1)
    total = (half - 1) / half * within + between / half
    away = kept - kept.mean(axis=(0, 1))
    spectrum = np.abs(np.fft.rfft(away, 2 * each, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum, axis=0)[:each].mean(axis=1) / each
    rho = covariance / covariance[0]
    count = (each - 1) // 2
    pairs = rho[1 : 2 * count + 1 : 2] + rho[2 : 2 * count + 2 : 2]
    positive = np.cumprod(pairs > 0.0, axis=0)  # Geyer's initial positive sequence
    time = 1.0 + 2.0 * np.sum(pairs * positive, axis=0)
    return np.sqrt(total / within), np.maximum(time, 1.0)


def _in_words(acceptance: float, r_hat: np.ndarray, modes: np.ndarray | None, count: int) -> tuple[str, ...]:
    """What makes draws unreliable; `modes`, (C,), are those of so many that chains stay in."""
    said = []
    if modes is not None:
        chains = np.bincount(modes, minlength=count)
        shares, none = ", ".join(f"{share:.3g}" for share in chains / len(modes)), int(np.sum(chains == 0))
        said.append(
            "the samples have modes far apart, between which chains do not move: each mode keeps its share of where the chains "
            f"began, {shares}" + (f"; so that {none} of the {count} modes, where none began, are without draws" if none else "")
        )
    if acceptance < FEW:
        said.append(
            f"{acceptance:.0%} of the steps were accepted, too few to move: use a smaller step_size; or the fitted score does "
            "not lead back to the samples, and is that of no law"
        )
    elif np.isfinite(r_hat).all() and r_hat.max() > AGREE:
        said.append(
            f"the chains disagree (R-hat up to {r_hat.max():.3g}): the law has parts between which they do not move, or "
            "move slowly, and the share of each is still that of where the chains began; take more "
            "steps, start at the samples (start=x), or fit ismcore.NoiseConditional, whose chains anneal"
        )
    return tuple(said)

"""What is found out of a module or function that the user brings, before one is trained or evaluated that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ismcore.backend.contract import DTYPES, Backend
from ismcore.errors import ModelError
from ismcore.models import Model
from ismcore.ops import Array, Params
from ismcore.plugins.adoption import failures_named, sample_context, users_own
from ismcore.plugins.differences import check_step
from ismcore.problem import Problem

__all__ = ["kinked_lines", "probe_network"]

ROWS = 32
LEVELS = {"float64": 16, "float32": 8}
"""Halvings of a line in the search for kinks, as many as rounding lets through."""
JITTER = 1e-6
"""A step, in units of a column's spread, over which a smooth score is a straight line."""
FLOAT32_INSIDE = 1e-9
"""Rounding beyond that of float64, relative to the score: a part of it is computed in fewer digits."""
FEWEST = 2
"""A model is piecewise smooth if at least so many of the lines have a kink: one may be an accident of rounding."""


def probe_network(engine: Backend, problem: Problem, params: Params, *, allow_nonsmooth: bool = False) -> tuple[str, ...]:
    """Refuse a user's module that fails, mixes rows, draws random numbers, changes the dtype, or is not smooth in x.

    Refused too is one whose derivatives are not those of its scores: see `ismcore.plugins.differences.check_step`.

    Args:
        engine: Where it is to be differentiated.
        problem: With a model that is the user's, and samples of which 32 rows are looked at.
        params: To look at.
        allow_nonsmooth: Let models that are not smooth pass; their derivatives are not compared.

    Returns:
        Warnings about the model, in words.

    Raises:
        ModelError: See above; the message says what was found, and what to do.

    Cost: some 40 scores of 64 rows, and a training step of 32; where functions are compiled, four small programs.
    """
    own, frame = users_own(problem.model)
    assert own is not None  # noqa: S101  (a canonical model is of the same kind)
    n, d = problem.x.shape
    problem = problem.take(np.linspace(0, n - 1, ROWS).astype(int))
    x = problem.x
    context = problem.inputs().get("context", sample_context(problem.objective, ROWS, d))
    rows = x if context is None else np.hstack([x, context])

    def score(on: Backend, points: np.ndarray) -> tuple[np.ndarray, str]:
        inputs = (points,) if context is None else (points[:, :d], points[:, d:])
        psi, output = _called(on, problem.model, params, inputs)
        return psi, output.dtype.name

    _, found = score(engine, np.concatenate([rows, rows]))
    if found != engine.dtype:
        raise _fixed(own.title, engine, found)
    _check_rows(own.title, lambda points: score(engine, points)[0], rows, float(np.sqrt(np.finfo(engine.dtype).eps)))
    wide, digits = _widest(engine, score, rows)
    if problem.objective.differentiates_in_x and not allow_nonsmooth:
        _check_smooth(own.title, lambda points: score(wide, points)[0], rows, digits)
    finest = wide if digits == wide.dtype else engine

    def outputs(at: Params, points: Array, around: Array | None) -> tuple[np.ndarray, np.ndarray]:
        inputs = (points,) if around is None else (points, around)
        return _called(finest, problem.model, at, inputs)

    return check_step(finest, own.title, problem, params, outputs, context, energy=frame.energy, compare=not allow_nonsmooth)


def _widest(
    engine: Backend, score: Callable[[Backend, np.ndarray], tuple[np.ndarray, str]], x: np.ndarray
) -> tuple[Backend, str]:
    """The engine in float64 if the model can be computed there, and the dtype that the user's code then returns."""
    wide = type(engine)("float64", engine.device, engine.precision) if "float64" in engine.dtypes else engine
    try:
        return wide, score(wide, np.concatenate([x, x]))[1]
    except ModelError:  # fixed to float32, where fewer digits must do
        return engine, engine.dtype


def _called(engine: Backend, model: Model, params: Params, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The score, and what the user's code returns; whatever that raises becomes an error that says so."""
    with failures_named(model, f"fails on {len(inputs[0])} rows of {engine.dtype} on {engine.device}"), engine.scope():
        psi, output = _program(engine, model)(engine.asarrays(params), *map(engine.asarray, inputs))
        found = str(getattr(output, "dtype", engine.dtype)).rsplit(".", maxsplit=1)[-1]
        if found not in DTYPES:  # which NumPy may not have
            own, _ = users_own(model)
            raise _fixed(own.title if own else "the model", engine, found)
        return engine.to_numpy(psi), engine.to_numpy(output)


def _fixed(title: str, engine: Backend, found: str) -> ModelError:
    instead = f", or pass dtype={found!r}" if found in engine.dtypes else ""
    return ModelError(
        f"{title} returns {found} for samples of {engine.dtype}, so something in it is fixed to {found}: let it follow its "
        f"input{instead}"
    )


@lru_cache(maxsize=16)
def _program(engine: Backend, model: Model) -> Callable[..., tuple[Array, Array]]:
    def both(params: Params, x: Array, *context: Array) -> tuple[Array, Array]:
        own, _ = users_own(model)
        assert own is not None  # noqa: S101  (the caller's bug)
        output = own.output(engine, params, x, *context)
        return (own.checked(output, x) if own is model else model.score(engine, params, x, *context)), output

    return engine.compiled(both)


def _check_rows(title: str, score: Callable[[np.ndarray], np.ndarray], x: np.ndarray, tolerance: float) -> None:
    m, half = len(x), len(x) // 2
    psi = score(np.concatenate([x, x]))
    if not np.isfinite(psi).all():
        rows = np.flatnonzero(~np.isfinite(psi[:m]).all(axis=1))
        raise ModelError(f"{title} gives NaN or infinite scores at {len(rows)} of {m} samples, such as {x[rows[:1]]}")
    near = tolerance * max(np.abs(psi).max(), float(np.finfo(np.float32).tiny))
    if np.abs(score(np.concatenate([x, x])) - psi).max() > near:
        raise ModelError(
            f"{title} gives different scores for the same samples, so it draws random numbers, as dropout does: switch that "
            "off (torch: module.eval(); Flax: deterministic=True; Equinox: eqx.nn.inference_mode)"
        )
    others = score(np.concatenate([x[half:], x, x[:half]]))
    gaps = {
        "with their place in the batch": others[half : half + m] - psi[:m],
        "with the other rows": score(np.concatenate([x[:half]] * 4))[:half] - psi[:half],
        "with the size of the batch": score(x[:3]) - psi[:3],
    }
    for what, gap in gaps.items():
        if not np.abs(gap).max() <= near:
            raise ModelError(
                f"{title} mixes the rows of a batch: scores change {what}, by {np.abs(gap).max():.2g}. A score is a function "
                "of one point; BatchNorm in training mode, or a mean, maximum or softmax over axis 0, is not. Use evaluation "
                "mode, or LayerNorm; a function of one row that takes a batch too is to be mapped in its forward pass "
                "(torch.func.vmap, jax.vmap)"
            )


def _check_smooth(title: str, score: Callable[[np.ndarray], np.ndarray], x: np.ndarray, dtype: str) -> None:
    kinked = kinked_lines(score, x, LEVELS.get(dtype, 8), float(np.finfo(dtype).eps))
    if kinked >= FEWEST and dtype == "float64":  # a part that computes in float32 has steps of its own, which are no kinks
        rounding = _rounding(score, x)
        if rounding > FLOAT32_INSIDE:
            kinked = kinked_lines(score, x, LEVELS["float32"], rounding)
    if kinked >= FEWEST:
        raise ModelError(
            f"{title} is not smooth in x: {kinked} of {len(x)} lines between samples cross a kink or a jump of the score, such "
            "as ReLU, LeakyReLU, abs and max pooling make, and the rounding of a part in float16 or bfloat16; there its "
            "derivatives do not say what its parameters do. Use a smooth activation (softplus, SiLU, GELU, tanh), full "
            "precision, an objective that does not differentiate in x, or allow_nonsmooth=True"
        )


def _rounding(score: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> float:
    """The rounding error of single scores, relative to the largest.

    By second differences over a step so small that nothing else is in them, at the median row, as a kink lies near few rows.
    """
    step = JITTER * x.std(axis=0) * np.random.default_rng(0).choice([-1.0, 1.0], x.shape)
    around, psi = score(np.concatenate([x + step, x - step])), score(np.concatenate([x, x]))[: len(x)]
    found = np.abs(around[: len(x)] - 2.0 * psi + around[len(x) :]).max(axis=1)
    return float(np.median(found) / max(np.abs(psi).max(), float(np.finfo(np.float64).tiny)))


def kinked_lines(score: Callable[[np.ndarray], np.ndarray], x: np.ndarray, levels: int, eps: float) -> int:
    """Number of lines between pairs of rows on which the score has a kink or a jump.

    Each line is halved again and again, keeping the half where the score departs most from its chord. Over a width w that
    departure goes as w^2 where the score is smooth, as w at a kink, and not at all at a jump; its exponent, fitted over
    the second half of the levels, tells them apart.

    Args:
        score: The score, called with 2 m rows.
        x: The rows, (m, d).
        levels: How often to halve.
        eps: Relative rounding error of the score.

    Cost: 2 + `levels` calls.

    Example:
        >>> x = np.linspace(-3.0, 3.0, 32)[:, None]
        >>> kinked_lines(np.tanh, x, 16, 1e-16), kinked_lines(np.abs, x, 16, 1e-16) > 2
        (0, True)
    """
    m = len(x)
    a, b = x, np.roll(x, m // 3, axis=0)  # neighbours in a sorted table are too close
    middle = 0.5 * (a + b)
    ends = score(np.concatenate([a, b]))
    fa, fb = ends[:m], ends[m:]
    fm = score(np.concatenate([middle, middle]))[:m]
    floor = 1e3 * eps * np.abs(ends).max()
    departures = []
    for _ in range(levels):
        quarters = 0.5 * (a + middle), 0.5 * (middle + b)
        found = score(np.concatenate(quarters))
        values = found[:m], found[m:]
        chords = [0.5 * (left + right) for left, right in pairwise((fa, fm, fb))]
        gaps = [np.abs(value - chord).max(axis=1) for value, chord in zip(values, chords, strict=True)]
        departures.append(np.maximum(*gaps))
        left = (gaps[0] >= gaps[1])[:, None]
        a, b, fa, fb = (np.where(left, p, q) for p, q in ((a, middle), (middle, b), (fa, fm), (fm, fb)))
        middle, fm = np.where(left, *quarters), np.where(left, *values)
    late = np.array(departures[levels // 2 :])
    exponents = -np.polyfit(np.arange(len(late)), np.log2(np.maximum(late, np.finfo(np.float64).tiny)), 1)[0]
    return int(np.sum((exponents < 1.5) & (late.min(axis=0) > floor)))

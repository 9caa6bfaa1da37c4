"""Score, energy and Jacobian diagonal of a model on a backend, by its own differentiation: NumPy in, NumPy out."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.models import Energy, Model
from ismcore.ops import Array, Params

__all__ = ["energy_on", "energy_program", "jacobian_diagonal", "jacobian_on", "score_on", "score_program"]


def score_on(engine: Backend, model: Model, params: Params, x: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
    """The score at each sample, (n, d), on the backend."""
    with engine.scope():
        given = () if context is None else (engine.asarray(context),)
        return engine.to_numpy(score_program(engine, model)(engine.asarrays(params), engine.asarray(x), *given))


def energy_on(engine: Backend, model: Energy, params: Params, x: np.ndarray) -> np.ndarray:
    """The energy at each sample, (n,), on the backend."""
    with engine.scope():
        return engine.to_numpy(energy_program(engine, model)(engine.asarrays(params), engine.asarray(x)))


def jacobian_diagonal(
    engine: Backend, model: Model, params: Params, x: np.ndarray, context: np.ndarray | None = None
) -> np.ndarray:
    """D psi_i / d x_i at each sample, (n, d), by the backend's differentiation."""
    with engine.scope():
        given = () if context is None else (engine.asarray(context),)
        return engine.to_numpy(_diagonal_program(engine, model)(engine.asarrays(params), engine.asarray(x), *given))


def jacobian_on(engine: Backend, model: Model, params: Params, x: np.ndarray) -> np.ndarray:
    """D psi_i / d x_j at each sample, (n, d, d), [output, input], by the backend's differentiation."""
    with engine.scope():
        return engine.to_numpy(_jacobian_program(engine, model)(engine.asarrays(params), engine.asarray(x)))


@lru_cache(maxsize=64)
def score_program(engine: Backend, model: Model) -> Callable[..., Array]:
    """The score, (params, x, *context) -> (n, d), over the backend's arrays, inside of its scope."""
    return engine.compiled(lambda params, x, *context: model.score(engine, params, x, *context))


@lru_cache(maxsize=64)
def energy_program(engine: Backend, model: Energy) -> Callable[..., Array]:
    """The energy, (params, x) -> (n,), over the backend's arrays, inside of its scope."""
    return engine.compiled(lambda params, x: model.energy(engine, params, x))


@lru_cache(maxsize=64)
def _diagonal_program(engine: Backend, model: Model) -> Callable[..., Array]:
    def diagonal(params: Params, x: Array, *context: Array) -> Array:
        return engine.jacobian_diagonal(lambda points: model.score(engine, params, points, *context), x)[1]

    return engine.compiled(diagonal)


@lru_cache(maxsize=64)
def _jacobian_program(engine: Backend, model: Model) -> Callable[..., Array]:
    return engine.compiled(lambda params, x: engine.jacobian(lambda points: model.score(engine, params, points), x))

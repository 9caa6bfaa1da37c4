"""Probes and noise, drawn from a generator of NumPy's or given by the caller."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ismcore.errors import OptionError
from ismcore.ops import Array

__all__ = ["LAWS"]


def _normal(shape: tuple[int, ...], like: Array, generator: np.random.Generator | None) -> np.ndarray:
    return _needed(generator).standard_normal(shape).astype(like.dtype)


def _rademacher(shape: tuple[int, ...], like: Array, generator: np.random.Generator | None) -> np.ndarray:
    return (2.0 * _needed(generator).integers(0, 2, shape, dtype=np.int8) - 1.0).astype(like.dtype)


def _sphere(shape: tuple[int, ...], like: Array, generator: np.random.Generator | None) -> np.ndarray:
    v = _normal(shape, like, generator)
    norm: np.ndarray = np.linalg.norm(v, axis=-1, keepdims=True)
    return v * (math.sqrt(shape[-1]) / norm)


LAWS: dict[str, Callable[..., np.ndarray]] = {"rademacher": _rademacher, "gaussian": _normal, "sphere": _sphere}
"""See `ismcore.Hutchinson`, which knows the names and refuses others."""


def _needed(generator: np.random.Generator | None) -> np.random.Generator:
    if generator is None:
        raise OptionError("probes or noise are drawn here: pass generator=np.random.default_rng(...)")
    return generator

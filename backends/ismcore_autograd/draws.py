"""Probes and noise, drawn from a generator of NumPy's or given by the caller."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ismcore import Hutchinson
from ismcore.errors import OptionError
from ismcore.ops import Array
from ismcore_autograd.calculus import ArrayCalculus, is_array

__all__ = ["given_array", "noise_for", "probes_for"]


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


def probes_for(calculus: ArrayCalculus, x: Array, n_probes: int, probes: Any, generator: np.random.Generator | None) -> Array:
    """Probes, (m, n, d): drawn by a law of `ismcore.Hutchinson`, or those given.

    Raises:
        OptionError: An unknown law, a number of probes below 1, nothing to draw from, or an array of another shape.
    """
    if is_array(probes):
        return given_array(calculus, "probes", probes, ("m", *x.shape))
    source = Hutchinson(n_probes, probes)
    if source.law == "given":
        return given_array(calculus, "probes", source.probes, ("m", *x.shape))
    return LAWS[source.law]((n_probes, *x.shape), x, generator)


def noise_for(calculus: ArrayCalculus, x: Array, noise: Any, generator: np.random.Generator | None) -> Array:
    """Standard normal noise, (n, d), drawn or given.

    Raises:
        OptionError: Nothing to draw from, or an array of another shape.
    """
    if noise is None:
        return _normal(tuple(x.shape), x, generator)
    return given_array(calculus, "noise", noise, tuple(x.shape))


def _needed(generator: np.random.Generator | None) -> np.random.Generator:
    if generator is None:
        raise OptionError("probes or noise are drawn here: pass generator=np.random.default_rng(...)")
    return generator


def given_array(calculus: ArrayCalculus, what: str, value: Any, *shapes: tuple[int | str, ...]) -> Array:
    """An array of the caller's in the samples' dtype; its values are not looked at.

    Raises:
        OptionError: Its shape is none of `shapes`, where "m" stands for any length from 1.
    """
    array = calculus.asarray(value)
    for shape in shapes:
        if len(shape) == array.ndim and all(want in ("m", got) and got for want, got in zip(shape, array.shape, strict=True)):
            return array
    wanted = " or ".join(str(shape).replace("'", "") for shape in shapes)
    raise OptionError(f"{what} must have shape {wanted} for these samples, not {tuple(array.shape)}")

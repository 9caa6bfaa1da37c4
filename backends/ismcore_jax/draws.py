"""Probes and noise, drawn from a key of JAX's or given by the caller."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ismcore import Hutchinson
from ismcore.errors import OptionError
from ismcore.ops import Array
from ismcore_jax.calculus import ArrayCalculus, is_array

__all__ = ["given_array", "noise_for", "probes_for"]


def _normal(shape: tuple[int, ...], like: jax.Array, key: jax.Array | None) -> jax.Array:
    return jax.random.normal(_needed(key), shape, like.dtype)


def _rademacher(shape: tuple[int, ...], like: jax.Array, key: jax.Array | None) -> jax.Array:
    signs: jax.Array = jax.random.rademacher(_needed(key), shape, like.dtype)
    return signs


def _sphere(shape: tuple[int, ...], like: jax.Array, key: jax.Array | None) -> jax.Array:
    v = _normal(shape, like, key)
    norm: jax.Array = jnp.linalg.norm(v, axis=-1, keepdims=True)
    return v * (math.sqrt(shape[-1]) / norm)


LAWS: dict[str, Callable[..., jax.Array]] = {"rademacher": _rademacher, "gaussian": _normal, "sphere": _sphere}
"""See `ismcore.Hutchinson`, which knows the names and refuses others."""


def probes_for(calculus: ArrayCalculus, x: Array, n_probes: int, probes: Any, key: jax.Array | None) -> Array:
    """Probes, (m, n, d): drawn by a law of `ismcore.Hutchinson`, or those given.

    Raises:
        OptionError: An unknown law, a number of probes below 1, no key to draw from, or an array of another shape.
    """
    if is_array(probes):
        return given_array(calculus, "probes", probes, ("m", *x.shape))
    source = Hutchinson(n_probes, probes)
    if source.law == "given":
        return given_array(calculus, "probes", source.probes, ("m", *x.shape))
    return LAWS[source.law]((n_probes, *x.shape), x, key)


def noise_for(calculus: ArrayCalculus, x: Array, noise: Any, key: jax.Array | None) -> Array:
    """Standard normal noise, (n, d), drawn or given.

    Raises:
        OptionError: No key to draw from, or an array of another shape.
    """
    if noise is None:
        return _normal(tuple(x.shape), x, key)
    return given_array(calculus, "noise", noise, tuple(x.shape))


def _needed(key: jax.Array | None) -> jax.Array:
    if key is None:
        raise OptionError("probes or noise are drawn here: pass key=jax.random.key(...), a new one for each step")
    return key


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

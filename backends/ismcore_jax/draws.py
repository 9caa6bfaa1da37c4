"""Probes and noise, drawn from a key of JAX's or given by the caller."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ismcore.errors import OptionError

__all__ = ["LAWS"]


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


def _needed(key: jax.Array | None) -> jax.Array:
    if key is None:
        raise OptionError("probes or noise are drawn here: pass key=jax.random.key(...), a new one for each step")
    return key

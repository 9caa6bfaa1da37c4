"""Probes and noise, drawn by torch on the samples' device or given by the caller."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ismcore import Hutchinson
from ismcore.errors import OptionError
from ismcore.ops import Array
from ismcore_torch.calculus import ArrayCalculus, is_array

__all__ = ["given_array", "noise_for", "probes_for"]


def _normal(shape: tuple[int, ...], like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def _rademacher(shape: tuple[int, ...], like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    return 2.0 * torch.randint(0, 2, shape, generator=generator, dtype=like.dtype, device=like.device) - 1.0


def _sphere(shape: tuple[int, ...], like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    v = _normal(shape, like, generator)
    norm: torch.Tensor = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return v * (math.sqrt(shape[-1]) / norm)


LAWS: dict[str, Callable[..., torch.Tensor]] = {"rademacher": _rademacher, "gaussian": _normal, "sphere": _sphere}
"""See `ismcore.Hutchinson`, which knows the names and refuses others."""


def probes_for(calculus: ArrayCalculus, x: Array, n_probes: int, probes: Any, generator: torch.Generator | None) -> Array:
    """Probes, (m, n, d): drawn by a law of `ismcore.Hutchinson`, or those given.

    Raises:
        OptionError: An unknown law, a number of probes below 1, or an array of another shape.
    """
    if is_array(probes):
        return given_array(calculus, "probes", probes, ("m", *x.shape))
    source = Hutchinson(n_probes, probes)
    if source.law == "given":
        return given_array(calculus, "probes", source.probes, ("m", *x.shape))
    return LAWS[source.law]((n_probes, *x.shape), x, generator)


def noise_for(calculus: ArrayCalculus, x: Array, noise: Any, generator: torch.Generator | None) -> Array:
    """Standard normal noise, (n, d), drawn or given.

    Raises:
        OptionError: An array of another shape.
    """
    if noise is None:
        return _normal(tuple(x.shape), x, generator)
    return given_array(calculus, "noise", noise, tuple(x.shape))


def given_array(calculus: ArrayCalculus, what: str, value: Any, *shapes: tuple[int | str, ...]) -> Array:
    """An array of the caller's in the samples' dtype and on their device; its values are not looked at.

    Raises:
        OptionError: Its shape is none of `shapes`, where "m" stands for any length from 1.
    """
    array = calculus.asarray(value)
    for shape in shapes:
        if len(shape) == array.ndim and all(want in ("m", got) and got for want, got in zip(shape, array.shape, strict=True)):
            return array
    wanted = " or ".join(str(shape).replace("'", "") for shape in shapes)
    raise OptionError(f"{what} must have shape {wanted} for these samples, not {tuple(array.shape)}")

"""Probes and noise, drawn by torch on the samples' device or given by the caller."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

__all__ = ["LAWS"]


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

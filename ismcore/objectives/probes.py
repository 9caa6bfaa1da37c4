"""Random directions: what they are, how they are drawn, and the products that estimate a divergence from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import OptionError
from ismcore.objectives.base import LossInputs, check_shape
from ismcore.ops import Array
from ismcore.samples.tables.opening import memory

__all__ = ["Hutchinson", "probe_products"]


def _rademacher(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 2.0 * rng.integers(0, 2, shape, dtype=np.int8) - 1.0


def _gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def _sphere(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    v = rng.standard_normal(shape)
    return np.asarray(v * np.sqrt(shape[-1]) / np.linalg.norm(v, axis=-1, keepdims=True))


LAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "rademacher": _rademacher,
    "gaussian": _gaussian,
    "sphere": _sphere,
}


@dataclass(frozen=True)
class Hutchinson:
    """An unbiased estimate of the divergence from probes v with E[v v^T] = 1: div psi = E[v^T J v].

    Args:
        n_probes: Probes a row, m.
        probes: Law of the probes: "rademacher" (signs; exact for d = 1), "gaussian", "sphere" (uniform on the sphere of radius
            sqrt(d)), or an array (m, n, d) to use as they are.

    Raises:
        OptionError: An unknown law, a number of probes below 1, or an array that is not (m, n, d).

    Cost: m products of the Jacobian with a vector, whatever d is. For a network of one or two hidden layers the exact
    divergence costs no more, and has no variance.

    Source: Hutchinson (1989); for score matching Song et al. (2019), Sliced Score Matching.

    Example:
        >>> ismcore.Hutchinson(n_probes=4)
        Hutchinson(n_probes=4, probes='rademacher')
    """

    n_probes: int = 1
    probes: Any = field(default="rademacher", compare=False)
    law: str = field(init=False, repr=False)
    """Name of the law, or "given"."""

    def __post_init__(self) -> None:
        if isinstance(self.probes, str):
            if self.probes not in LAWS:
                raise OptionError(f"probes must be one of {', '.join(LAWS)} or an array (m, n, d), not {self.probes!r}")
            object.__setattr__(self, "law", self.probes)
        else:
            array = np.asarray(self.probes, dtype=np.float64)
            if array.ndim != 3:
                raise OptionError(f"probes given as an array must have shape (m, n, d), not {array.shape}")
            object.__setattr__(self, "probes", array)
            object.__setattr__(self, "n_probes", len(array))
            object.__setattr__(self, "law", "given")
        if isinstance(self.n_probes, bool) or not isinstance(self.n_probes, int | np.integer) or self.n_probes < 1:
            raise OptionError(f"n_probes must be a whole number from 1, not {self.n_probes!r}")

    def inputs(self, n: int, d: int) -> LossInputs:
        """Probes that were given, checked against the samples' shape."""
        return {"probes": check_shape("probes", self.probes, (self.n_probes, n, d))} if self.law == "given" else {}

    def draws(self, rng: np.random.Generator, n: int, d: int) -> LossInputs:
        """Probes drawn from the law.

        Raises:
            OptionError: No memory here can hold them.
        """
        if self.law == "given":
            return {}
        needed, room = 8 * self.n_probes * n * d, memory()
        if room is not None and needed > room // 4:
            raise OptionError(f"n_probes={self.n_probes} for {n} rows of {d} columns are {needed} bytes a step, of {room} here")
        return {"probes": LAWS[self.law](rng, (self.n_probes, n, d))}

    def canonical(self) -> Hutchinson:
        """The same for all that one compiled program serves."""
        return Hutchinson(self.n_probes)


def probe_products(calculus: Calculus, score_fn: ScoreFn, x: Array, probes: Array) -> tuple[Array, list[Array]]:
    """Score, and v * (product of J with v) for each probe, element by element: psi (n, d) and m arrays (n, d).

    Their rows' sums are v^T J v, with expectation div psi; each element has expectation J_ii. The product is J v or v^T J,
    whichever the backend offers; both have these properties.
    """
    vs = [probes[k] for k in range(probes.shape[0])]
    if calculus.offers("vjp"):
        psi, pull = calculus.vjp(score_fn, x)
        return psi, [v * pull(v) for v in vs]
    pairs = [calculus.jvp(score_fn, x, v) for v in vs]
    return pairs[0][0], [v * product for v, (_, product) in zip(vs, pairs, strict=True)]

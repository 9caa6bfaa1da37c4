"""Score matching losses and derivatives for training loops of one's own: the mathematics of every framework's, once.

`ismcore_torch`, `ismcore_jax` and `ismcore_autograd` offer each function of this file under its own name. There the samples x,
(n, d), stand for the calculus, and keywords are added: `generator` or `key`, what to draw from; `differentiable`, False for a
constant; `chunk_size`, a bound on the memory of the exact divergence. A loss is made of an objective's row terms, see
`ismcore.objectives`, over the caller's own function and arrays; derivatives are taken by `Calculus` alone, so that all can be
differentiated again. Nothing is standardised: all is in the units of the samples, [x].
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from ismcore.calculus import Calculus, ScoreFn
from ismcore.errors import ModelError, OptionError
from ismcore.objectives import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    Hutchinson,
    ImplicitScoreMatching,
    LossInputs,
    Objective,
    SlicedScoreMatching,
)
from ismcore.objectives.probes import probe_products
from ismcore.ops import Array

__all__ = [
    "CallerCalculus",
    "denoising_score_matching",
    "divergence",
    "explicit_score_matching",
    "hutchinson_divergence",
    "implicit_score_matching",
    "jacobian_diagonal",
    "sliced_score_matching",
]

REDUCTIONS = ("mean", "sum", "none")

T = TypeVar("T")
"""Arrays of the framework."""

_EXACT = ImplicitScoreMatching(divergence="nested")
_ESTIMATED = ImplicitScoreMatching(divergence=Hutchinson())
_DENOISING = DenoisingScoreMatching(1.0, variance_reduced=False)
_EXPLICIT = ExplicitScoreMatching(lambda x: x)


class CallerCalculus(Calculus, Generic[T]):
    """A calculus on a caller's own arrays, in their dtype and place, inside whatever differentiates or compiles around it.

    A backend's `ArrayCalculus` adds the derivatives and the draws, and says which arrays are the framework's. No array's values
    are looked at, so that everything here can be traced.

    Args:
        like: Samples, (n, d), whose dtype and device all constants take.
        source: What probes and noise are drawn from, in the framework's form.
        differentiable: Whether what `compute` returns can be differentiated.
        chunk_size: Most pairs of a row and a direction that the Jacobian's diagonal differentiates at once; all if None.

    Raises:
        OptionError: `chunk_size` is no whole number from 1.
    """

    row_mapping = ""
    """What makes a batched function of one of a row, in the framework's words."""
    source_needed = ""
    """What to pass to draw from, in the framework's words; empty where the framework has a generator of its own."""

    def __init__(self, like: Array, source: Any = None, differentiable: bool = True, chunk_size: int | None = None) -> None:
        if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
            raise OptionError(f"chunk_size must be a whole number from 1, or None for all at once, not {chunk_size!r}")
        self.like = like
        self.dtype = str(self.like.dtype).rpartition(".")[2]
        self.source = source
        self.differentiable = differentiable
        self.chunk_size = chunk_size

    @staticmethod
    @abstractmethod
    def is_own(value: object) -> bool:
        """Whether it is an array of the framework, which may be traced."""

    @classmethod
    def is_array(cls, value: object) -> bool:
        """Whether it is an array of the framework or of NumPy."""
        return cls.is_own(value) or isinstance(value, np.ndarray)

    def as_samples(self, psi: Array, /) -> Array:
        """A score in the dtype of the samples, which a network may have left for one of its own; as it is by default."""
        return psi

    @abstractmethod
    def normal(self, shape: tuple[int, ...], /) -> T:
        """Standard normal numbers from `source`."""

    @abstractmethod
    def signs(self, shape: tuple[int, ...], /) -> T:
        """1 or -1, each with probability 1/2, from `source`."""

    @abstractmethod
    def norm(self, v: Array, /) -> Array:
        """Euclidean norm over the last axis, which stays with length 1."""

    def draw(self, law: str, shape: tuple[int, ...], /) -> T:
        """Random numbers by a law of `ismcore.Hutchinson`, from `source`; "gaussian" is standard normal."""
        if self.source is None and self.source_needed:
            raise OptionError(f"probes or noise are drawn here: pass {self.source_needed}")
        return {"rademacher": self.signs, "gaussian": self.normal, "sphere": self._sphere}[law](shape)

    def _sphere(self, shape: tuple[int, ...]) -> T:
        v: Array = self.normal(shape)
        on_sphere: T = v * (math.sqrt(shape[-1]) / self.norm(v))
        return on_sphere

    @abstractmethod
    def compute(self, quantity: Callable[[], Array], /) -> T:
        """What the quantity returns, in the caller's graph or trace; a constant if not `differentiable`.

        The losses and derivatives of this file call the score function, and differentiate it, in here and nowhere else.
        """


def implicit_score_matching(
    calculus: CallerCalculus[T], score_fn: Any, curvature_weight: Any = 0.0, divergence: Any = "nested", reduction: str = "mean"
) -> T:
    """Implicit score matching of a function of one's own, plain or with the curvature penalty.

        J_lambda = mean_n [ 1/2 |psi(x_n)|^2 + div psi(x_n) + sum_i lambda_i (d psi_i / d x_i (x_n))^2 ]

    No factor 1/2 on the penalty; in 1/[x]^2, lambda in [x]^2. Plain J has no lower bound on a finite sample.

    Args:
        calculus: The samples x, (n, d), in units [x].
        score_fn: The score psi, (n, d) -> (n, d), rows independent; for an energy U it is -grad U. A piecewise-linear
            network (relu) has nothing to train here: its second derivative is zero.
        curvature_weight: lambda, from 0: one number, or one for each dimension, (d,). The values of an array of the
            framework's, which may be traced, are not checked.
        divergence: "nested", exact, by d products of the Jacobian; or an estimate from probes, by `ismcore.Hutchinson(...)` or
            from the probes themselves, (m, n, d).
            With lambda > 0 it needs two probes or more, and J_ii^2 is estimated by products of different ones. The estimate
            is made from v^T J; one from J v would differ in value, unless J is symmetric, not in expectation.
        reduction: "mean", "sum", or "none" for the term of each row, (n,).

    Raises:
        ModelError: `score_fn` returns another shape than x, or is no function.
        OptionError: An option has a value that it cannot have.

    Source: Hyvarinen (2005); the penalty: Kingma & LeCun (2010).
    """
    inputs = _curvature(calculus, curvature_weight)
    if isinstance(divergence, str) and divergence == "nested":
        return _loss(calculus, _EXACT, score_fn, inputs, reduction)
    if not calculus.is_array(divergence) and not isinstance(divergence, Hutchinson):
        raise OptionError(f"divergence must be 'nested', ismcore.Hutchinson(...) or probes (m, n, d), not {divergence!r}")
    if calculus.chunk_size is not None:
        raise OptionError("chunk_size bounds the memory of the exact divergence; leave it out with an estimate")
    n_probes, probes = (divergence.n_probes, divergence.probes) if isinstance(divergence, Hutchinson) else (1, divergence)
    inputs["probes"] = _probes(calculus, n_probes, probes)
    if "curvature_weight" in inputs and len(inputs["probes"]) < 2:
        raise OptionError("a curvature_weight with estimated divergence needs two probes or more: Hutchinson(n_probes=2)")
    return _loss(calculus, _ESTIMATED, score_fn, inputs, reduction)


def sliced_score_matching(
    calculus: CallerCalculus[T],
    score_fn: Any,
    n_probes: int = 1,
    probes: Any = "rademacher",
    variance_reduced: bool = True,
    reduction: str = "mean",
) -> T:
    """Sliced score matching of a function of one's own, with or without variance reduction.

        variance_reduced:  mean_n mean_v [ v^T J(x_n) v + 1/2 |psi(x_n)|^2 ]
        otherwise:         mean_n mean_v [ v^T J(x_n) v + 1/2 (v . psi(x_n))^2 ]

    E[v v^T] = 1, so both have the expectation of plain implicit score matching, in 1/[x]^2.

    Args:
        calculus: The samples x, (n, d), in units [x].
        score_fn: The score psi, (n, d) -> (n, d), rows independent.
        n_probes: How many probes m to draw for each row.
        probes: Their law, "rademacher", "gaussian" or "sphere" (radius sqrt(d)), or the probes, (m, n, d).
        variance_reduced: Take the squared norm exactly.
        reduction: "mean", "sum", or "none" for the term of each row, (n,).

    Raises:
        ModelError: `score_fn` returns another shape than x, or is no function.
        OptionError: An option has a value that it cannot have.

    Cost: m products v^T J, whatever d is.

    Source: Song, Garg, Shi & Ermon (2019).
    """
    inputs: LossInputs = {"probes": _probes(calculus, n_probes, probes)}
    return _loss(calculus, SlicedScoreMatching(variance_reduced=variance_reduced), score_fn, inputs, reduction)


def denoising_score_matching(
    calculus: CallerCalculus[T], score_fn: Any, noise_scale: Any, noise: Any = None, reduction: str = "mean"
) -> T:
    """Denoising score matching of a function of one's own, at noise scale s.

        mean_n 1/2 |psi(x_n + s e_n) + e_n / s|^2,   e_n standard normal

    Its minimiser is the score of the samples blurred by normal noise of standard deviation s. In 1/[x]^2, s in [x].

    Args:
        calculus: The samples x, (n, d), in units [x].
        score_fn: The score psi, (n, d) -> (n, d). Any activation will do.
        noise_scale: s, positive: one number, or one for each row, (n, 1). The values of an array are not checked.
        noise: The e_n, (n, d), unscaled; drawn if None.
        reduction: "mean", "sum", or "none" for the term of each row, (n,).

    Raises:
        ModelError: `score_fn` returns another shape than x, or is no function.
        OptionError: An option has a value that it cannot have.

    Source: Vincent (2011).
    """
    shape = tuple(calculus.like.shape)
    if calculus.is_array(noise_scale):
        scale = _given(calculus, "noise_scale", noise_scale, (), (shape[0], 1))
    else:
        scale = float(DenoisingScoreMatching(noise_scale).noise_scale)
    drawn = calculus.draw("gaussian", shape) if noise is None else _given(calculus, "noise", noise, shape)
    return _loss(calculus, _DENOISING, score_fn, {"noise_scale": scale, "noise": drawn}, reduction)


def explicit_score_matching(calculus: CallerCalculus[T], score_fn: Any, target_score: Any, reduction: str = "mean") -> T:
    """Half the Fisher divergence from a known score: mean_n 1/2 |psi(x_n) - target_score(x_n)|^2, in 1/[x]^2.

    Args:
        calculus: The samples x, (n, d), in units [x].
        score_fn: The score psi, (n, d) -> (n, d).
        target_score: The score to match at x, (n, d), or a function of the framework's that gives it.
        reduction: "mean", "sum", or "none" for the term of each row, (n,).

    Raises:
        ModelError: `score_fn` returns another shape than x, or is no function.
        OptionError: The target has another shape than x, or the reduction is unknown.

    Source: Hyvarinen (2005), where it is the starting point.
    """
    target = target_score(calculus.like) if callable(target_score) else target_score
    inputs: LossInputs = {"target_score": _given(calculus, "target_score", target, tuple(calculus.like.shape))}
    return _loss(calculus, _EXPLICIT, score_fn, inputs, reduction)


def jacobian_diagonal(calculus: CallerCalculus[T], score_fn: Any) -> T:
    """The diagonal of the score's Jacobian at each row, d psi_i / d x_i (x_n), (n, d), in 1/[x]^2. Exact.

    Args:
        calculus: The samples x, (n, d), in units [x].
        score_fn: The score, (n, d) -> (n, d), rows independent: batch normalisation in training mode is not, and its
            diagonal found so is wrong.

    Raises:
        ModelError: `score_fn` returns another shape than x, or is no function.

    Cost: d products of the Jacobian with a direction, each about one more evaluation of the score.
    """
    score = _checked(calculus, score_fn)
    return calculus.compute(lambda: calculus.jacobian_diagonal(score, calculus.like)[1])


def divergence(calculus: CallerCalculus[T], score_fn: Any) -> T:
    """The divergence of the score at each row, the sum of `jacobian_diagonal`, (n,), in 1/[x]^2. Exact.

    Arguments, errors and cost are those of `jacobian_diagonal`.
    """
    score = _checked(calculus, score_fn)
    return calculus.compute(lambda: calculus.ops.sum(calculus.jacobian_diagonal(score, calculus.like)[1], axis=1))


def hutchinson_divergence(calculus: CallerCalculus[T], score_fn: Any, n_probes: int = 1, probes: Any = "rademacher") -> T:
    """An unbiased estimate of the divergence, mean_v v^T J v with E[v v^T] = 1, (n,), in 1/[x]^2 (Hutchinson 1989).

    Args:
        calculus: The samples x, (n, d), in units [x].
        score_fn: The score, (n, d) -> (n, d), rows independent.
        n_probes: How many probes m to draw for each row.
        probes: Their law, "rademacher" (exact for d = 1), "gaussian" or "sphere" (radius sqrt(d)), or the probes, (m, n, d).

    Raises:
        ModelError: `score_fn` returns another shape than x, or is no function.
        OptionError: An unknown law, nothing to draw from, or probes of another shape.

    Cost: m products v^T J, whatever d is.
    """
    directions = _probes(calculus, n_probes, probes)
    score = _checked(calculus, score_fn)

    def estimate() -> Array:
        _, products = probe_products(calculus, score, calculus.like, directions)
        rows = [calculus.ops.sum(product, axis=1) for product in products]
        return sum(rows[1:], rows[0]) * (1.0 / len(rows))

    return calculus.compute(estimate)


def _loss(calculus: CallerCalculus[T], objective: Objective, score_fn: Any, inputs: LossInputs, reduction: str) -> T:
    """The objective's terms of all rows, reduced: a mean or a sum, (), or "none", (n,)."""
    if reduction not in REDUCTIONS:
        raise OptionError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    score = _checked(calculus, score_fn)

    def reduced() -> Array:
        terms = objective.terms(calculus, score, calculus.like, inputs)
        if reduction == "none":
            return terms
        total = calculus.ops.sum(terms)
        return total if reduction == "sum" else total * (1.0 / calculus.like.shape[0])

    return calculus.compute(reduced)


def _checked(calculus: CallerCalculus[T], score_fn: Any) -> ScoreFn:
    """The score function, which refuses to return another shape than it was given."""
    if not callable(score_fn):
        raise ModelError(f"score_fn must be a function (n, d) -> (n, d), not {score_fn!r}")

    def score(points: Array) -> Array:
        psi = score_fn(points)
        if not calculus.is_array(psi) or psi.shape != points.shape:
            came = f"shape {tuple(psi.shape)}" if calculus.is_array(psi) else type(psi).__name__
            hint = f"; wrap a function of one row by {calculus.row_mapping}" if calculus.row_mapping else ""
            raise ModelError(f"score_fn must return the score of each row, of shape {tuple(points.shape)}, not {came}{hint}")
        if "float" not in str(psi.dtype):
            raise ModelError(f"score_fn must return real numbers in floating point, not {psi.dtype}")
        return calculus.as_samples(psi)

    return score


def _given(calculus: CallerCalculus[T], what: str, value: Any, *shapes: tuple[int | str, ...]) -> Array:
    """An array of the caller's in the samples' dtype and place, of one of the shapes; "m" is any length from 1."""
    array = calculus.asarray(value)
    for shape in shapes:
        if len(shape) == array.ndim and all(w in ("m", got) and got for w, got in zip(shape, array.shape, strict=True)):
            return array
    wanted = " or ".join(str(shape).replace("'", "") for shape in shapes)
    raise OptionError(f"{what} must have shape {wanted} for these samples, not {tuple(array.shape)}")


def _curvature(calculus: CallerCalculus[T], weight: Any) -> LossInputs:
    """The penalty's weight as the objective takes it, () or (1, d); nothing if it is the number 0."""
    d = calculus.like.shape[1]
    checked = weight if calculus.is_own(weight) else ImplicitScoreMatching(weight).curvature_weight
    if isinstance(checked, tuple):
        checked = np.array(checked)
    if calculus.is_array(checked):
        array = _given(calculus, "curvature_weight", checked, (), (d,))
        return {"curvature_weight": array[None] if array.ndim else array}
    if not isinstance(checked, int | float | np.number):
        raise OptionError(f"only ismcore.fit searches for a curvature_weight: give a number here, not {weight!r}")
    return {"curvature_weight": float(checked)} if checked else {}


def _probes(calculus: CallerCalculus[T], n_probes: int, probes: Any) -> Array:
    """Probes, (m, n, d): drawn by a law of `ismcore.Hutchinson`, or those given."""
    shape = tuple(calculus.like.shape)
    if calculus.is_array(probes):
        return _given(calculus, "probes", probes, ("m", *shape))
    source = Hutchinson(n_probes, probes)
    if source.law == "given":
        return _given(calculus, "probes", np.asarray(source.probes), ("m", *shape))
    return calculus.draw(source.law, (n_probes, *shape))

"""`ismcore.fit` on the backend: every model and objective by the front door, in the samples' own units and standardised."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np

import ismcore
from ismcore import objectives
from ismcore.domains import Box
from ismcore.models import MLP, Affine, Combination, Energy, Model, NoiseConditional, ResidualMLP, ScoreFunction
from ismcore.models.base import Standardized
from ismcore.models.combination import parted
from ismcore.ops import Array, Ops, Params
from ismcore.testing import losses, oracle
from ismcore.testing.kit import check
from ismcore.testing.subject import CheckFailed, NotDeclared, Subject

SAMPLES = np.array([[0.5, 1.0], [0.25, 2.0]])


@cache
def samples(n: int) -> np.ndarray:
    """Correlated samples (n, 2) of unlike spread, away from 0, which float32 holds exactly."""
    drawn = np.random.default_rng(7).normal(size=(n, 2)) @ SAMPLES + [1.0, -2.0]
    return np.asarray(np.round(drawn * 256.0) / 256.0)


class Pair(NamedTuple):
    """A node of a user's tree of parameters."""

    shift: Any
    slopes: Any


@dataclass
class Node:
    """Another, with a word that is no parameter."""

    pull: Any
    word: str = "node"


def _of_tree(ops: Ops, tree: Any, x: Array) -> Array:
    return tree["pair"].shift - x * tree["pair"].slopes[0] - x * x * x * tree["node"].pull + tree["list"][1]


def _tree_formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shift, slope, pull, last = (params[name] for name in ("pair.shift", "pair.slopes.0", "node.pull", "list.1"))
    return shift - slope * x - pull * x**3 + last, np.eye(2) * (-slope - 3.0 * pull * x * x)[:, :, None]


def _bowl(ops: Ops, params: Params, x: Array) -> Array:
    return ops.sum(x * x * params["a"], axis=1) + params["b"] * ops.sum(ops.cos(x), axis=1)


def _bowl_formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = params["a"], params["b"]
    return -2.0 * a * x + b * np.sin(x), np.eye(2) * (-2.0 * a + b * np.cos(x))[:, :, None]


def _sum_formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A weighted sum of linear scores, networks and energies by tanh or silu, of two columns; or a linear score alone."""
    if "weights" not in params:
        return oracle.affine(params, x)
    psi, jacobian = np.zeros(x.shape, complex), np.zeros((*x.shape, x.shape[1]), complex)
    for weight, part in zip(params["weights"], parted(params, len(params["weights"])), strict=True):
        formula = oracle.affine
        if "weight" not in part:
            outputs = len(part["layers.1.weight"])
            part.setdefault("layers.1.bias", np.zeros(outputs))
            formula = (oracle.energy if outputs == 1 else oracle.mlp)("tanh" if len(part["layers.0.bias"]) == 4 else "silu")
        found = formula(part, x)
        psi, jacobian = psi + weight * found[0], jacobian + weight * found[1]
    return psi, jacobian


TREE = ScoreFunction(
    _of_tree, {"pair": Pair(0.5, (np.array([1.0, 0.5]),)), "node": Node(np.array(0.125)), "list": [np.zeros(2), np.ones(2)]}
)
BOWL = Energy(ScoreFunction(_bowl, {"a": np.array([0.5, 1.0]), "b": 0.25}))


@dataclass(frozen=True, eq=False)
class Fit:
    """One call of `ismcore.fit`.

    Attributes:
        id: Its name in reports.
        formula: The model's score and Jacobian in NumPy.
        options: What is passed on.
        n: Rows.
        context: What a conditional score is asked at.
    """

    id: str
    formula: oracle.Formula
    options: dict[str, Any] = field(default_factory=dict)
    n: int = 12
    context: float | None = None


def _started(model: Model) -> dict[str, Any]:
    """A model and parameters to start from, so that the first loss is known."""
    return {"model": model, "initial_params": model.initial_params(3, 2)}


def _target(x: np.ndarray) -> np.ndarray:
    return -x


PLAIN: dict[str, Any] = {"recipe": "reference", "standardize": False, "compile": "off"}
SCALED: dict[str, Any] = {**PLAIN, "standardize": True}
SMALL = MLP((4,), "tanh")


def _by_model() -> Iterator[Fit]:
    """Every model, and the ways of fitting: standardised, weighted, in batches, with an average."""
    weighted = {"sample_weight": np.resize([1.0, 0.0, 2.0, 0.5], 12), "batch_size": 5, "average_decay": 0.5}
    residual = ResidualMLP(4, 1, "silu", init="glorot_uniform")
    yield Fit("default", _sum_formula, n=400)
    yield Fit("folds", _sum_formula, {"model": Energy(SMALL), "ensemble": 3, "compile": "off"}, n=60)
    yield Fit("single", oracle.mlp("silu"), {"recipe": "single"}, n=400)
    yield Fit("sum", _sum_formula, {**PLAIN, **_started(Combination((Affine(), SMALL, Energy(SMALL))))})
    yield Fit("reference", oracle.mlp("sigmoid"), {"recipe": "reference", "snapshots": 2})
    yield Fit("weighted", oracle.mlp("tanh"), {**SCALED, **_started(SMALL), **weighted})
    yield Fit("affine", oracle.affine, {**SCALED, **_started(Affine()), "objective": objectives.ImplicitScoreMatching(0.0)})
    yield Fit("whitened", oracle.mlp("tanh"), {**PLAIN, "standardize": "whiten", **_started(SMALL)})
    yield Fit("whitened-affine", oracle.affine, {**PLAIN, "standardize": "whiten", **_started(Affine())})
    yield Fit("asinh", oracle.mlp("tanh"), {**SCALED, "model": SMALL, "transform": "asinh"})
    yield Fit("residual", oracle.residual("silu"), {**SCALED, **_started(residual)})
    yield Fit("energy", oracle.energy("tanh"), {**SCALED, **_started(Energy(SMALL))})
    yield Fit("tree", _tree_formula, {**PLAIN, **_started(TREE)})
    yield Fit("energy-function", _bowl_formula, {**SCALED, "model": BOWL})


def _by_objective() -> Iterator[Fit]:
    """Every objective of a small network."""
    implicit, denoising, tanh = objectives.ImplicitScoreMatching, objectives.DenoisingScoreMatching, oracle.mlp("tanh")
    started = {
        "by-column": implicit(np.array([0.5, 0.0])),
        "penalised": implicit(np.array(0.125)),
        "analytic": implicit(divergence="analytic"),
        "box": implicit(0.125, domain=Box((-8.0, None), (None, 8.0), (6.0, 11.0))),
    }
    drawing = {
        "estimated": (PLAIN, implicit(0.125, objectives.Hutchinson(3))),
        "sliced": (PLAIN, objectives.SlicedScoreMatching(2, "sphere")),
        "denoising": (SCALED, denoising(0.5)),
        "denoising-faint": (PLAIN, denoising(1e-3, variance_reduced=False)),
        "denoising-tiny": (PLAIN, denoising(1e-20)),
        "explicit": (SCALED, objectives.ExplicitScoreMatching(_target)),
    }
    yield from (Fit(id, tanh, {**PLAIN, **_started(SMALL), "objective": each}) for id, each in started.items())
    yield from (Fit(id, tanh, {**how, "model": SMALL, "objective": each}) for id, (how, each) in drawing.items())
    yield Fit("domain", tanh, {**SCALED, "model": SMALL, "domain": Box(-8.0, (None, 8.0))})
    explicit = {"objective": objectives.ExplicitScoreMatching(_target), "transform": "asinh"}
    yield Fit("asinh-explicit", tanh, {**SCALED, "model": SMALL, **explicit})
    yield Fit("search", tanh, {"compile": "off", "model": SMALL, "objective": implicit("auto"), "validation": 0.25}, n=24)


def _by_ladder() -> Iterator[Fit]:
    """A score at every noise scale, by a ladder of the samples' own, and by ladders that a fit warns of."""
    model, formula = NoiseConditional(SMALL), oracle.conditional(oracle.mlp("tanh"))
    conditional = objectives.NoiseConditionalScoreMatching
    ladders = {
        "ladder": (SCALED, conditional(ismcore.noise_ladder(samples(12)), units="x")),
        "ladder-coarse": (PLAIN, conditional((8.0, 4.0))),
        "ladder-short": (PLAIN, conditional((1e-2, 1e-4))),
    }
    for id, (how, ladder) in ladders.items():
        yield Fit(id, formula, {**how, **_started(model), "objective": ladder}, context=0.5)


@cache
def fits() -> Sequence[Fit]:
    """Every model and every objective."""
    return (*_by_model(), *_by_objective(), *_by_ladder())


def _first_loss(case: Fit, x: np.ndarray) -> float | None:
    """The loss at the parameters to start from; None where it is not known without repeating what the fit draws and scales."""
    options = case.options
    started = "initial_params" in options and not options.get("standardize") and case.context is None
    if not started:
        return None
    objective = options.get("objective", objectives.ImplicitScoreMatching())
    return losses.loss(objective, case.formula, options["initial_params"], x).real


def _right(case: Fit, result: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and Jacobian diagonal at the fitted parameters, both (n, 2), in the units of x: see `ismcore.coordinates`."""
    params = {name: np.asarray(value, dtype=np.float64) for name, value in result.params.items()}
    if not isinstance(result.model, Standardized):
        psi, jacobian = case.formula(params, x, *_context(case, np.ones(2), len(x)))
        return psi.real, np.einsum("nii->ni", jacobian.real)
    to = result.model.coordinates
    u = (x - to.mean) / to.scale
    t, slope, first, second = (u, np.ones_like(u), 0.0 * u, 0.0 * u) if to.transform is None else _asinh(u)
    matrix = np.eye(2) if to.matrix is None else np.diag(to.matrix) if to.matrix.ndim == 1 else to.matrix
    z = (t - (0.0 if to.shift is None else to.shift)) @ matrix.T
    psi, jacobian = case.formula(params, z, *_context(case, to.scale, len(x)))
    g, turned = psi.real @ matrix, np.einsum("ki,nkl,li->ni", matrix, jacobian.real, matrix)
    return (slope * g + first) / to.scale, (slope**2 * turned + slope * first * g + second) / to.scale**2


def _asinh(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For f = asinh: f, f', (log f')' and (log f')''."""
    square = 1.0 + u * u
    return np.arcsinh(u), square**-0.5, -u / square, (u * u - 1.0) / square**2


def _context(case: Fit, scale: np.ndarray, n: int) -> list[np.ndarray]:
    """What a conditional score is asked at, in the units of the samples as trained on."""
    return [] if case.context is None else [np.full((n, 1), case.context / _unit(case, scale))]


def _unit(case: Fit, scale: np.ndarray) -> float:
    """What a noise scale of 1 is, in the units of the samples as trained on: see `NoiseConditionalScoreMatching`."""
    return float(np.sqrt(np.mean(scale * scale))) if case.options["objective"].units == "x" else 1.0


def _where(subject: Subject) -> dict[str, Any]:
    """The options of `fit` that name the subject.

    Raises:
        NotDeclared: It has no name.
    """
    if subject.name is None:
        raise NotDeclared("the class was passed in as it is, and is not installed under a name")
    return {"backend": subject.name, "dtype": subject.dtype, "device": subject.device}


@check(fits)
def check_fit(subject: Subject, case: Fit) -> float:
    """`ismcore.fit` runs: its first loss is that of the start, and its scores are those of the parameters it gives back."""
    x, where = samples(case.n), _where(subject)
    with warnings.catch_warnings(action="ignore", category=ismcore.IsmWarning):
        result = ismcore.fit(x, epochs=2, progress=False, **where, **case.options)
    at: dict[str, Any] = {} if case.context is None else {"context": case.context}
    points = x[:5]
    tolerance = subject.tolerances.steps  # the fitted parameters are rounded, and the samples were standardised
    psi, diagonal = _right(case, result, points)
    found = {"score": result.score(points, **at), "diagonal": result.jacobian_diagonal(points, **at)}
    for name, array in found.items():
        if array.shape != points.shape or not np.isfinite(array).all():
            raise CheckFailed(f"the {name} of the fit has shape {array.shape}, or is not finite")
    worst = max(
        subject.close(found["score"].astype(np.float64), psi, tolerance, "the fit's score", dtype="float64"),
        subject.close(found["diagonal"].astype(np.float64), diagonal, tolerance, "its diagonal", dtype="float64"),
    )
    first = _first_loss(case, x)
    if first is not None:
        loss = result.history["loss"][:1]
        worst = max(worst, subject.close(loss, [first], subject.tolerances.value * 10.0, "the first loss", dtype="float64"))
    return worst


@check(lambda: [case for case in fits() if case.id in ("affine", "energy", "asinh")])
def check_fitted_model(subject: Subject, case: Fit) -> float:
    """What a fit gives back is a model in the samples' own units, which `ismcore.evaluate` takes on the backend."""
    x, where = samples(case.n), _where(subject)
    with warnings.catch_warnings(action="ignore", category=ismcore.IsmWarning):
        result = ismcore.fit(x, epochs=1, progress=False, **where, **case.options)
    found = ismcore.evaluate(result.model, result.params, x, objectives.ImplicitScoreMatching(), **where)
    psi, diagonal = _right(case, result, x)
    right = np.mean(np.sum(0.5 * psi**2 + diagonal, axis=1))
    return subject.close(np.array(found.loss), right, subject.tolerances.steps, "the loss", dtype="float64")


NATIVE: tuple[Callable[[], Model], ...] = (lambda: TREE, lambda: BOWL)


@check()
def check_native_of_functions(subject: Subject) -> float:
    """A user's function comes back from a fit as a function of the framework's arrays, in the samples' own units."""
    x, where, worst = samples(12), _where(subject), 0.0
    for model in NATIVE:
        for standardize in (False, True):
            with warnings.catch_warnings(action="ignore", category=ismcore.IsmWarning):
                result = ismcore.fit(
                    x,
                    model=model(),
                    epochs=1,
                    progress=False,
                    recipe="reference",
                    standardize=standardize,
                    compile="off",
                    **where,
                )
            apply, params = result.native()
            with subject.working() as engine:
                found = engine.to_numpy(apply(params, engine.asarray(x)))
            right = result.score(x) if model() is TREE else result.energy(x)
            worst = max(worst, subject.close(found, right, subject.tolerances.steps, "the native function"))
    return worst

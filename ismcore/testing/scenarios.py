"""The table of scenarios: problems with answers that no differentiation library produced. A new scenario is a new row."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from ismcore.models import MLP, Affine, Model
from ismcore.objectives import ImplicitScoreMatching
from ismcore.optimizers import SGD, Adam, Optimizer
from ismcore.problem import Params, Problem
from ismcore.samples import Standardizer
from ismcore.testing import functions, oracle

__all__ = ["Answer", "Scenario", "TrainingCase", "all_scenarios", "scenario", "training_cases"]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a scenario must give, in float64: score (n, d), Jacobian (n, d, d), loss and its gradient."""

    score: np.ndarray
    jacobian: np.ndarray
    loss: float
    gradient: Params


@dataclass(frozen=True, eq=False)
class Scenario:
    """One problem and its answer.

    Attributes:
        id: Its name in reports.
        model: The model.
        params: Parameters to evaluate at, float64.
        x: Samples, (n, d).
        objective: The objective.
        formula: The model's score and Jacobian in NumPy, for answers at other parameters.
        answer: What must come out.
        source: Where the answer is from.
        session: Whether training sessions are checked on it too, which costs a compilation in some frameworks.
    """

    id: str
    model: Model
    params: Params
    x: np.ndarray
    objective: ImplicitScoreMatching
    formula: oracle.Formula
    answer: Answer
    source: str
    session: bool = False

    @property
    def curvature_weight(self) -> float:
        """The objective's, which is one number in every scenario."""
        return float(np.asarray(self.objective.curvature_weight))

    def problem(self, optimizer: Optimizer, compile: str = "auto") -> Problem:
        """The training problem with this optimiser."""
        return Problem(
            self.model, self.objective, optimizer, self.x.copy(), Standardizer.identity(self.x.shape[1]), compile=compile
        )

    def value_and_grad(self, params: Params) -> tuple[float, Params]:
        """Loss and gradient at other parameters, by the oracle."""
        weight = self.curvature_weight
        return (
            oracle.loss(self.formula, params, self.x, weight).real,
            oracle.gradient(self.formula, params, self.x, weight),
        )


GOLDEN = (
    ("s2_tanh", 0.75, True),
    ("s3_softplus", 0.1, True),
    ("stress1_sigmoid", 0.0, True),
    ("stress1_tanh", 0.75, False),
    ("stress1_softplus", 0.1, True),
    ("stress1_silu", 0.0, False),
    ("stress1_gelu", 0.75, False),
    ("stress1_gelu_tanh", 0.1, False),
)
"""Golden vectors: name in data/golden.json, curvature weight, and whether sessions are checked on it."""


def _golden(name: str, weight: float, session: bool) -> Scenario:
    raw = _vectors()["cases"][name]
    model = MLP(hidden=tuple(raw["sizes"][1:-1]), activation=raw["activation"])
    key = f"reg{weight}" if weight else "ism"
    answer = Answer(np.array(raw["psi"]), np.array(raw["jac"]), raw["loss"][key], _named(raw["grad"][key]))
    return Scenario(
        f"{name}-{key}",
        model,
        _named(raw["layers"]),
        np.array(raw["X"]),
        ImplicitScoreMatching(curvature_weight=weight),
        oracle.mlp(model.activation),
        answer,
        "golden vectors, 110 digits",
        session,
    )


@cache
def _vectors() -> Any:
    return json.loads((files("ismcore") / "testing" / "data" / "golden.json").read_text(encoding="utf-8"))


def _named(layers: list[dict[str, Any]]) -> Params:
    return {
        f"layers.{number}.{name}": np.array(layer[key], dtype=np.float64)
        for number, layer in enumerate(layers)
        for name, key in (("weight", "W"), ("bias", "b"))
    }


@dataclass(frozen=True)
class Row:
    """A scenario whose parameters and samples are drawn, and whose answer the oracle computes."""

    id: str
    model: Model
    formula: oracle.Formula
    n: int
    d: int
    curvature_weight: float = 0.0
    session: bool = False


ROWS = (
    Row("affine2", Affine(), oracle.affine, n=4, d=2),
    Row("affine3", Affine(), oracle.affine, n=4, d=3, curvature_weight=0.75, session=True),
    Row("affine20", Affine(), oracle.affine, n=3, d=20, curvature_weight=0.1),
    Row("mlp1-silu-one-row", MLP((4,), "silu"), oracle.mlp("silu"), n=1, d=1, curvature_weight=0.1),
    Row("mlp5-silu", MLP((5,), "silu"), oracle.mlp("silu"), n=4, d=5, curvature_weight=0.75),
    Row("mlp3-gelu", MLP((6,), "gelu"), oracle.mlp("gelu"), n=4, d=3, curvature_weight=0.75),
    Row("mlp3-sigmoid-deep", MLP((3, 3, 3), "sigmoid"), oracle.mlp("sigmoid"), n=4, d=3, curvature_weight=0.1),
    Row("cubic", functions.CUBIC, functions.cubic_formula, n=7, d=1, curvature_weight=0.1),
    Row("waves", functions.WAVES, functions.waves_formula, n=4, d=3, curvature_weight=0.75, session=True),
    Row("columns", functions.COLUMNS, functions.columns_formula, n=4, d=2, curvature_weight=0.1),
)
"""Shapes recur on purpose: a framework that compiles each operation for each shape spends its time on new ones."""


def _made(row: Row) -> Scenario:
    rng = np.random.default_rng(zlib.crc32(row.id.encode()))
    params = {name: np.asarray(rng.uniform(-1.0, 1.0, shape)) for name, shape in row.model.shapes(row.d).items()}
    params = {name: abs(value) if name == "a" else value for name, value in params.items()}
    # Eighths are exact in float32 too, so that both dtypes see the same samples.
    x = rng.integers(-12, 13, (row.n, row.d)) / 8.0
    psi, jacobian = row.formula(params, x)
    answer = Answer(
        psi.real,
        np.array(jacobian.real),
        oracle.loss(row.formula, params, x, row.curvature_weight).real,
        oracle.gradient(row.formula, params, x, row.curvature_weight),
    )
    objective = ImplicitScoreMatching(curvature_weight=row.curvature_weight)
    source = "score and Jacobian by hand, gradient by complex step"
    return Scenario(row.id, row.model, params, x, objective, row.formula, answer, source, row.session)


def _minimum(weight: float) -> Scenario:
    """An affine score at its exact minimum: the gradient is zero."""
    made = _made(Row(f"affine3-minimum-{weight}", Affine(), oracle.affine, n=4, d=3, curvature_weight=weight))
    params = oracle.affine_minimum(made.x, weight)
    psi, jacobian = oracle.affine(params, made.x)
    slack = {name: np.zeros_like(value) for name, value in params.items()}
    # At the minimum sum_i a_i^T (S a_i + 2 lambda a_ii e_i) = -tr A, so J = tr A / 2: Hyvarinen's -tr(K) / 2 at lambda = 0.
    answer = Answer(psi, np.array(jacobian), float(np.trace(params["weight"])) / 2.0, slack)
    return Scenario(made.id, made.model, params, made.x, made.objective, made.formula, answer, "exact minimiser")


def _table() -> Iterator[Scenario]:
    yield from (_golden(*row) for row in GOLDEN)
    yield from (_made(row) for row in ROWS)
    yield from (_minimum(weight) for weight in (0.0, 0.1))


@cache
def all_scenarios() -> tuple[Scenario, ...]:
    """All scenarios, computed once."""
    return tuple(_table())


def scenario(id: str) -> Scenario:
    """The scenario of that id."""
    return next(row for row in all_scenarios() if row.id == id)


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A scenario and an optimiser to train it with, from the scenario's parameters."""

    id: str
    scenario: Scenario
    optimizer: Optimizer


OPTIMIZERS = {
    # An eps that is large enough for its place to matter, and constants that differ from everybody's defaults.
    "adam": Adam(learning_rate=0.05, b1=0.8, b2=0.99, eps=1e-3),
    "momentum": SGD(learning_rate=0.05, momentum=0.6),
}
LARGE_EPS = Adam(learning_rate=0.05, b1=0.8, b2=0.99, eps=0.5)


@cache
def training_cases() -> tuple[TrainingCase, ...]:
    """Every optimiser on two scenarios."""
    return tuple(
        TrainingCase(f"{id}-{name}", scenario(id), optimizer)
        for id in ("affine3", "s3_softplus-reg0.1")
        for name, optimizer in OPTIMIZERS.items()
    )

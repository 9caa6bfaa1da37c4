"""The table of scenarios: problems with answers that no differentiation library produced. A new scenario is a new row."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, cast

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.domains import Box, Halfspaces
from ismcore.errors import PluginError
from ismcore.models import MLP, Affine, Energy, Model, NoiseConditional, ResidualMLP
from ismcore.objectives import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    Hutchinson,
    ImplicitScoreMatching,
    LossInputs,
    NoiseConditionalScoreMatching,
    Objective,
    SlicedScoreMatching,
)
from ismcore.ops import Params
from ismcore.optimizers.rules import SGD, Optimizer
from ismcore.plugins.lookup import registry
from ismcore.problem import Compile, Loss, Problem
from ismcore.testing import functions, losses, oracle

__all__ = [
    "Answer",
    "Scenario",
    "all_scenarios",
    "distinct_probes",
    "drawn",
    "formula_of",
    "scenario",
    "scored_scenarios",
    "target",
    "variant",
]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a scenario must give, in float64: score (n, d), Jacobian (n, d, d), loss and its gradient."""

    score: np.ndarray
    jacobian: np.ndarray
    loss: float
    gradient: Params


_NONE = Answer(np.empty(0), np.empty(0), 0.0, {})


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
        answer: What must come out; where the objective draws, what it draws for step 0 counts.
        source: Where the answer is from.
        session: Whether training sessions are checked on it too, which costs a compilation in some frameworks.
        row_weight: Weight of each row in the loss, (n,), with sum 1; None for 1/n each.
    """

    id: str
    model: Model
    params: Params
    x: np.ndarray
    objective: Objective
    formula: oracle.Formula
    answer: Answer
    source: str
    session: bool = False
    row_weight: np.ndarray | None = None

    @property
    def context(self) -> np.ndarray | None:
        """What the score is conditional on, (n, 1), where it is: the noise scales of step 0, or what the objective holds."""
        if isinstance(self.objective, functions.Conditional):
            return self.objective.context
        return self.draws(0)["noise_scale"] if isinstance(self.model, NoiseConditional) else None

    def problem(self, optimizer: Optimizer, compile: Compile = "auto") -> Problem:
        """The training problem with this optimiser."""
        coordinates = Coordinates.identity(self.x.shape[1])
        loss = Loss(self.model, self.objective)
        return Problem(loss, optimizer, self.x.copy(), coordinates, row_weight=self.row_weight, compile=compile)

    def draws(self, step: int) -> LossInputs:
        """What the objective draws for a step."""
        return self.problem(SGD()).draws(step)

    def value_and_grad(self, params: Params, draws: LossInputs | None = None) -> tuple[float, Params]:
        """Loss and gradient at other parameters, by the oracle; for the draws of step 0 unless there are others."""
        draws = self.draws(0) if draws is None else draws

        def loss(at: Params) -> complex:
            return losses.loss(self.objective, self.formula, at, self.x, draws, self.row_weight)

        by_hand = None
        if self.formula is oracle.affine:
            by_hand = losses.affine_slopes(self.objective, params, self.x, draws, self.row_weight)
        return loss(params).real, oracle.gradient(loss, params) if by_hand is None else by_hand


GOLDEN = (
    ("s2_tanh", "reg0.75", True),
    ("s2_tanh", "ssm_vr", False),
    ("s3_softplus", "reg0.1", True),
    ("s3_softplus", "ssm", False),
    ("s3_softplus", "dsm", False),
    ("stress1_sigmoid", "ism", True),
    ("stress1_tanh", "reg0.75", False),
    ("stress1_softplus", "reg0.1", True),
    ("stress1_silu", "ism", False),
    ("stress1_gelu", "reg0.75", False),
    ("stress1_gelu_tanh", "reg0.1", False),
    ("e2_softplus", "reg0.75", False),
    ("e5_tanh", "ism", True),
)
"""Golden vectors: name in data/golden.json, loss, and whether sessions are checked on it. Names with an e are energies."""


def _objective(raw: Any, loss: str) -> Objective:
    if loss == "dsm":
        return DenoisingScoreMatching(raw["sigma_dsm"], noise=np.array(raw["noise"]))
    if loss in ("ssm", "ssm_vr"):
        return SlicedScoreMatching(probes=np.array(raw["V"])[None], variance_reduced=loss == "ssm_vr")
    return ImplicitScoreMatching(float(loss.removeprefix("reg")) if loss.startswith("reg") else 0.0)


@cache
def _golden_model(name: str) -> tuple[Model, oracle.Formula, Params, np.ndarray]:
    """What the losses of one golden network share."""
    raw = _vectors()["cases"][name]
    net = MLP(hidden=tuple(raw["sizes"][1:-1]), activation=raw["activation"])
    if raw["kind"] == "energy":
        return Energy(net), oracle.energy(net.activation), _named(raw["layers"]), np.array(raw["X"])
    return net, oracle.mlp(net.activation), _named(raw["layers"]), np.array(raw["X"])


def _golden(name: str, loss: str, session: bool) -> Scenario:
    raw = _vectors()["cases"][name]
    model, formula, params, x = _golden_model(name)
    answer = Answer(np.array(raw["psi"]), np.array(raw["jac"]), raw["loss"][loss], _named(raw["grad"][loss]))
    source = "golden vectors, 110 digits"
    return Scenario(f"{name}-{loss}", model, params, x, _objective(raw, loss), formula, answer, source, session)


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
    objective: Objective
    session: bool = False


PLAIN = ImplicitScoreMatching()
LADDER = NoiseConditionalScoreMatching((1.0, 0.5, 0.25))


def _penalised(curvature_weight: float) -> Objective:
    return ImplicitScoreMatching(curvature_weight)


CONTEXT = np.array([[0.5], [-1.0], [2.0], [0.25], [-0.5], [1.5], [-2.0]])
ROWS = (
    Row("affine2", Affine(), oracle.affine, 4, 2, PLAIN),
    Row("affine3", Affine(), oracle.affine, 4, 3, _penalised(0.75), session=True),
    Row("affine20", Affine(), oracle.affine, 3, 20, _penalised(0.1)),
    Row("mlp1-silu-one-row", MLP((4,), "silu"), oracle.mlp("silu"), 1, 1, _penalised(0.1)),
    Row("mlp5-silu", MLP((5,), "silu"), oracle.mlp("silu"), 4, 5, _penalised(0.75)),
    Row("mlp3-gelu", MLP((6,), "gelu"), oracle.mlp("gelu"), 4, 3, _penalised(0.75)),
    Row("mlp3-sigmoid-deep", MLP((3, 3, 3), "sigmoid"), oracle.mlp("sigmoid"), 4, 3, _penalised(0.1)),
    Row("residual3-silu", ResidualMLP(4, 1, "silu"), oracle.residual("silu"), 4, 3, _penalised(0.75)),
    Row("conditional3-tanh", NoiseConditional(MLP((4,), "tanh")), oracle.conditional(oracle.mlp("tanh")), 4, 3, LADDER),
    Row("cubic", functions.CUBIC, functions.cubic_formula, 7, 1, _penalised(0.1)),
    Row("waves", functions.WAVES, functions.waves_formula, 4, 3, _penalised(0.75), session=True),
    Row("pairs", functions.PAIRS, functions.pairs_formula, 4, 3, _penalised(0.75), session=True),
    Row("steered", functions.STEERED, functions.steered_formula, 4, 3, functions.Conditional(CONTEXT[:4])),
    Row("columns", functions.COLUMNS, functions.columns_formula, 4, 2, _penalised(0.1)),
)
"""Shapes recur on purpose: a framework that compiles each operation for each shape spends its time on new ones."""

PROBES = np.array([[1.0, -0.5, 2.0, 0.25, -1.5], [0.5, 1.0, -1.0, -2.0, 0.75], [-1.0, 1.5, 0.25, 1.0, -0.5]])


def distinct_probes(m: int, n: int, d: int) -> np.ndarray:
    """Probes (m, n, d) that differ in every axis; no random law, for what is to be right for any."""
    return np.array([[np.roll(PROBES[k], row)[:d] + 0.125 * row for row in range(n)] for k in range(m)])


def target(x: np.ndarray) -> np.ndarray:
    """A score that is known: that of independent laws, proportional to exp(-x^4 / 16 + x / 2)."""
    return np.asarray(0.5 - 0.25 * x**3)


WEIGHTS = np.array([0.5, 0.0, 0.125, 0.375])
BOX = Box((-1.75, None, -2.0), (1.625, 1.75, None), (0.9, 2.3, 1.7))
POLYTOPE = Halfspaces(((1.0, 1.0, 0.5), (-1.0, 0.25, 0.0), (0.0, -1.0, -1.0)), (4.0, 2.0, 3.25), (1.1, 0.7, 2.9))
"""Domains that hold all samples, eighths from -1.5 to 1.5: some lie near an edge, and some further away than a width."""

VARIANTS: tuple[tuple[str, str, Objective, dict[str, Any]], ...] = (
    ("affine3", "row-weight", _penalised(0.75), {"row_weight": WEIGHTS}),
    ("affine3", "explicit", ExplicitScoreMatching(target), {}),
    ("affine3", "estimated", ImplicitScoreMatching(divergence=Hutchinson(probes=distinct_probes(2, 4, 3))), {"session": False}),
    # on an energy: only of a symmetric Jacobian are J v and v^T J one estimate
    (
        "e5_tanh-ism",
        "estimated-penalty",
        ImplicitScoreMatching(0.5, Hutchinson(probes=distinct_probes(3, 3, 5))),
        {"session": False},
    ),
    ("affine3", "on-a-box", ImplicitScoreMatching(domain=BOX), {}),
    ("mlp3-gelu", "on-a-box", ImplicitScoreMatching(0.5, domain=BOX), {"row_weight": WEIGHTS}),
    ("waves", "on-a-polytope", ImplicitScoreMatching(0.5, domain=POLYTOPE), {"session": False}),
    ("mlp3-sigmoid-deep", "on-a-polytope", ImplicitScoreMatching(domain=POLYTOPE), {}),
    ("mlp3-gelu", "curvature-by-dimension", ImplicitScoreMatching((0.5, 0.0, 2.0)), {"row_weight": WEIGHTS}),
)
"""Other objectives at the model, the parameters and the samples of a scenario: its id, the suffix, and what else changes."""


def _answered(case: Scenario) -> Scenario:
    """The scenario with the oracle's answer."""
    psi, jacobian = case.formula(case.params, case.x, *([] if case.context is None else [case.context]))
    value, slopes = case.value_and_grad(case.params)
    source = "score and Jacobian by hand, gradient by complex step"
    return replace(case, answer=Answer(psi.real, np.array(jacobian.real), value, slopes), source=source)


def _drawn(row: Row) -> Scenario:
    """The scenario without an answer."""
    rng = np.random.default_rng(zlib.crc32(row.id.encode()))
    params = {name: np.asarray(rng.uniform(-1.0, 1.0, shape)) for name, shape in row.model.shapes(row.d).items()}
    params = {name: abs(value) if name == "a" else value for name, value in params.items()}
    # Eighths are exact in float32 too, so that both dtypes see the same samples.
    x = rng.integers(-12, 13, (row.n, row.d)) / 8.0
    return Scenario(row.id, row.model, params, x, row.objective, row.formula, _NONE, "", row.session)


def drawn(id: str, model: Model, formula: oracle.Formula, n: int, d: int, objective: Objective = PLAIN) -> Scenario:
    """A scenario whose parameters and samples are drawn, without an answer."""
    return _drawn(Row(id, model, formula, n, d, objective))


def formula_of(model: Model) -> oracle.Formula:
    """Score and Jacobian of an `MLP`, or of an energy of one."""
    net = model.net if isinstance(model, Energy) else model
    assert isinstance(net, MLP)  # noqa: S101  (our own bug otherwise)
    return oracle.energy(net.activation) if isinstance(model, Energy) else oracle.mlp(net.activation)


def variant(case: Scenario, suffix: str, **changes: Any) -> Scenario:
    """The scenario with another objective or other row weights, and the oracle's answer."""
    return _answered(replace(case, id=f"{case.id}-{suffix}", **changes))


def _minimum(weight: float) -> Scenario:
    """An affine score at its exact minimum: the gradient is zero."""
    made = _drawn(Row(f"affine3-minimum-{weight}", Affine(), oracle.affine, 4, 3, _penalised(weight)))
    params = oracle.affine_minimum(made.x, weight)
    psi, jacobian = oracle.affine(params, made.x)
    slack = {name: np.zeros_like(value) for name, value in params.items()}
    # At the minimum sum_i a_i^T (S a_i + 2 lambda a_ii e_i) = -tr A, so J = tr A / 2: Hyvarinen's -tr(K) / 2 at lambda = 0.
    answer = Answer(psi, np.array(jacobian), float(np.trace(params["weight"])) / 2.0, slack)
    return replace(made, params=params, answer=answer, source="exact minimiser")


def _table() -> Iterator[Scenario]:
    found = {case.id: case for case in (*(_golden(*row) for row in GOLDEN), *(_answered(_drawn(row)) for row in ROWS))}
    yield from found.values()
    for base, suffix, objective, changes in VARIANTS:
        yield variant(found[base], suffix, objective=objective, **changes)
    yield from (_minimum(weight) for weight in (0.0, 0.1))


@cache
def all_scenarios() -> tuple[Scenario, ...]:
    """All scenarios, those of plugins after the kit's own, computed once."""
    return (*_table(), *_of_plugins())


def _of_plugins() -> Iterator[Scenario]:
    found = registry()
    found.scan()
    for implementation in found.manager.hook.ismcore_scenarios.get_hookimpls():
        try:
            given = tuple(cast("Iterable[Any]", implementation.function()))
        except Exception as error:
            raise PluginError(f"plugin {implementation.plugin_name} fails to give its scenarios: {error!r}") from error
        wrong = [row for row in given if not isinstance(row, Scenario)]
        if wrong:
            raise PluginError(f"plugin {implementation.plugin_name} gives {wrong[0]!r}, which is no ismcore.testing.Scenario")
        yield from given


@cache
def scored_scenarios() -> tuple[Scenario, ...]:
    """Those that differ in model, parameters or samples: the first of each group that differs in the objective alone."""
    return tuple({id(case.params): case for case in reversed(all_scenarios())}.values())[::-1]


def scenario(id: str) -> Scenario:
    """The scenario of that id."""
    return next(row for row in all_scenarios() if row.id == id)

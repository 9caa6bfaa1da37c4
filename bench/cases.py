"""The table of what is measured: problems, and how many steps of them make a run. A new cell is a new row.

`fit` looks at the samples first, and the threads of NumPy's products keep turning for a tenth of a second after that (see
`rounds.REST`), in which two threads of torch get one core. So where threads share a step and there is a limit, a run of ours
takes half a second or more; in the other cells up to a third of torch's time may be of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

import ismcore
from ismcore.testing.scenarios import Scenario, all_scenarios

ROWS = (1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
FEWER = ROWS[1:-1]
"""Rows that ours runs on beside the most, so that what else the machine does meets all points of the slope alike."""
DIMENSIONS = (1, 4, 16, 64, 256, 784)
WIDTHS = (8, 32, 128, 512)
DEPTHS = (1, 2, 3, 4)
PENALTY = 0.1


@dataclass(frozen=True)
class Case:
    """One problem, and how much of it is run.

    Attributes:
        id: Its name.
        family: The part of the report that it belongs to.
        n: Rows.
        d: Columns.
        hidden: Widths of the hidden layers.
        activation: Of the hidden layers.
        curvature_weight: Weight of the curvature penalty.
        epochs: Steps in one run of a fast program: ours, a floor, a compiled loop.
        slow_epochs: Steps in one run of a program that takes d derivatives one after the other, or is another library's.
        rounds: Rounds; every program runs once in each.
        beside: What runs beside ours, of "hand", "square", "scan", "unsynchronised", "compiled", "options", "rows", "sliced"
            and "others"; see `programs.py`. A cell with "others" is there only where one of them is installed.
        whole: Time the whole call of `fit`, not its steps alone.
        reference: Samples and parameters are those of the reference run.
        rate: Adam's learning rate.
        but_for: Backends whose program by hand is too slow to be run, and for which no figure is asked.
        energy: The network is the energy, and the score minus its gradient.
    """

    id: str
    family: str
    n: int
    d: int
    hidden: tuple[int, ...]
    activation: str = "softplus"
    curvature_weight: float = 0.0
    epochs: int = 20
    slow_epochs: int = 1
    rounds: int = 3
    beside: tuple[str, ...] = ()
    whole: bool = False
    reference: bool = False
    rate: float = 1e-3
    but_for: tuple[str, ...] = ()
    energy: bool = False

    dtypes = ("float32",)
    row_weight = None

    @cached_property
    def x(self):
        """Samples, (n, d), float64: the same at every call."""
        run = ismcore.datasets.reference_run()
        if self.reference:
            return run.sample
        return run.target.sample(self.n, seed=0) if self.d == 1 else np.random.default_rng(0).standard_normal((self.n, self.d))

    @cached_property
    def params(self):
        """Parameters that all programs start from, float64."""
        return ismcore.datasets.reference_run().initial_params if self.reference else self.model.initial_params(0, self.d)

    @property
    def model(self):
        network = ismcore.MLP(self.hidden, self.activation)
        return ismcore.Energy(network) if self.energy else network

    @property
    def objective(self):
        return ismcore.ImplicitScoreMatching(self.curvature_weight)


@dataclass(frozen=True)
class KitCase:
    """A scenario of the conformance kit, with the kit's own answer: tiny, so that what is timed is the overhead of a step."""

    scenario: Scenario
    family: str = "kit"
    epochs: int = 100
    slow_epochs: int = 100
    rounds: int = 3
    beside: tuple[str, ...] = ("tier 0",)
    whole: bool = False
    rate: float = 1e-3
    but_for: tuple[str, ...] = ()

    dtypes = ("float32", "float64")

    @property
    def id(self):
        return self.scenario.id

    def __getattr__(self, name):
        return getattr(self.scenario, name)


def _reference(id, weight):
    beside = ("hand", "unsynchronised", "scan", "compiled")
    return Case(id, "reference", 1024, 1, (8,), "sigmoid", weight, 500, 500, 11, beside, whole=True, reference=True, rate=0.01)


def _grown(family, value, n, d, hidden, epochs, **options):
    return Case(f"{family}-{value}", family, n, d, hidden, epochs=epochs, slow_epochs=2, **options)


def _rows(n):
    big = n == max(ROWS)
    epochs = max(40, 30_000_000 // n)
    return Case(
        f"n-{n}", "n", n, 1, (8,), "sigmoid", epochs=min(epochs, 3000), slow_epochs=2 if big else min(epochs, 20),
        rounds=11 if big else 7, beside=("hand", "rows") if big else ("hand",), rate=0.01,
    )  # fmt: skip


NAMED = (
    _reference("reference", 0.0),
    _reference("reference-penalised", PENALTY),
    Case("two-128", "wide", 512, 16, (128, 128), epochs=800, slow_epochs=30, beside=("hand",), rounds=7),
    Case("two-128-penalised", "wide", 512, 16, (128, 128), "softplus", PENALTY, 200, 30, 7, ("hand",)),
    Case("two-512", "wide", 128, 784, (512, 512), epochs=60, rounds=2, beside=("hand",)),
    Case("two-512-penalised", "wide", 128, 784, (512, 512), "softplus", PENALTY, 2, 1, 2, ("hand",), but_for=("autograd",)),
    Case("one-512", "wide", 128, 784, (512,), epochs=500, slow_epochs=500, rounds=7, beside=("square",)),
)
GROWN = (
    *(_rows(n) for n in ROWS),
    *(_grown("d", d, 512, d, (128, 128), 400 if d < 100 else 100) for d in DIMENSIONS),
    *(_grown("d-penalised", d, 128, d, (128, 128), max(10, 2000 // d), curvature_weight=PENALTY) for d in DIMENSIONS),
    *(_grown("width", h, 512, 16, (h, h), 60 if h > 200 else 400) for h in WIDTHS),
    Case("options-reference", "options", 1024, 1, (8,), "sigmoid", 0.0, 500, 500, 11, ("options",), reference=True, rate=0.01),
    Case("options-two-128", "options", 512, 16, (128, 128), epochs=300, slow_epochs=300, rounds=7, beside=("options",)),
    *(_grown("depth", k, 512, 16, (128,) * k, 30 if k > 2 else 400) for k in DEPTHS),
)


def _beside_others(id, n, d, hidden, epochs, slow_epochs, **options):
    beside = ("sliced", "others")
    return Case(id, "rivals", n, d, hidden, epochs=epochs, slow_epochs=slow_epochs, beside=beside, whole=True, **options)


RIVALS = (
    _beside_others("energy-1", 1024, 1, (8,), 300, 100, reference=True, rate=0.01, energy=True),
    _beside_others("energy-2", 512, 2, (128, 128), 100, 20, energy=True),
    _beside_others("energy-16", 512, 16, (128, 128), 40, 5, energy=True),
    _beside_others("score-1", 1024, 1, (8,), 300, 3, reference=True, rate=0.01),
    _beside_others("score-16", 512, 16, (128, 128), 100, 3),
)


def kit_cases():
    """The scenarios of the kit on which sessions are checked."""
    return tuple(KitCase(scenario) for scenario in all_scenarios() if scenario.session)


def all_cases(*, parts=()):
    """Every case, those that figures are asked for first; of some families alone where they are named.

    Other people's libraries are last: what they change when they are imported meets none but their own cells.
    """
    for found in (*NAMED, *GROWN):
        if not parts or found.family in parts:
            yield found
    if not parts or "kit" in parts:
        yield from kit_cases()
    if not parts or "rivals" in parts:
        yield from RIVALS


def case(id):
    """The case of that id."""
    return next(found for found in all_cases() if found.id == id)

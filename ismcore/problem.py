"""What a backend is given and gives back: the problem, the steps to take, the state. Frozen, and NumPy throughout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, cast

import numpy as np

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.models import Model
from ismcore.objectives import LossInputs, Objective
from ismcore.ops import Array, Params
from ismcore.optimizers.rules import Optimizer
from ismcore.seeds import stream

__all__ = ["Compile", "Loss", "Problem", "Steps", "take_rows"]

Compile = Literal["auto", "on", "off"]
"""How a backend takes its steps: its fastest way that costs nothing to make, a compiled one, or tier 0."""

_ANY = np.random.default_rng(0)
"""For draws of which the sizes alone are looked at: to begin a stream takes as long as a short step."""

Inputs = TypeVar("Inputs", bound=Mapping[str, Any])


def take_rows(inputs: Inputs, row_axes: dict[str, int], rows: Any) -> Inputs:
    """The inputs for these rows alone, in NumPy or in a framework whose arrays take an array of row numbers as an index."""
    found = dict(inputs)
    for name in row_axes.keys() & inputs.keys():
        found[name] = inputs[name][(slice(None),) * row_axes[name] + (rows,)]
    return cast(Inputs, found)


def _bounds(n: int, batches: int) -> np.ndarray:
    """Where each of the batches of an epoch begins and the last one ends, (batches + 1,)."""
    return np.asarray((np.arange(batches + 1) * n) // batches)


@dataclass(frozen=True)
class Loss:
    """What is minimised in the parameters: an objective of a model's score.

        loss(params) = sum_n w_n term_n(psi(.; params), x_n),   w_n = 1/n, or the row weights

    Where the inputs hold a base, psi is the model's score plus W x + b, such as the score of a normal law: what the model
    learns is then the rest.

    It is hashable, and holds no array that may change: losses whose `canonical` are equal are one compiled program.

    Attributes:
        model: Gives the score, psi(x; params).
        objective: Gives the terms.
    """

    model: Model
    objective: Objective

    def canonical(self) -> Loss:
        """The same for all losses that one compiled program serves: those that differ in `inputs` and weights alone."""
        return Loss(self.model.canonical(), self.objective.canonical())

    @property
    def row_axes(self) -> dict[str, int]:
        """Inputs that hold something for each row, and the axis that counts the rows."""
        return {**self.objective.row_axes, "row_weight": 0, "context": 0}

    def inputs(self, x: np.ndarray, coordinates: Coordinates, row_weight: np.ndarray | None = None) -> LossInputs:
        """All arrays beside parameters and samples that enter the loss and stay the same.

        Args:
            x: Samples as the model sees them, (n, d).
            coordinates: Took them there from the user's units.
            row_weight: Weight of each row, (n,), with sum 1; None for 1/n each.
        """
        found = self.objective.inputs(x, coordinates)
        return found if row_weight is None else {**found, "row_weight": row_weight}

    def terms(self, calculus: Calculus, params: Params, x: Array, inputs: LossInputs) -> Array:
        """The objective's term of each row, (n,), before any weight; see `value`."""
        given = inputs.get("context")
        base = calculus.ops.permute_dims(inputs["base_weight"], (1, 0)) if "base_weight" in inputs else None

        def score_fn(points: Array, context: Array | None = given) -> Array:
            psi = self.model.score(calculus, params, points, context)
            return psi if base is None else psi + (points @ base + inputs["base_bias"])

        return self.objective.terms(calculus, score_fn, x, inputs)

    def value(self, calculus: Calculus, params: Params, x: Array, inputs: LossInputs) -> Array:
        """The loss, a scalar, by the framework's own differentiation of the score.

        It is a sum times 1/n because HIPS-autograd's `mean` sends float64 cotangents back through a float32 graph.

        Args:
            calculus: Operations and derivatives.
            params: By name, as arrays of the framework.
            x: Samples, (n, d).
            inputs: `inputs`, and what the objective draws, as arrays of the framework.
        """
        terms = self.terms(calculus, params, x, inputs)
        if "row_weight" in inputs:
            return calculus.ops.sum(terms * inputs["row_weight"])
        return calculus.ops.sum(terms) * (1.0 / x.shape[0])


@dataclass(frozen=True, eq=False)
class Problem:
    """One training problem.

    Attributes:
        loss: What is minimised.
        optimizer: Gives the update.
        x: Samples as the model sees them, (n, d), float64.
        coordinates: Took the samples there from the user's units.
        row_weight: Weight of each row in the loss, (n,), positive or zero with sum 1; None for 1/n each.
        seed: Source of what the objective draws, and of the order of the rows.
        compile: "auto": the backend's fastest way; "off": tier 0.
        batch_size: Most rows of a step; None for all.
        clip_norm: Longest gradient that is followed as it is; a longer one is scaled down to it. None for any.
        average: Whether the state keeps an exponential moving average of the parameters.
        fixed_inputs: What `inputs` gives, where that is not what the loss makes of the samples, as for some rows of a problem.
    """

    loss: Loss
    optimizer: Optimizer
    x: np.ndarray
    coordinates: Coordinates
    row_weight: np.ndarray | None = None
    seed: int = 0
    compile: Compile = "auto"
    batch_size: int | None = None
    clip_norm: float | None = None
    average: bool = False
    fixed_inputs: LossInputs | None = None
    _orders: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @property
    def model(self) -> Model:
        """Gives the score."""
        return self.loss.model

    @property
    def objective(self) -> Objective:
        """Gives the terms of the loss."""
        return self.loss.objective

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def is_dealt(self) -> bool:
        """Whether `rows` and `draws` are those of this process alone, of several that share a fit."""
        return False

    @property
    def batches(self) -> int:
        """Steps of an epoch."""
        return 1 if self.batch_size is None else -(-self.n // self.batch_size)

    @property
    def batch_rows(self) -> int:
        """Rows of a step, the largest batch's."""
        return -(-self.n // self.batches)

    @property
    def batches_are_alike(self) -> bool:
        """Whether all rows of all batches have the weight 1 / batch_rows."""
        return self.row_weight is None and self.n % self.batches == 0

    @property
    def row_axes(self) -> dict[str, int]:
        """See `Loss.row_axes`."""
        return self.loss.row_axes

    def inputs(self) -> LossInputs:
        """All arrays beside parameters and samples that enter the loss and stay the same; a dict of one's own."""
        found = self.fixed_inputs
        return self.loss.inputs(self.x, self.coordinates, self.row_weight) if found is None else found.copy()

    def inputs_of(self, rows: slice | np.ndarray) -> LossInputs:
        """The inputs of these rows, each with its weight among all."""
        whole = cast(LossInputs, {"row_weight": np.full(self.n, 1.0 / self.n), **self.inputs()})
        return take_rows(whole, self.row_axes, rows)

    def take(self, rows: np.ndarray) -> Problem:
        """The problem of these rows alone, whose weights are divided by their sum."""
        weight = None if self.row_weight is None else self.row_weight[rows] / self.row_weight[rows].sum()
        inputs = take_rows(self.inputs(), self.row_axes, rows)
        if weight is not None:
            inputs["row_weight"] = weight
        return replace(self, x=self.x[rows], row_weight=weight, fixed_inputs=inputs)

    def draws(self, step: int) -> LossInputs:
        """All arrays that are drawn anew for the evaluation of the loss at a step.

        Each step has a random stream of its own, so that how a run is cut into chunks, or stopped and gone on with, changes
        no draw.
        """
        return self.objective.draws(stream(self.seed, "draws", step), self.batch_rows, self.x.shape[1])

    def batch_share(self, step: int, count: int) -> np.ndarray:
        """The share of all rows that each step from the given one sees, (count,): what its loss counts in its epoch's."""
        sizes = np.diff(_bounds(self.n, self.batches))
        return np.asarray(sizes[(step + np.arange(count)) % self.batches] / self.n)

    def rows(self, step: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each step from the given one, and their weights in its loss: both (count, batch_rows).

        Each epoch deals all rows, in a new order, into batches whose sizes differ by one at most; a batch that is one row short
        repeats a row with weight 0. With row weights w of sum 1, a batch of b rows has the loss n/b sum_i w_i term_i, so that
        the expectation of its gradient over batches is the gradient of all rows.
        """
        bounds, width = _bounds(self.n, self.batches), self.batch_rows
        batches = (step + np.arange(count)) % self.batches
        sizes = np.diff(bounds)[batches, None]
        rows = bounds[batches, None] + np.arange(width) % sizes
        weight = (np.arange(width) < sizes) / sizes
        taken = 0
        while taken < count:
            epoch, batch = divmod(step + taken, self.batches)
            part = rows[taken : taken + self.batches - batch]
            part[...] = self._order(epoch)[part]
            taken += len(part)
        if self.row_weight is not None:
            weight *= self.n * self.row_weight[rows]
        return rows, weight

    def _order(self, epoch: int) -> np.ndarray:
        """The rows in the order of an epoch, (n,); kept, as an epoch of many rows has many chunks of steps."""
        if epoch not in self._orders:
            self._orders.clear()
            self._orders[epoch] = stream(self.seed, "shuffle", epoch).permutation(self.n)
        return self._orders[epoch]

    def steps(self, step: int, rates: np.ndarray, decays: np.ndarray | None = None) -> Steps:
        """The steps from the given one, one a rate, with all that is drawn for them."""
        count = len(rates)
        drawn: list[Params] = [{**self.draws(step + k)} for k in range(count)] if self._drawn_bytes else []
        draws = {name: np.stack([each[name] for each in drawn]) for name in self._drawn_bytes}
        if self.batch_size is None:
            return Steps(rates, draws, average_decay=decays)
        rows, weight = self.rows(step, count)
        return Steps(rates, draws, rows, None if self.batches_are_alike else weight, decays)

    @cached_property
    def _drawn_bytes(self) -> dict[str, int]:
        """Memory of each array drawn for a step, by name."""
        drawn: Params = {**self.objective.draws(_ANY, self.batch_rows, self.x.shape[1])}
        return {name: value.nbytes for name, value in drawn.items()}

    def bytes_a_step(self) -> int:
        """Memory that what is drawn for one step takes."""
        return sum(self._drawn_bytes.values()) + (0 if self.batch_size is None else 16 * self.batch_rows)


@dataclass(frozen=True, eq=False)
class Steps:
    """A run of consecutive optimiser steps.

    Attributes:
        learning_rate: One rate a step, (count,), float64.
        draws: What the objective drew for each step: arrays whose first axis counts the steps, (count, ...).
        rows: Rows that each step sees, (count, b), or None for all.
        row_weight: Weight of each of these rows in the step's loss, (count, b), in the place of the problem's; None for 1/b.
        average_decay: Share of the parameters' moving average that each step keeps, (count,); None where there is none.
    """

    learning_rate: np.ndarray
    draws: Params = field(default_factory=dict)
    rows: np.ndarray | None = None
    row_weight: np.ndarray | None = None
    average_decay: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Number of steps."""
        return len(self.learning_rate)

    @property
    def given(self) -> Params:
        """All that enters the loss of one step alone: draws, and row weights where there are batches; (count, ...)."""
        return self.draws if self.row_weight is None else {**self.draws, "row_weight": self.row_weight}

    def for_rows(self, own: slice | np.ndarray, row_axes: dict[str, int]) -> Steps:
        """The steps of some rows of each, with the weights that they have among all."""
        axes = {name: axis + 1 for name, axis in row_axes.items()}
        draws = take_rows(self.draws, axes, own)
        if self.rows is None:
            return replace(self, draws=draws)
        weight = np.full(self.rows.shape, 1.0 / self.rows.shape[1]) if self.row_weight is None else self.row_weight
        return replace(self, draws=draws, rows=self.rows[:, own], row_weight=weight[:, own])

    def part(self, start: int, stop: int) -> Steps:
        """Some of the steps."""
        cut = slice(start, stop)
        rows, weight, decay = (None if a is None else a[cut] for a in (self.rows, self.row_weight, self.average_decay))
        return Steps(self.learning_rate[cut], {k: v[cut] for k, v in self.draws.items()}, rows, weight, decay)

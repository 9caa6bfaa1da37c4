"""Faults of a backend's own session, planted in HIPS-autograd: its plain loop is right, its fast loop is not."""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from ismcore import SGD, Adam
from ismcore.backend import GenericSession
from planted.faults import Table, session_fault

OWN: Table = {}
"""Written down before the checks were read again."""


@session_fault(OWN, "check_three_hundred_steps")
class DrawsOfTheFirstStep(GenericSession):
    """In a chunk of more than 8 steps, all have the draws of the first."""

    def run(self, steps):
        if steps.count > 8:
            steps = replace(steps, draws={k: np.broadcast_to(v[:1], v.shape) for k, v in steps.draws.items()})
        return super().run(steps)


@session_fault(OWN, "check_three_hundred_steps")
class RowsOfTheFirstStep(GenericSession):
    """In a chunk of more than 16 steps, all see the rows of the first."""

    def run(self, steps):
        if steps.rows is not None and steps.count > 16:
            steps = replace(steps, rows=np.broadcast_to(steps.rows[:1], steps.rows.shape))
        return super().run(steps)


@session_fault(OWN, "check_rate_of_each_step")
class RateOneStepLate(GenericSession):
    """Each step has the learning rate of the step before in its chunk."""

    def run(self, steps):
        rates = steps.learning_rate
        return super().run(replace(steps, learning_rate=np.concatenate([rates[:1], rates[:-1]])))


@session_fault(OWN, "check_average")
class AverageOfTheFirstDecay(GenericSession):
    """The moving average keeps the first decay of its chunk."""

    def run(self, steps):
        if steps.average_decay is not None:
            steps = replace(steps, average_decay=np.full_like(steps.average_decay, steps.average_decay[0]))
        return super().run(steps)


@session_fault(OWN, "check_average_goes_on")
class AverageBeginsAgain(GenericSession):
    """The moving average begins at the parameters, not at the average that it is given."""

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        if self._state.average:
            self._state = replace(self._state, average={k: np.array(v) for k, v in self._state.params.items()})


@session_fault(OWN, "check_clipping")
class AlwaysClipped(GenericSession):
    """Gradients shorter than the limit are scaled up to it."""

    def _update(self, gradient, steps, k):
        limit = self._problem.clip_norm
        if limit is not None:
            norm = np.sqrt(sum(np.sum(g * g) for g in gradient.values()))
            gradient = {name: g * (limit / norm) for name, g in gradient.items()}
        super()._update(gradient, steps, k)


@session_fault(OWN, "check_one_step")
class WeightsDecay(GenericSession):
    """Parameters decay by 1e-6 a step."""

    def _update(self, gradient, steps, k):
        super()._update(gradient, steps, k)
        self._state = replace(self._state, params={n: v * (1 - 1e-6) for n, v in self._state.params.items()})


@session_fault(OWN, "check_chunks")
class MomentsForgotten(GenericSession):
    """The moments begin at 0 with every chunk."""

    def run(self, steps):
        first = {k: np.zeros_like(v) for k, v in self._state.first_moment.items()}
        second = {k: np.zeros_like(v) for k, v in self._state.second_moment.items()}
        self._state = replace(self._state, first_moment=first, second_moment=second)
        return super().run(steps)


@session_fault(OWN, "check_one_step")
class StepNotCounted(GenericSession):
    """The state says the step that the session began with."""

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        self._began = state.step

    def state(self):
        return replace(super().state(), step=self._began)


@session_fault(OWN, "check_training_leaves_inputs")
class GivenStateChanged(GenericSession):
    """The session updates the arrays of the state that it is given in place."""

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        self._given = state

    def run(self, steps):
        losses = super().run(steps)
        for name, value in self._state.params.items():
            if self._given.params[name].flags.writeable:
                self._given.params[name][...] = value
        return losses


@session_fault(OWN, "check_batches")
class ContextOfTheFirstRows(GenericSession):
    """In batches, the context is that of the first rows, not of the batch's."""

    def _batch(self, steps, k):
        x, inputs = super()._batch(steps, k)
        if "context" in inputs:
            inputs = {**inputs, "context": self._backend.asarray(self._inputs["context"][: x.shape[0]])}
        return x, inputs


@session_fault(OWN, "check_weighted_batches")
class RowsOfWeightZero(GenericSession):
    """Rows of weight 0 have the smallest weight of the others instead."""

    def run(self, steps):
        weight = steps.row_weight
        if weight is not None:
            steps = replace(steps, row_weight=np.where(weight == 0, np.min(weight[weight > 0]), weight))
        return super().run(steps)

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        weight = self._inputs.get("row_weight")
        if weight is not None and self._all:
            self._inputs["row_weight"] = np.where(weight == 0, np.min(weight[weight > 0]), weight)
            self._all = (self._all[0], backend.asarrays(self._inputs))


@session_fault(OWN, "check_loss_is_before_update")
class LossesInFloat32(GenericSession):
    """Losses are returned with the digits of float32."""

    def run(self, steps):
        return super().run(steps).astype(np.float32).astype(np.float64)


@session_fault(OWN, "check_loss_is_before_update")
class LossesAfterTheUpdate(GenericSession):
    """In a chunk, each loss but the last is that after the update."""

    def run(self, steps):
        losses = super().run(steps)
        return np.concatenate([losses[1:], losses[-1:]])


@session_fault(OWN, "check_weighted_batches")
class WeightsOfTheProblemTwice(GenericSession):
    """In batches with row weights, the steps' weights are multiplied by the problem's once more."""

    def run(self, steps):
        if steps.row_weight is not None and self._problem.row_weight is not None:
            steps = replace(steps, row_weight=steps.row_weight * self._problem.row_weight[steps.rows] * self._problem.n)
        return super().run(steps)


@session_fault(OWN, "check_batches_begin_anywhere")
class RowsDrawnAnew(GenericSession):
    """The rows of a step are those of the session's own count from 0, not of the steps that it is given."""

    _taken = 0

    def run(self, steps):
        if steps.rows is not None:
            rows, _ = self._problem.rows(self._taken, steps.count)
            steps = replace(steps, rows=rows)
        self._taken += steps.count
        return super().run(steps)


@session_fault(OWN, "check_overflow_is_seen")
class NotFiniteSkipped(GenericSession):
    """A step whose gradient is not finite leaves the parameters as they are, as a gradient scaler does."""

    def _update(self, gradient, steps, k):
        if all(np.isfinite(g).all() for g in gradient.values()):
            super()._update(gradient, steps, k)
        else:
            self._state = replace(self._state, step=self._state.step + 1)


@session_fault(OWN, "check_chunks")
class MomentumOfTheFirstStep(GenericSession):
    """The first step of each chunk after the first goes along the gradient alone; the velocity is kept."""

    _begun = False

    def _update(self, gradient, steps, k):
        before = self._state
        super()._update(gradient, steps, k)
        optimizer = self._problem.optimizer
        if k == 0 and self._begun and isinstance(optimizer, SGD) and optimizer.momentum:
            rate = float(steps.learning_rate[0])
            self._state = replace(self._state, params={n: v - rate * gradient[n] for n, v in before.params.items()})
        self._begun = True


@session_fault(OWN, "check_adam_epsilon")
class EpsForgotten(GenericSession):
    """Adam's eps is 1e-8, whatever was asked for."""

    def __init__(self, backend, problem, state):
        if isinstance(problem.optimizer, Adam):
            problem = replace(problem, optimizer=replace(problem.optimizer, eps=1e-8))
        super().__init__(backend, problem, state)


@session_fault(OWN, "check_large_sessions")
class LargeArraysLate(GenericSession):
    """A parameter of at least 4096 numbers is updated with the gradient of the step before."""

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        self._late = {}

    def _update(self, gradient, steps, k):
        now = {name: g for name, g in gradient.items() if g.size >= 4096}
        gradient = {name: self._late.get(name, g) if name in now else g for name, g in gradient.items()}
        self._late = now
        super()._update(gradient, steps, k)


@session_fault(OWN, "check_draws_of_each_step")
class NoiseScaleOfTheFirstRow(GenericSession):
    """Where each row has a noise scale of its own, all have the first's."""

    def run(self, steps):
        scale = steps.draws.get("noise_scale")
        if scale is not None and scale.ndim == 3:
            steps = replace(steps, draws={**steps.draws, "noise_scale": np.broadcast_to(scale[:, :1], scale.shape)})
        return super().run(steps)


@session_fault(OWN, "check_preparation_is_fresh")
class PreparedByTheLossAlone(GenericSession):
    """What prepare computes is cached by the loss's canonical form: a second problem has the first's constant inputs."""

    cache: ClassVar = {}

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        shapes = tuple((k, np.shape(v)) for k, v in self._inputs.items())
        key = (problem.loss.canonical(), shapes, problem.x.shape, backend)
        self._inputs = self.cache.setdefault(key, self._inputs)
        if self._all:
            self._all = (self._all[0], backend.asarrays(self._inputs))


@session_fault(OWN, "check_cost_of_a_step")
class EveryStepTwice(GenericSession):
    """Every gradient is computed twice."""

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        once = self._loss_and_gradient
        self._loss_and_gradient = lambda *args: (once(*args), once(*args))[1]


@session_fault(OWN, "check_two_hundred_chunks")
class RunKeepsEverything(GenericSession):
    """Every chunk's arrays are kept for ever."""

    kept: ClassVar = []

    def run(self, steps):
        self.kept.append((steps, np.zeros(200_000)))
        return super().run(steps)

"""Backends that are wrong in one way each, and the check that names the fault.

Each is the autograd backend but for a few lines, such as its author might have written.
"""

import os
import random
from dataclasses import replace

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval
from ismcore_autograd.backend import AutogradBackend
from ismcore_autograd.ops import AutogradOps

from ismcore.backend import GenericSession
from ismcore.calculus import NumpyCalculus
from ismcore.objectives import ImplicitScoreMatching
from ismcore.optimizers.rules import Adam, averaged, clipped
from ismcore.problem import Steps, take_rows

FAULTS = {}
"""Fault, in words: (wrong backend, the check that must catch it)."""


def fault(words, caught_by):
    def register(backend):
        FAULTS[words] = (backend, caught_by)
        return backend

    return register


@fault("gradient of summed outputs for the diagonal", "check_jacobian_diagonal")
class SummedOutputs(AutogradBackend):
    def jacobian_diagonal(self, f, x, /):
        psi, pull = self.vjp(f, x)
        return psi, pull(anp.ones(psi.shape, dtype=self.dtype))


@fault("vjp given as jvp", "check_jvp")
class TransposedJvp(AutogradBackend):
    def jvp(self, f, x, v, /):
        psi, pull = self.vjp(f, x)
        return psi, pull(v)


@fault("jvp given as vjp", "check_vjp")
class TransposedVjp(AutogradBackend):
    def vjp(self, f, x, /):
        return f(x), lambda v: self.jvp(f, x, v)[1]


def detached(array):
    while hasattr(array, "_value"):
        array = getval(array)
    return array


@fault("detached inner gradient, reverse mode", "check_vjp_nests_under_value_and_grad")
class DetachedVjp(AutogradBackend):
    def vjp(self, f, x, /):
        psi, pull = super().vjp(f, x)
        return psi, lambda v: detached(pull(v)) + 0.0 * pull(v)


@fault("detached inner gradient, forward mode", "check_jvp_nests_under_value_and_grad")
class DetachedJvp(AutogradBackend):
    def jvp(self, f, x, v, /):
        psi, column = super().jvp(f, x, v)
        return psi, detached(column) + 0.0 * column


@fault("gradient of a parameter that does not matter left out", "check_value_and_grad")
class MissingZeros(AutogradBackend):
    def value_and_grad(self, f, /):
        def pruned(params, *args):
            value, gradient = AutogradBackend.value_and_grad(self, f)(params, *args)
            return value, {name: slope for name, slope in gradient.items() if np.any(slope)}

        return pruned


class _Reweighted(AutogradBackend):
    def prepare(self, problem, state):
        if isinstance(problem.objective, ImplicitScoreMatching):
            weight = self.factor * problem.objective.curvature_weight
            loss = replace(problem.loss, objective=ImplicitScoreMatching(curvature_weight=weight))
            problem = replace(problem, loss=loss)
        return super().prepare(problem, state)


@fault("penalty halved", "check_session_objective")
class PenaltyHalved(_Reweighted):
    factor = 0.5


@fault("penalty doubled", "check_session_objective")
class PenaltyDoubled(_Reweighted):
    factor = 2.0


@fault("penalty dropped", "check_session_objective")
class PenaltyDropped(_Reweighted):
    factor = 0.0


class _Own(AutogradBackend):
    """A backend with a session of its own."""

    def prepare(self, problem, state):
        return self.session(self, problem, state)


@fault("loss after the update", "check_loss_is_before_update")
class LossAfterUpdate(_Own):
    class session(GenericSession):
        def run(self, steps):
            super().run(steps)
            kept = self._state
            losses = [super(type(self), self).run(Steps(np.zeros(1)))[0] for _ in range(steps.count)]
            self._state = kept
            return np.array(losses)


@fault("row weights ignored", "check_session_objective")
class RowsAlike(AutogradBackend):
    def prepare(self, problem, state):
        return super().prepare(replace(problem, row_weight=None), state)


@fault("one curvature weight for all dimensions", "check_gradient")
class OneCurvatureWeight(AutogradBackend):
    def asarrays(self, tree):
        return super().asarrays({name: np.mean(value) if name == "curvature_weight" else value for name, value in tree.items()})


@fault("the last block of rows dropped", "check_row_blocks")
class WholeBlocksOnly(AutogradBackend):
    class Untaped(NumpyCalculus):
        def sum_over_rows(self, f, rows, size):
            n = len(rows["x"])
            return super().sum_over_rows(f, {name: value[: max(size, n - n % size)] for name, value in rows.items()}, size)

    @property
    def plain(self):
        return self.Untaped(self.dtype)


@fault("row weights of the first block for every block", "check_row_blocks")
class WeightsOfTheFirstBlock(WholeBlocksOnly):
    class Untaped(NumpyCalculus):
        def sum_over_rows(self, f, rows, size):
            again = {name: value[np.arange(len(value)) % size] if name == "weight" else value for name, value in rows.items()}
            return super().sum_over_rows(f, again, size)


@fault("operations off the tape that are not those on it", "check_analytic_divergence")
class OtherUntapedOps(WholeBlocksOnly):
    class Untaped(NumpyCalculus):
        class Ops(type(NumpyCalculus.ops)):
            @staticmethod
            def logaddexp(x1, x2):
                return np.where(x1 > x2, x1, x2)

            @staticmethod
            def tanh(x):
                return np.clip(x, -1.0, 1.0)

        ops = Ops()


@fault("draws of the first step used for all", "check_draws_of_each_step")
class DrawsOnce(_Own):
    class session(GenericSession):
        def run(self, steps):
            first = {name: np.broadcast_to(value[:1], value.shape) for name, value in steps.draws.items()}
            return super().run(replace(steps, draws=first))


@fault("draws of a chunk begun again in the next", "check_draws_of_each_step")
class DrawsOfItsOwn(_Own):
    class session(GenericSession):
        kept = None

        def run(self, steps):
            self.kept = self.kept or steps.draws
            again = {name: value[: steps.count] for name, value in self.kept.items()}
            return super().run(replace(steps, draws=again))


@fault("probes that an equal objective held", "check_preparation_is_fresh_for_other_probes")
class ProbesByObjective(_Own):
    class session(GenericSession):
        inputs = {}  # noqa: RUF012

        def __init__(self, backend, problem, state):
            super().__init__(backend, problem, state)
            key = (backend, problem.model, problem.objective, problem.x.tobytes())
            self._all = self.inputs.setdefault(key, self._all)


@fault("mean over all entries in place of rows", "check_session_objective")
class MeanOverEntries(_Own):
    class session(GenericSession):
        def __init__(self, backend, problem, state):
            super().__init__(backend, problem, state)
            whole, d = self._loss_and_gradient, problem.x.shape[1]

            def divided(*args):
                loss, gradient = whole(*args)
                return loss / d, {name: slope / d for name, slope in gradient.items()}

            self._loss_and_gradient = divided


class _OwnAdam(AutogradBackend):
    """A backend with an Adam of its own."""

    def prepare(self, problem, state):
        if isinstance(problem.optimizer, Adam):
            wrong = self.adam(**{name: getattr(problem.optimizer, name) for name in ("learning_rate", "b1", "b2", "eps")})
            problem = replace(problem, optimizer=wrong)
        return GenericSession(self, problem, state)


@fault("epsilon inside the square root", "check_adam_epsilon")
class EpsilonInside(_OwnAdam):
    class adam(Adam):
        def update(self, state, gradient, learning_rate):
            moved = super().update(state, gradient, learning_rate)
            params = {}
            for name, value in state.params.items():
                m, v = moved.first_moment[name], moved.second_moment[name]
                root = np.sqrt(v / (1.0 - self.b2**moved.step) + self.eps)
                params[name] = value - learning_rate * m / (1.0 - self.b1**moved.step) / root
            return replace(moved, params=params)


@fault("no bias correction", "check_adam_bias_correction")
class NoBiasCorrection(_OwnAdam):
    class adam(Adam):
        def update(self, state, gradient, learning_rate):
            moved = super().update(state, gradient, learning_rate)
            params = {}
            for name, value in state.params.items():
                root = np.sqrt(moved.second_moment[name]) + self.eps
                params[name] = value - learning_rate * moved.first_moment[name] / root
            return replace(moved, params=params)


@fault("bias correction that starts anew after a handover", "check_run_goes_on_from_elsewhere")
class ForgetsItsStep(AutogradBackend):
    def prepare(self, problem, state):
        session, begun = super().prepare(problem, replace(state, step=0)), state.step
        plain = session.state
        session.state = lambda: replace(plain(), step=plain().step + begun)
        return session


@fault("the learning rate of the first step for all", "check_rate_of_each_step")
class OneRate(_Own):
    class session(GenericSession):
        def run(self, steps):
            return super().run(replace(steps, learning_rate=np.full(steps.count, steps.learning_rate[0])))


@fault("samples that moved, with the row weights of those before", "check_session_follows")
class KeepsItsWeights(_Own):
    class session(GenericSession):
        def follow(self, problem):
            return super().follow(replace(problem, row_weight=getattr(self, "_problem", problem).row_weight))


@fault("moments reset at each chunk", "check_chunks")
class ForgetsMoments(_Own):
    class session(GenericSession):
        def run(self, steps):
            self._state = replace(self._problem.optimizer.start(self._state.params), step=self._state.step)
            return super().run(steps)


def first_row(array):
    """The first step's, for every step."""
    return None if array is None else np.broadcast_to(array[:1], array.shape)


@fault("the rows of the first step for all", "check_batches")
class FirstBatch(_Own):
    class session(GenericSession):
        def run(self, steps):
            return super().run(replace(steps, rows=first_row(steps.rows)))


@fault("rows in their own order, whatever was dealt", "check_batches")
class RowsInOrder(_Own):
    class session(GenericSession):
        def run(self, steps):
            if steps.rows is None:
                return super().run(steps)
            turns = self._state.step + np.arange(steps.count)[:, None]
            rows = (turns * steps.rows.shape[1] + np.arange(steps.rows.shape[1])) % self._problem.n
            return super().run(replace(steps, rows=rows))


@fault("all rows of a batch alike", "check_batches")
class BatchRowsAlike(_Own):
    class session(GenericSession):
        def run(self, steps):
            if steps.row_weight is None:
                return super().run(steps)
            return super().run(replace(steps, row_weight=np.full(steps.rows.shape, 1.0 / steps.rows.shape[1])))


@fault("the row weights of the whole sample in a batch", "check_batches")
class WeightsOfTheSample(_Own):
    class session(GenericSession):
        def run(self, steps):
            if steps.rows is None or self._problem.row_weight is None:
                return super().run(steps)
            return super().run(replace(steps, row_weight=self._problem.row_weight[steps.rows]))


@fault("what an objective holds for each row, not taken by the batch's rows", "check_batches")
class InputsInOrder(_Own):
    class session(GenericSession):
        def _batch(self, steps, k):
            x, inputs = super()._batch(steps, k)
            rows, axes = np.arange(len(steps.rows[k])), self._problem.objective.row_axes
            return x, {**inputs, **self._backend.asarrays(take_rows(self._inputs, axes, rows))}


@fault("batches counted from where the session began", "check_batches_begin_anywhere")
class BatchesFromZero(_Own):
    class session(GenericSession):
        def __init__(self, backend, problem, state):
            super().__init__(backend, problem, state)
            self._begun = state.step

        def run(self, steps):
            if steps.rows is None:
                return super().run(steps)
            rows, weight = self._problem.rows(self._state.step - self._begun, steps.count)
            return super().run(replace(steps, rows=rows, row_weight=weight))


class _OwnUpdate(_Own):
    """A backend whose own session makes something else of a gradient."""

    class session(GenericSession):
        def limit(self, gradient):
            return clipped(gradient, self._problem.clip_norm)

        def _update(self, gradient, steps, k):
            kept = self._problem
            if kept.clip_norm is not None:
                gradient = self.limit(gradient)
            self._problem = replace(kept, clip_norm=None)
            super()._update(gradient, steps, k)
            self._problem = kept


@fault("each array clipped alone", "check_clipping")
class ClipsEachArray(_OwnUpdate):
    class session(_OwnUpdate.session):
        def limit(self, gradient):
            return {name: clipped({name: slope}, self._problem.clip_norm)[name] for name, slope in gradient.items()}


@fault("entries clipped in place of the length", "check_clipping")
class ClipsEntries(_OwnUpdate):
    class session(_OwnUpdate.session):
        def limit(self, gradient):
            return {name: np.clip(slope, -1.0, 1.0) for name, slope in gradient.items()}


@fault("every gradient scaled to the limit", "check_clipping")
class Normalises(_OwnUpdate):
    class session(_OwnUpdate.session):
        def limit(self, gradient):
            length = np.sqrt(sum(np.sum(slope**2) for slope in gradient.values()))
            return {name: slope * self._problem.clip_norm / length for name, slope in gradient.items()}


@fault("a limit kept from the problem before", "check_preparation_is_fresh_for_another_limit")
class KeptLimit(_OwnUpdate):
    class session(_OwnUpdate.session):
        limits = {}  # noqa: RUF012

        def limit(self, gradient):
            return clipped(gradient, self.limits.setdefault(self._backend, self._problem.clip_norm))


@fault("the average of the parameters before the update", "check_average")
class AveragesBefore(_Own):
    class session(GenericSession):
        def _update(self, gradient, steps, k):
            before = self._state
            super()._update(gradient, steps, k)
            if steps.average_decay is not None:
                average = averaged(before.average, before.params, float(steps.average_decay[k]))
                self._state = replace(self._state, average=average)


@fault("the decay of the first step for all", "check_average")
class OneDecay(_Own):
    class session(GenericSession):
        def run(self, steps):
            return super().run(replace(steps, average_decay=first_row(steps.average_decay)))


@fault("the decay on the wrong side", "check_average")
class DecayTurned(_Own):
    class session(GenericSession):
        def run(self, steps):
            return super().run(
                steps if steps.average_decay is None else replace(steps, average_decay=1.0 - steps.average_decay)
            )


@fault("the average left out of the state", "check_average")
class ForgetsAverage(AutogradBackend):
    def prepare(self, problem, state):
        session = super().prepare(problem, state)
        plain, begun = session.state, state.average
        session.state = lambda: replace(plain(), average=begun)
        return session


@fault("an average begun anew at the parameters", "check_average_goes_on")
class AverageAnew(AutogradBackend):
    def prepare(self, problem, state):
        return super().prepare(problem, replace(state, average=state.params) if state.average and state.step else state)


@fault("float32 in disguise", "check_dtype_is_real")
class Float32InDisguise(AutogradBackend):
    def value_and_grad(self, f, /):
        def narrowed(*args):
            value, gradient = AutogradBackend.value_and_grad(self, f)(*args)
            narrow = {name: np.asarray(slope, np.float32).astype(self.dtype) for name, slope in gradient.items()}
            return np.asarray(value, np.float32).astype(self.dtype), narrow

        return narrowed


@fault("float64 whatever was asked for", "check_round_trip")
class AlwaysFloat64(AutogradBackend):
    def asarray(self, array, /):
        return np.array(array, dtype=np.float64)


@fault("array shares its source's memory", "check_asarray_copies")
class Aliased(AutogradBackend):
    def asarray(self, array, /):
        return np.asarray(array, dtype=self.dtype)


@fault("inputs mutated", "check_training_leaves_inputs")
class CentresInPlace(AutogradBackend):
    def prepare(self, problem, state):
        problem.x[:] += 1e-3
        return super().prepare(problem, state)


@fault("the state returned is the live one", "check_state_is_a_copy")
class LiveState(_Own):
    class session(GenericSession):
        def run(self, steps):
            before = self._state
            losses = super().run(steps)
            for part in ("params", "first_moment", "second_moment"):
                for name, array in getattr(before, part).items():
                    array[...] = getattr(self._state, part)[name]
            self._state = replace(before, step=self._state.step)
            return losses

        def state(self):
            return self._state


@fault("NumPy's error state leaked", "check_first_use_leaves_global_state")
class LeaksErrorState(AutogradBackend):
    def scope(self):
        np.seterr(over="ignore")
        return super().scope()


@fault("the global random generator used", "check_global_state_is_left")
class DrawsGlobally(AutogradBackend):
    def prepare(self, problem, state):
        random.random()  # noqa: S311
        return super().prepare(problem, state)


@fault("an environment variable set", "check_global_state_is_left")
class SetsEnvironment(AutogradBackend):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        os.environ["ISMCORE_WRONG_BACKEND"] = str(random.getrandbits(64))


@fault("torch's default dtype leaked", "check_global_state_is_left")
class LeaksTorchDtype(AutogradBackend):
    def prepare(self, problem, state):
        import torch

        torch.set_default_dtype(torch.float32 if torch.get_default_dtype() == torch.float64 else torch.float64)
        return super().prepare(problem, state)


@fault("JAX's 64-bit switch leaked", "check_global_state_is_left")
class LeaksX64(AutogradBackend):
    def prepare(self, problem, state):
        import jax

        jax.config.update("jax_enable_x64", not jax.config.jax_enable_x64)
        return super().prepare(problem, state)


@fault("a scope that does not restore after an error", "check_scope_restores")
class ScopeWithoutFinally(AutogradBackend):
    def scope(self):
        class Scope:
            def __enter__(self):
                self.found = np.seterr(all="ignore")

            def __exit__(self, kind, *_):
                if kind is None:
                    np.seterr(**self.found)

        return Scope()


@fault("rows coupled", "check_rows_are_independent")
class RowsCoupled(AutogradBackend):
    def jacobian_diagonal(self, f, x, /):
        psi, diagonal = super().jacobian_diagonal(f, x)
        return psi, diagonal + 0.1 * (diagonal - anp.sum(diagonal, axis=0) / x.shape[0])


@fault("a stale compiled function", "check_preparation_is_fresh")
class StaleProgram(_Own):
    class session(GenericSession):
        programs = {}  # noqa: RUF012

        def __init__(self, backend, problem, state):
            super().__init__(backend, problem, state)
            key = (backend.dtype, tuple((name, np.shape(value)) for name, value in state.params.items()))
            kept = self.programs.setdefault(key, (self._loss_and_gradient, self._problem, self._all))
            self._loss_and_gradient, self._problem, self._all = kept


@fault("a program compiled for another model of equal shapes", "check_preparation_is_fresh_for_another_model")
class ProgramByShape(_Own):
    class session(GenericSession):
        programs = {}  # noqa: RUF012

        def __init__(self, backend, problem, state):
            super().__init__(backend, problem, state)
            key = (backend, problem.objective, tuple((name, np.shape(value)) for name, value in state.params.items()))
            self._loss_and_gradient = self.programs.setdefault(key, self._loss_and_gradient)


@fault("state kept on the class", "check_sessions_interleave")
class StateOnTheClass(_Own):
    class session(GenericSession):
        def __init__(self, backend, problem, state):
            super().__init__(backend, problem, state)
            type(self).params = self._state

        def run(self, steps):
            self._state = type(self).params
            losses = super().run(steps)
            type(self).params = self._state
            return losses


@fault("results that vary from call to call", "check_evaluation_is_deterministic")
class Jitters(AutogradBackend):
    calls = 0

    def to_numpy(self, array, /):
        type(self).calls += 1
        return np.array(array) * np.asarray(1.0 + 2.0**-52 * (self.calls % 3), dtype=self.dtype)


@fault("training that varies from run to run", "check_training_is_deterministic")
class TrainsDifferently(_Own):
    class session(GenericSession):
        runs = 0

        def run(self, steps):
            type(self).runs += 1
            return super().run(replace(steps, learning_rate=steps.learning_rate * (1.0 + 2.0**-50 * self.runs)))


@fault("softplus linear above a threshold", "check_op_value")
class LinearSoftplus(AutogradBackend):
    class Ops(AutogradOps):
        @staticmethod
        def logaddexp(x1, x2):
            return AutogradOps.where(x1 - x2 > 20.0, x1 + 0.0 * x2, AutogradOps.logaddexp(x1, x2))

    ops = Ops()


@fault("tanh whose derivative overflows", "check_op_second_derivative")
class OverflowingTanh(AutogradBackend):
    class Ops(AutogradOps):
        tanh = staticmethod(anp.tanh)

    ops = Ops()


@fault("mean over the wrong axis", "check_layout")
class WrongAxis(AutogradBackend):
    class Ops(AutogradOps):
        @staticmethod
        def sum(x, /, *, axis=None):
            return anp.sum(x) if axis is None else anp.sum(x, axis=1 - axis if anp.ndim(x) == 2 else axis)

    ops = Ops()


@fault("an unknown dtype becomes the default", "check_unknown_dtype_is_refused")
class DefaultDtype(AutogradBackend):
    def __init__(self, dtype="float64", device="auto", precision="highest"):
        super().__init__(dtype if dtype in self.dtypes else "float64", device, precision)


@fault("an unknown device becomes the default", "check_unknown_device_is_refused")
class DefaultDevice(AutogradBackend):
    def _resolve(self, device):
        return "cpu"


@fault("a fast loop with an optimiser of its own", "check_tiers_agree")
class OtherFastLoop(AutogradBackend):
    def prepare(self, problem, state):
        faster = replace(problem.optimizer, **({"b1": 0.9} if isinstance(problem.optimizer, Adam) else {"momentum": 0.9}))
        return super().prepare(problem if problem.compile == "off" else replace(problem, optimizer=faster), state)


@fault("no product declared", "check_products_nest_in_themselves")
class NoProducts(AutogradBackend):
    from ismcore.calculus import Calculus

    jvp, vjp = Calculus.jvp, Calculus.vjp

"""The faults of a trial with frameworks unknown to the kit, all of which it once let pass."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
from ismcore_autograd.backend import AutogradBackend

from ismcore import MLP
from ismcore.backend import GenericSession
from planted.derivatives import with_gradient
from planted.faults import Table, fault, session_fault, tape_fault

TRIAL: Table = {}


@tape_fault(TRIAL, "check_layout")
def broadcast_square(tape):
    """broadcast_to (k,) -> (k, k): the gradient is summed over the wrong axis."""
    right = tape.broadcast_to

    def broadcast_to(x, shape):
        if len(x.shape) == 1 and len(shape) == 2 and shape[0] == shape[1]:
            return tape.record(lambda x: np.broadcast_to(x, shape), lambda g, y, x: tape.total(g, axis=1))(x)
        return right(x, shape)

    tape.broadcast_to = broadcast_to


@tape_fault(TRIAL, "check_op_derivative")
def tanh_slope_at_zero(tape):
    """The derivative of tanh is 0 at exactly 0."""
    tape.tanh = tape.record(np.tanh, lambda g, y, x: g * np.where(x.value == 0, 0.0, 1.0) * (1.0 - y * y))


@tape_fault(TRIAL, "check_op_derivative")
def abs_slope_at_zero(tape):
    """The derivative of abs is 1 at exactly 0."""
    tape.absolute = tape.record(np.abs, lambda g, y, x: g * np.where(x.value < 0, -1.0, 1.0))


@tape_fault(TRIAL, "check_axes_from_the_end")
def sum_of_last_axis(tape):
    """sum(axis=-1) of a three-dimensional array sums axis 1."""
    right = tape.total
    tape.total = lambda x, *, axis=None: right(x, axis=1 if axis == -1 and len(x.shape) == 3 else axis)


@fault(TRIAL, "check_two_hundred_calls")
def leak():
    """Every gradient is kept for ever."""
    kept: ClassVar = []
    return with_gradient(lambda g, params: (kept.append((g, np.zeros(100_000))), g)[1])


@fault(TRIAL, "check_gradient_by_each_product")
def vjp_of_one_row():
    """vjp raises for one row, in a backend that declares jvp too."""

    def vjp(self, f, x):
        if x.shape[0] == 1:
            raise ValueError("one row")
        return AutogradBackend.vjp(self, f, x)

    return type("Planted", (AutogradBackend,), {"vjp": vjp})


@fault(TRIAL, "check_many_rows")
def many_rows_gradient():
    """The gradient is off by 1 % where the samples have more than 4096 rows."""

    def value_and_grad(self, f):
        both = AutogradBackend.value_and_grad(self, f)

        def changed(params, *args):
            value, gradient = both(params, *args)
            long = bool(args) and not isinstance(args[0], dict) and np.shape(args[0])[:1] > (4096,)
            return value, {k: g * 1.01 for k, g in gradient.items()} if long else gradient

        return changed

    return type("Planted", (AutogradBackend,), {"value_and_grad": value_and_grad})


@tape_fault(TRIAL, "check_op_value")
def erf_saturates(tape):
    """erf is +-1 beyond 3.2, off by 6e-6."""
    right = tape.erf
    tape.erf = lambda x: tape.where(abs(x.value) > 3.2, tape.Tensor(np.sign(x.value)), right(x))


@tape_fault(TRIAL, "check_op_value")
def exp_in_the_middle(tape):
    """exp is off by 1e-3, relative, between 4 and 29."""
    right = tape.exp
    tape.exp = lambda x: tape.where((x.value > 4) & (x.value < 29), right(x) * 1.001, right(x))


@tape_fault(TRIAL, "check_op_value")
def log_of_the_smallest(tape):
    """log is off by 1e-4 below 1e-3."""
    right = tape.log
    tape.log = lambda x: tape.where(x.value < 1e-3, right(x) + 1e-4, right(x))


@fault(TRIAL, "check_two_hundred_calls")
def hundredth_call():
    """The 100th call of one value_and_grad gives the gradient of the first, off by a digit."""

    def value_and_grad(self, f):
        both, calls = AutogradBackend.value_and_grad(self, f), []

        def changed(params, *args):
            value, gradient = both(params, *args)
            calls.append({k: g * (1 + 1e-12) for k, g in gradient.items()} if not calls else None)
            return value, calls[0] if len(calls) == 100 else gradient

        return changed

    return type("Planted", (AutogradBackend,), {"value_and_grad": value_and_grad})


@tape_fault(TRIAL, "check_layout")
def inverse_permutation(tape):
    """permute_dims by the inverse permutation: differs for cycles of three."""
    right = tape.permute_dims
    tape.permute_dims = lambda x, axes: right(x, tuple(int(i) for i in np.argsort(axes)))


@tape_fault(TRIAL, "check_where_keeps_the_other_branch_out")
def where_by_arithmetic(tape):
    """where as c a + (1 - c) b: a NaN or infinity of the branch not taken comes through."""

    def where(condition, a, b):
        c = tape.Tensor(np.asarray(condition, dtype=float))
        return c * a + (1.0 - c) * b

    tape.where = where


@fault(TRIAL, "check_value_and_grad")
def three_dimensional_parameter():
    """The gradient in a parameter of three dimensions is transposed where it can be."""

    def turn(g):
        return g.transpose(0, 2, 1) if g.ndim == 3 and g.shape[1] == g.shape[2] else g

    return with_gradient(lambda g, params: {k: turn(v) for k, v in g.items()})


@fault(TRIAL, "check_value_and_grad")
def sorted_keys():
    """The gradient comes back in the order of sorted names, under the names in the order of the parameters."""

    def change(g, params):
        values = [g[k] for k in sorted(g)]
        alike = {np.shape(v) for v in values} == {np.shape(values[0])}
        by_shape = {}
        for name in sorted(g):
            by_shape.setdefault(np.shape(g[name]), []).append(g[name])
        return dict(zip(g, values, strict=True)) if alike else {k: by_shape[np.shape(v)].pop(0) for k, v in g.items()}

    return with_gradient(change)


@tape_fault(TRIAL, "check_op_third_derivative")
def third_derivative_of_sqrt(tape):
    """The third derivative of sqrt is 0."""

    def curvature(h, y, x):
        return h * tape.Tensor(-0.25 / (np.sqrt(x.value) * x.value))

    slope = tape.record(lambda x: 0.5 / np.sqrt(x), curvature)
    tape.sqrt = tape.record(np.sqrt, lambda g, y, x: g * slope(x))


@tape_fault(TRIAL, "check_many_rows")
def large_sum(tape):
    """The sum of more than 4096 numbers leaves out the last."""
    right = tape.total
    tape.total = lambda x, *, axis=None: right(x[: x.shape[0] - 1] if axis is None and x.shape[:1] > (4096,) else x, axis=axis)


@fault(TRIAL, "check_asarray_copies")
def large_argument_changed():
    """asarray writes to its argument where that has more than 50 rows."""

    def asarray(self, array):
        if isinstance(array, np.ndarray) and array.ndim and len(array) > 50 and array.flags.writeable:
            array[0] = 0.0
        return AutogradBackend.asarray(self, array)

    return type("Planted", (AutogradBackend,), {"asarray": asarray})


@fault(TRIAL, "check_large_sessions")
def gradient_of_wide_layers():
    """The gradient of a parameter of at least 64 rows is halved, in the closed formulas too."""

    def loss_and_gradient(self, loss):
        right = AutogradBackend.loss_and_gradient(self, loss)

        def halved(params, x, inputs):
            value, gradient = right(params, x, inputs)
            return value, {k: g * 0.5 if np.ndim(g) and len(g) >= 64 else g for k, g in gradient.items()}

        return halved

    return type("Planted", (AutogradBackend,), {"loss_and_gradient": loss_and_gradient})


@session_fault(TRIAL, "check_three_hundred_steps")
class LastStepOfLongChunk(GenericSession):
    """The last step of a chunk of more than 64 is not applied."""

    def run(self, steps):
        if steps.count <= 64:
            return super().run(steps)
        first = super().run(steps.part(0, steps.count - 1))
        kept = self._state
        last = super().run(steps.part(steps.count - 1, steps.count))
        self._state = replace(kept, step=kept.step + 1)
        return np.concatenate([first, last])


@session_fault(TRIAL, "check_three_hundred_steps")
class RateOfLongChunks(GenericSession):
    """In a chunk of more than 32 steps, all have the rate of the first."""

    def run(self, steps):
        if steps.count > 32:
            steps = replace(steps, learning_rate=np.full_like(steps.learning_rate, steps.learning_rate[0]))
        return super().run(steps)


@session_fault(TRIAL, "check_overflow_is_seen")
class NotFiniteHidden(GenericSession):
    """Losses that are not finite are returned as 0: the core cannot see a fit diverge."""

    def run(self, steps):
        losses = super().run(steps)
        return np.where(np.isfinite(losses), losses, 0.0)


@session_fault(TRIAL, "check_preparation_is_fresh")
class SamplesCached(GenericSession):
    """Samples are cached by shape and sum."""

    cache: ClassVar = {}

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        self._x = self.cache.setdefault((self._x.shape, round(float(self._x.sum()), 3)), self._x)
        if self._all:
            self._all = (backend.asarray(self._x), self._all[1])


@session_fault(TRIAL, "check_large_sessions")
class OneCurvatureWeight(GenericSession):
    """Curvature weights by column are replaced by their mean."""

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        weight = self._inputs.get("curvature_weight")
        if weight is not None and np.ndim(weight) == 1:
            self._inputs["curvature_weight"] = np.full_like(weight, weight.mean())
            if self._all:
                self._all = (self._all[0], backend.asarrays(self._inputs))


@session_fault(TRIAL, "check_weighted_batches")
class UnpenalisedRowsAlike(GenericSession):
    """Row weights are ignored for an unpenalised MLP: what a default fit is."""

    def run(self, steps):
        plain = isinstance(self._problem.model, MLP) and "curvature_weight" not in self._problem.inputs()
        if plain and steps.row_weight is not None:
            steps = replace(steps, row_weight=np.full_like(steps.row_weight, 1.0 / steps.row_weight.shape[1]))
        return super().run(steps)


@session_fault(TRIAL, "check_large_sessions")
class FirstRowsOnly(GenericSession):
    """Only the first 1024 rows are trained on."""

    def __init__(self, backend, problem, state):
        super().__init__(backend, problem, state)
        if self._all and len(self._x) > 1024:
            inputs = {k: v[:1024] if k == "row_weight" else v for k, v in self._inputs.items()}
            self._all = (backend.asarray(self._x[:1024]), backend.asarrays(inputs))


@session_fault(TRIAL, "check_a_run_goes_on_after_a_thousand_steps")
class BiasFromAThousand(GenericSession):
    """From step 1000 on, Adam corrects by the step before."""

    def _update(self, gradient, steps, k):
        step = self._state.step
        if step >= 1000:
            self._state = replace(self._state, step=step - 1)
        super()._update(gradient, steps, k)
        self._state = replace(self._state, step=step + 1)


@session_fault(TRIAL, "check_two_hundred_chunks")
class ChunksKept(GenericSession):
    """What each chunk returned is kept for ever."""

    kept: ClassVar = []

    def run(self, steps):
        losses = super().run(steps)
        self.kept.append((losses, self._state))
        return losses


@session_fault(TRIAL, "check_interrupts_pass")
class InterruptsSwallowed(GenericSession):
    """An interrupt in a step ends the chunk, and is not passed on."""

    def run(self, steps):
        try:
            return super().run(steps)
        except KeyboardInterrupt:
            return np.zeros(steps.count)

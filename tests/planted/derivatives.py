"""Faults of derivatives, arrays and programs, planted in a tape's backend or in HIPS-autograd's."""

import numpy as np
from ismcore_autograd.backend import AutogradBackend

from ismcore.calculus import Calculus
from planted.faults import Table, fault, tape_backend

OWN: Table = {}
"""Written down before the checks were read again."""


def with_gradient(change):
    """HIPS-autograd whose value_and_grad passes gradient and arguments through a function."""

    def value_and_grad(self, f):
        both = AutogradBackend.value_and_grad(self, f)

        def changed(params, *args):
            value, gradient = both(params, *args)
            return value, change(gradient, params)

        return changed

    return type("Planted", (AutogradBackend,), {"value_and_grad": value_and_grad})


@fault(OWN, "check_value_and_grad")
def scalar_parameter():
    """The gradient of a parameter without axes has the shape (1,)."""
    return with_gradient(lambda g, params: {k: np.reshape(v, (1,)) if np.ndim(v) == 0 else v for k, v in g.items()})


@fault(OWN, "check_value_and_grad")
def parameters_at_zero():
    """The gradient is 0 where a parameter is exactly 0, as biases are at the start."""
    return with_gradient(lambda g, params: {k: np.where(params[k] == 0, 0.0, v) for k, v in g.items()})


@fault(OWN, "check_gradients_stay")
def gradients_in_one_memory():
    """The gradient comes in the memory of the one before, which is overwritten."""
    memory = {}

    def put(g):
        for k, v in g.items():
            memory.setdefault((k, np.shape(v)), np.empty(np.shape(v)))[...] = v
        return {k: memory[k, np.shape(v)] for k, v in g.items()}

    return with_gradient(lambda g, params: put(g) if all(type(v) is np.ndarray for v in g.values()) else g)


@fault(OWN, "check_gradient_that_is_not_finite")
def gradient_cut_at_a_hundred():
    """Numbers of the gradient are cut at +-100."""
    return with_gradient(lambda g, params: {k: np.clip(v, -100, 100) for k, v in g.items()})


@fault(OWN, "check_gradient_that_is_not_finite")
def not_finite_made_zero():
    """Numbers of the gradient that are not finite are made 0."""
    return with_gradient(lambda g, params: {k: np.nan_to_num(v, nan=0, posinf=0, neginf=0) for k, v in g.items()})


@fault(OWN, "check_value_and_grad")
def large_parameters():
    """Of a parameter of more than 4096 numbers, the rest have the gradient 0."""

    def cut(v):
        return np.where(np.arange(v.size).reshape(v.shape) < 4096, v, 0.0) if v.size > 4096 else v

    return with_gradient(lambda g, params: {k: cut(v) for k, v in g.items()})


@fault(OWN, "check_gradient")
def last_parameter_of_many():
    """With more than six parameters, the last has the gradient of the one before where shapes allow."""

    def change(g, params):
        names = list(g)
        if len(names) > 6 and np.shape(g[names[-1]]) == np.shape(g[names[-3]]):
            g = {**g, names[-1]: g[names[-3]]}
        return g

    return with_gradient(change)


@fault(OWN, "check_functions_of_one_name")
def program_by_the_name_of_its_function():
    """Gradients are cached by the arguments' values for functions of one name: another loss gets the first's."""

    def value_and_grad(self, f):
        both = AutogradBackend.value_and_grad(self, f)
        name = getattr(f, "__qualname__", repr(type(f)))

        def cached(params, *args):
            key = (name, *(np.asarray(v).tobytes() for v in params.values()))
            if key not in self.__dict__.setdefault("programs", {}):
                self.programs[key] = both(params, *args)
            return self.programs[key]

        return cached

    return type("Planted", (AutogradBackend,), {"value_and_grad": value_and_grad})


@fault(OWN, "check_value_and_grad")
def parameters_changed_by_a_call():
    """value_and_grad puts the parameters in another order: sorted, in the caller's own dict."""

    def value_and_grad(self, f):
        both = AutogradBackend.value_and_grad(self, f)

        def sorting(params, *args):
            found = both(params, *args)
            for name in sorted(params):
                params[name] = params.pop(name)
            return found

        return sorting

    return type("Planted", (AutogradBackend,), {"value_and_grad": value_and_grad})


@fault(OWN, "check_round_trip")
def reversed_arrays():
    """asarray reads an array of negative strides from its start."""

    def asarray(self, array):
        array = np.asarray(array)
        if array.ndim and array.strides[0] < 0:
            array = array[::-1]
        return np.array(array, dtype=self.dtype)

    return type("Planted", (AutogradBackend,), {"asarray": asarray})


@fault(OWN, "check_round_trip")
def integers_are_kept():
    """asarray keeps integers as they are."""

    def asarray(self, array):
        array = np.asarray(array)
        return np.array(array, dtype=array.dtype if array.dtype.kind == "i" else self.dtype)

    return type("Planted", (AutogradBackend,), {"asarray": asarray})


@fault(OWN, "check_what_is_not_finite_goes_through")
def infinities_are_cut():
    """asarray replaces infinities by the largest number."""

    def asarray(self, array):
        return np.nan_to_num(np.array(array, dtype=self.dtype), nan=np.nan)

    return type("Planted", (AutogradBackend,), {"asarray": asarray})


@fault(OWN, "check_gradient")
def score_beside_the_diagonal_is_constant():
    """An own jacobian_diagonal whose score, the first of the two, has no gradient in the parameters."""
    base = tape_backend()

    def jacobian_diagonal(self, f, x):
        psi, diagonal = Calculus.jacobian_diagonal(self, f, x)
        return self.asarray(self.to_numpy(psi)), diagonal

    return type("Planted", (base,), {"jacobian_diagonal": jacobian_diagonal})


@fault(OWN, "check_jacobian_diagonal")
def column_sums_for_a_diagonal():
    """An own jacobian_diagonal that gives the column sums of the Jacobian, which are the diagonal of a decoupled score."""

    def jacobian_diagonal(self, f, x):
        psi, pull = self.vjp(f, x)
        return psi, pull(self.ones(psi))

    return type("Planted", (AutogradBackend,), {"jacobian_diagonal": jacobian_diagonal})


@fault(OWN, "check_row_blocks")
def blocks_of_rows_averaged():
    """An own sum_over_rows that takes the last block, which is shorter, as long as the others."""

    def sum_over_rows(self, f, rows, size):
        n = next(iter(rows.values())).shape[0]
        if n <= size:
            return Calculus.sum_over_rows(self, f, rows, size)
        starts = [min(start, n - size) for start in range(0, n, size)]  # the last block overlaps the one before
        parts = [f({k: v[start : start + size] for k, v in rows.items()}) for start in starts]
        return {k: sum(part[k] for part in parts) for k in parts[0]}

    return type("Planted", (AutogradBackend,), {"sum_over_rows": sum_over_rows, "plain": property(lambda self: self)})


@fault(OWN, "check_programs_take_their_parameters")
def compiled_with_its_parameters():
    """compiled(f) keeps the first parameters that it sees as constants, as a trace that closes over them does."""

    def compiled(self, f):
        kept = []

        def program(params, *args):
            kept[:] = kept or [params]
            return f(kept[0], *args)

        return program

    return type("Planted", (AutogradBackend,), {"compiled": compiled})


@fault(OWN, "check_held_out_loss")
def validation_without_weights():
    """An own loss(), the validation loss, which leaves the row weights out."""

    def loss(self, loss):
        right = AutogradBackend.loss(self, loss)

        def drop(inputs):
            return {k: v for k, v in inputs.items() if k != "row_weight"}

        return lambda params, x, inputs: right(params, x, drop(inputs))

    return type("Planted", (AutogradBackend,), {"loss": loss})


@fault(OWN, "check_batches")
def context_of_the_first_row():
    """Where the score is conditional, every row has the context of the first."""

    def loss_and_gradient(self, loss):
        right = AutogradBackend.loss_and_gradient(self, loss)

        def changed(params, x, inputs):
            context = inputs.get("context")
            if context is not None:
                inputs = {**inputs, "context": np.broadcast_to(context[:1], context.shape)}
            return right(params, x, inputs)

        return changed

    return type("Planted", (AutogradBackend,), {"loss_and_gradient": loss_and_gradient})


@fault(OWN, "check_products_nest_in_themselves")
def tangents_mixed_up():
    """jvp inside of jvp uses the inner tangent twice: perturbation confusion."""
    depth = []

    def jvp(self, f, x, v):
        if depth:
            v = depth[-1]
        depth.append(v)
        try:
            return AutogradBackend.jvp(self, f, x, v)
        finally:
            depth.pop()

    return type("Planted", (AutogradBackend,), {"jvp": jvp})


@fault(OWN, "check_vjp")
def pullback_of_large_cotangents():
    """The pullback scales a cotangent longer than 1e3 down to that."""

    def vjp(self, f, x):
        psi, pull = AutogradBackend.vjp(self, f, x)

        def scaled(v):
            largest = np.max(np.abs(getattr(v, "_value", v)))
            while hasattr(largest, "_value"):
                largest = largest._value
            return pull(v * (1e3 / largest)) if largest > 1e3 else pull(v)

        return psi, scaled

    return type("Planted", (AutogradBackend,), {"vjp": vjp})


@fault(OWN, "check_gradient_of_energies")
def pullback_of_energies():
    """vjp of u, (n,), with n == d: the rows of the cotangent meet the columns of the Jacobian."""

    def vjp(self, f, x):
        psi, pull = AutogradBackend.vjp(self, f, x)
        turned = len(psi.shape) == 1 and x.shape[0] == x.shape[1] > 1
        if not turned:
            return psi, pull
        ones = self.ones(psi)
        return psi, lambda v: pull(ones) * v  # v (d,) along the columns

    return type("Planted", (AutogradBackend,), {"vjp": vjp})


@fault(OWN, "check_cost_of_derivatives")
def product_by_differences():
    """vjp by central differences of the function: right to 1e-8, and it costs 2 d calls."""

    def vjp(self, f, x):
        psi, step = f(x), 1e-5

        def pull(v):
            scalar = len(psi.shape) == 1
            columns = []
            for unit in self.units(x):
                change = (f(x + step * unit) - f(x - step * unit)) * (0.5 / step)
                columns.append(change * v if scalar else self.ops.sum(change * v, axis=1))
            return self.ops.stack(columns, axis=1)

        return psi, pull

    return type("Planted", (AutogradBackend,), {"vjp": vjp, "jvp": Calculus.jvp})


@fault(OWN, "check_cost_of_derivatives")
def gradient_evaluates_again_and_again():
    """value_and_grad evaluates its function five times."""

    def value_and_grad(self, f):
        both = AutogradBackend.value_and_grad(self, f)

        def slow(params, *args):
            for _ in range(4):
                f(params, *args)
            return both(params, *args)

        return slow

    return type("Planted", (AutogradBackend,), {"value_and_grad": value_and_grad})


@fault(OWN, "check_cost_of_derivatives")
def one_function_call_a_product():
    """Each pullback of vjp evaluates the function ten times more."""

    def vjp(self, f, x):
        psi, pull = AutogradBackend.vjp(self, f, x)

        def slow(v):
            for _ in range(10):
                f(x)
            return pull(v)

        return psi, slow

    return type("Planted", (AutogradBackend,), {"vjp": vjp})

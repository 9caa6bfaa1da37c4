"""Faults of single operations, planted in a tape."""

import math

import numpy as np

from planted.faults import Table, tape_fault

OWN: Table = {}
"""Written down before the checks were read again."""


def wrap(tape, array):
    return tape.Tensor(array)


@tape_fault(OWN, "check_op_value")
def log_of_small_numbers(tape):
    """log loses digits below 1e-2: 1e-6 relative, as a table of the mantissa does."""
    log = tape.log
    tape.log = lambda x: tape.where(x.value < 1e-2, log(x) * (1.0 + 1e-6), log(x))


@tape_fault(OWN, "check_op_value")
def log_kept_from_zero(tape):
    """log of max(x, 1e-8), which keeps it finite at 0."""
    log = tape.log
    tape.log = lambda x: tape.where(x.value < 1e-8, wrap(tape, np.full_like(x.value, np.log(1e-8))), log(x))


@tape_fault(OWN, "check_op_value")
def sqrt_kept_from_zero(tape):
    """sqrt(x + 1e-8), which keeps its slope finite at 0."""
    sqrt = tape.sqrt
    tape.sqrt = lambda x: sqrt(x + 1e-8)


@tape_fault(OWN, "check_op_value")
def abs_smoothed(tape):
    """abs as sqrt(x^2 + 1e-12)."""
    tape.absolute = lambda x: tape.sqrt(x * x + 1e-12)


@tape_fault(OWN, "check_op_value")
def sine_beyond_ten(tape):
    """sin and cos are off by 1e-7 beyond 10: the argument is reduced with too few digits of pi."""
    sin, cos = tape.sin, tape.cos
    tape.sin = lambda x: tape.where(abs(x.value) > 10, sin(x * (1 + 1e-8)), sin(x))
    tape.cos = lambda x: tape.where(abs(x.value) > 10, cos(x * (1 + 1e-8)), cos(x))


@tape_fault(OWN, "check_op_second_derivative")
def second_slope_of_cosine(tape):
    """The second derivative of cos has the wrong sign for negative arguments."""
    right = tape.sin
    turned = tape.record(np.sin, lambda g, y, x: g * tape.cos(x) * np.where(x.value < 0, -1.0, 1.0))
    tape.cos = tape.record(np.cos, lambda g, y, x: -g * turned(x))
    tape.sin = right


@tape_fault(OWN, "check_op_value")
def tanh_in_the_middle(tape):
    """tanh is off by 1e-7 between 1 and 3, as a rational approximation is."""
    tanh = tape.tanh
    tape.tanh = lambda x: tape.where((abs(x.value) > 1) & (abs(x.value) < 3), tanh(x) * (1 - 1e-7), tanh(x))


@tape_fault(OWN, "check_op_third_derivative")
def third_derivative_of_tanh(tape):
    """The third derivative of tanh misses a term: y in the second is a constant."""

    def slope_of_slope(g, y, x):
        z = tape.tanh(x)
        return g * (-2.0 * wrap(tape, z.value) * (1.0 - z * z))

    slope = tape.record(lambda x: 1.0 - np.tanh(x) ** 2, slope_of_slope)
    tape.tanh = tape.record(np.tanh, lambda g, y, x: g * slope(x))


@tape_fault(OWN, "check_op_derivative")
def erf_flat_beyond_three(tape):
    """The derivative of erf is 0 beyond 3; it is 1e-4 there."""
    erf = tape.erf
    tape.erf = lambda x: tape.where(abs(x.value) > 3, wrap(tape, erf(x).value), erf(x))


@tape_fault(OWN, "check_op_second_derivative")
def sigmoid_curved_the_wrong_way(tape):
    """The second derivative of sigmoid has the wrong sign for negative arguments."""

    def curvature(g, y, x):
        s = tape.sigmoid(x)
        return g * s * (1.0 - s) * (1.0 - 2.0 * s) * np.where(x.value < 0, -1.0, 1.0)

    def slope(g, y, x):
        first = tape.record(lambda x: 0.25 / np.cosh(0.5 * np.clip(x, -700, 700)) ** 2, curvature)
        return g * first(x)

    tape.sigmoid = tape.record(lambda x: 0.5 + 0.5 * np.tanh(0.5 * x), slope)


@tape_fault(OWN, "check_op_derivative")
def logaddexp_of_a_number_first(tape):
    """logaddexp(number, array) has the slope of the number."""
    right = tape.logaddexp

    def logaddexp(a, b):
        if not isinstance(a, tape.Tensor):
            return tape.record(lambda b: np.logaddexp(a, b), lambda g, y, b: g * tape.exp(a - y))(b)
        return right(a, b)

    tape.logaddexp = logaddexp


@tape_fault(OWN, "check_op_derivative")
def logaddexp_of_itself(tape):
    """logaddexp(a, a), of one array twice, has half the slope."""
    right = tape.logaddexp
    tape.logaddexp = lambda a, b: right(a, wrap(tape, b.value)) if a is b else right(a, b)


@tape_fault(OWN, "check_broadcasting")
def logaddexp_does_not_broadcast_back(tape):
    """logaddexp of (n, d) and (d,): the cotangent of the second is its mean over the rows, not its sum."""
    right = tape.logaddexp

    def logaddexp(a, b):
        if isinstance(a, tape.Tensor) and isinstance(b, tape.Tensor) and len(a.shape) > len(b.shape):
            n = a.shape[0]
            b = tape.record(lambda x: x, lambda g, y, x: g / n)(b)
        return right(a, b)

    tape.logaddexp = logaddexp


@tape_fault(OWN, "check_op_derivative")
def where_of_a_number_is_not_masked(tape):
    """where(c, x, number): the cotangent of x is not masked."""
    right = tape.where

    def where(condition, a, b):
        if isinstance(a, tape.Tensor) and not isinstance(b, tape.Tensor) and np.ndim(b) == 0 and b != 0.0:
            return tape.record(lambda a: np.where(condition, a, b), lambda g, y, a: g)(a)
        return right(condition, a, b)

    tape.where = where


@tape_fault(OWN, "check_broadcasting")
def where_does_not_broadcast_its_condition(tape):
    """where with a condition (n, 1): only the first column is chosen by it."""
    right = tape.where

    def where(condition, a, b):
        shape = np.shape(condition)
        if len(shape) == 2 and shape[1] == 1:
            wide = np.broadcast_shapes(shape, np.shape(getattr(a, "value", a)), np.shape(getattr(b, "value", b)))
            condition = np.broadcast_to(condition, wide).copy()
            condition[:, 1:] = True
        return right(condition, a, b)

    tape.where = where


@tape_fault(OWN, "check_layout")
def sum_of_the_middle_axis(tape):
    """sum(axis=1) of a three-dimensional array sums the last axis where both are as long."""
    right = tape.total

    def cube(x, axis):
        return axis == 1 and len(x.shape) == 3 and x.shape[1] == x.shape[2]

    tape.total = lambda x, *, axis=None: right(x, axis=2 if cube(x, axis) else axis)


@tape_fault(OWN, "check_layout")
def sum_of_a_transposed_array(tape):
    """sum(axis=0) of an array that is not contiguous reads it as if it were."""
    right = tape.total

    def total(x, *, axis=None):
        v = x.value
        if axis == 0 and v.ndim == 2 and not v.flags.c_contiguous:
            flat = np.lib.stride_tricks.as_strided(v.T, shape=v.shape) if v.T.flags.c_contiguous else v
            return tape.record(lambda x: np.sum(flat, axis=0), lambda g, y, x: tape.broadcast_to(g, x.shape))(x)
        return right(x, axis=axis)

    tape.total = total


@tape_fault(OWN, "check_layout")
def stack_along_the_last_axis(tape):
    """stack(axis=2) of matrices stacks along axis 1 where the shapes allow."""
    right = tape.stack

    def stack(arrays, *, axis=0):
        alike = axis == 2 and len(arrays) == arrays[0].shape[1]
        return right(arrays, axis=1 if alike else axis)

    tape.stack = stack


@tape_fault(OWN, "check_layout")
def concat_of_equal_parts(tape):
    """concat(axis=1) of parts of equal width gives the cotangents back in reverse."""
    right = tape.concat

    def concat(arrays, *, axis=0):
        if axis == 1 and len({a.shape for a in arrays}) == 1:
            width = arrays[0].shape[1]

            def part(k):
                return lambda g, y, *xs: tape.take(g, (slice(None), slice(k * width, (k + 1) * width)))

            pulls = [part(k) for k in reversed(range(len(arrays)))]
            return tape.record(lambda *xs: np.concatenate(xs, axis=1), *pulls)(*arrays)
        return right(arrays, axis=axis)

    tape.concat = concat


@tape_fault(OWN, "check_layout")
def concat_of_three(tape):
    """concat of more than two arrays: the third has the gradient 0."""
    right = tape.concat
    tape.concat = lambda arrays, *, axis=0: right([*arrays[:2], *(wrap(tape, a.value) for a in arrays[2:])], axis=axis)


@tape_fault(OWN, "check_layout")
def reshape_by_columns(tape):
    """The cotangent of a reshape between two and three dimensions is reshaped column by column."""
    right = tape.reshape

    def reshape(x, shape):
        if {len(x.shape), len(shape)} == {2, 3}:

            def turned(g, y, x):
                return tape.record(lambda g: np.reshape(g, x.shape, order="F"), lambda h, y, g: h)(g)

            return tape.record(lambda x: np.reshape(x, shape), turned)(x)
        return right(x, shape)

    tape.reshape = reshape


@tape_fault(OWN, "check_layout")
def broadcast_of_a_middle_axis(tape):
    """broadcast_to (n, 1, k) -> (n, m, k): the cotangent of the first of the m is taken for their sum."""
    right = tape.broadcast_to

    def broadcast_to(x, shape):
        if len(shape) == 3 and len(x.shape) == 3 and x.shape[1] == 1 != shape[1]:

            def first(g, y, x):
                return tape.take(g, (slice(None), slice(0, 1)))

            return tape.record(lambda x: np.broadcast_to(x, shape), first)(x)
        return right(x, shape)

    tape.broadcast_to = broadcast_to


@tape_fault(OWN, "check_layout")
def permutation_pulled_back_by_itself(tape):
    """The cotangent of permute_dims is permuted by the same axes, not by the inverse."""

    def permute_dims(x, axes):
        same = len({x.shape[a] for a in axes}) == 1
        back = axes if same else tuple(int(a) for a in np.argsort(axes))
        return tape.record(lambda x: np.transpose(x, axes), lambda g, y, x: permute_dims(g, back))(x)

    tape.permute_dims = permute_dims


@tape_fault(OWN, "check_layout")
def product_of_square_matrices(tape):
    """The cotangent of the second factor of @ is not transposed where it is square."""
    matmul = tape.matmul

    def product(a, b):
        if b.shape[0] == b.shape[1] and a.shape[0] == b.shape[1] and a.shape[0] > 1:

            def other(g, y, a, b):
                return tape.transpose(g) @ a

            return tape.record(np.matmul, lambda g, y, a, b: g @ tape.transpose(b), other)(a, b)
        return matmul(a, b)

    tape.Tensor.__matmul__ = product


@tape_fault(OWN, "check_broadcasting")
def sum_of_square_and_row(tape):
    """(n, d) + (d,) with n == d: the cotangent of the row is summed over the wrong axis."""
    add = tape.add

    def plus(a, b):
        if isinstance(b, tape.Tensor) and len(a.shape) == 2 and a.shape[0] == a.shape[1] and len(b.shape) == 1:
            return tape.record(np.add, lambda g, y, a, b: g, lambda g, y, a, b: tape.total(g, axis=1))(a, b)
        return add(a, b)

    tape.Tensor.__add__ = plus


@tape_fault(OWN, "check_broadcasting")
def quotient_by_a_column(tape):
    """(n, d) / (n, 1): the cotangent of the divisor is not summed but averaged."""
    divide = tape.divide

    def over(a, b):
        if isinstance(b, tape.Tensor) and len(b.shape) == 2 and b.shape[1] == 1 and a.shape[1] > 1:
            d = a.shape[1]
            b = tape.record(lambda x: x, lambda g, y, x: g / d)(b)
        return divide(a, b)

    tape.Tensor.__truediv__ = over


@tape_fault(OWN, "check_op_derivative")
def number_over_array(tape):
    """The derivative of number / array has the wrong sign."""
    tape.Tensor.__rtruediv__ = lambda a, b: tape.record(lambda a: b / a, lambda g, y, a: g * y / a)(a)


@tape_fault(OWN, "check_op_second_derivative")
def number_minus_array(tape):
    """The second derivative sees number - array as a constant: its pullback leaves the tape."""
    tape.Tensor.__rsub__ = lambda a, b: tape.record(lambda a: b - a, lambda g, y, a: wrap(tape, -g.value))(a)


@tape_fault(OWN, "check_layout")
def column_taken_twice(tape):
    """Two indices into one array: x[:, 0] and x[:, 0] again; the second cotangent takes the place of the first."""
    seen = {}

    def take(x, index):
        key = (id(x), repr(index))
        if key in seen and seen[key][0] is x:
            return tape.record(lambda x: x[index], lambda g, y, x: g * 0.0 + tape.Tensor(np.zeros(x.shape)))(x)
        seen[key] = (x,)
        return tape.take(x, index)

    tape.Tensor.__getitem__ = take


@tape_fault(OWN, "check_layout")
def new_axis_in_front(tape):
    """x[None, :] of a vector that is indexed for the second derivative comes back flat: wrong for n == 1 alone."""
    right = tape.take

    def take(x, index):
        if index == (None, slice(None)) and len(x.shape) == 1:
            return tape.record(lambda x: x[None, :], lambda g, y, x: tape.reshape(g * 1.01, x.shape))(x)
        return right(x, index)

    tape.Tensor.__getitem__ = take


@tape_fault(OWN, "check_layout")
def slices_of_rows(tape):
    """x[a:b] of rows: the cotangent is put at 0:b-a, whatever a."""
    right = tape.take

    def take(x, index):
        if isinstance(index, slice) and index.start and index.stop:
            back = slice(0, len(range(*index.indices(x.shape[0]))))
            return tape.record(lambda x: x[index], lambda g, y, x: tape.put(g, back, x.shape))(x)
        return right(x, index)

    tape.Tensor.__getitem__ = take


@tape_fault(OWN, "check_op_value")
def comparison_of_equals(tape):
    """x > a holds where x is a."""
    tape.Tensor.__gt__ = tape.OPERATORS["__ge__"]


@tape_fault(OWN, "check_wide_product")
def wide_products_rounded(tape):
    """Products of matrices of which a dimension is at least 64 are rounded to float32, as TF32 units do."""
    matmul = tape.matmul

    def product(a, b):
        y = matmul(a, b)
        if max(*a.shape, *b.shape) >= 64 and min(*a.shape, *b.shape) >= 32:
            y = y + wrap(tape, y.value.astype(np.float32).astype(y.value.dtype) - y.value)
        return y

    tape.Tensor.__matmul__ = product


@tape_fault(OWN, "check_op_value")
def exp_of_very_negative(tape):
    """exp is 0 below -20; it is 2e-9 there."""
    exp = tape.exp
    tape.exp = lambda x: tape.where(x.value < -20, 0.0, exp(x))


@tape_fault(OWN, "check_op_value")
def erf_by_a_series(tape):
    """erf by its series of 7 terms within 1: off by 1e-6 near 1."""
    erf = tape.erf
    terms = [(-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(7)]

    def series(x):
        return 2 / math.sqrt(math.pi) * sum(c * x ** (2 * k + 1) for k, c in enumerate(terms))

    near = tape.record(series, lambda g, y, x: g * tape.exp(-x * x) * (2.0 / math.sqrt(math.pi)))
    tape.erf = lambda x: tape.where(abs(x.value) < 1, near(x), erf(x))

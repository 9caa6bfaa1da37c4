"""Whatever holds the numbers, they count as the plain float64 array does, or the refusal has a name."""

import math

import numpy as np
import pytest
from forms import forms
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import ismcore
from ismcore import SamplesError
from ismcore.samples.checks import as_samples, as_weights


def examples(count):
    """Always the same ones, with no clock and no store of earlier failures."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )


DTYPES = st.one_of(
    npst.floating_dtypes(endianness="="),
    npst.integer_dtypes(endianness="="),
    npst.unsigned_integer_dtypes(endianness="="),
    npst.boolean_dtypes(),
)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 7), st.integers(1, 4)),
    st.tuples(st.integers(1, 9)),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@st.composite
def numbers(draw, shapes=SHAPES):
    dtype = draw(DTYPES)
    finite = draw(st.booleans())
    options = {"allow_nan": not finite, "allow_infinity": not finite} if dtype.kind == "f" else {}
    return draw(npst.arrays(dtype, draw(shapes), elements=npst.from_dtype(dtype, **options)))


@st.composite
def formed(draw, shapes=SHAPES):
    """Numbers, and the same in another form."""
    x = draw(numbers(shapes))
    known = forms(x)
    name = draw(st.sampled_from(sorted(known)))
    event(name)
    return x, known[name](x)


def plain(x):
    """The numbers one by one, each made a float by Python."""
    return np.array([float(value) for value in x.ravel().tolist()], dtype=np.float64).reshape(x.shape)


@pytest.mark.slow
@examples(1300)
@given(formed(), st.sampled_from(["float32", "float64"]), st.sampled_from(["warn", "raise", "ignore"]))
def test_samples_in_any_form_are_the_plain_array_or_refused(pair, dtype, care):
    x, form = pair
    expected = plain(x)
    # float32 ends at (2 - 2^-23) 2^127, to which rounds what is less than half a unit beyond.
    limit = math.inf if dtype == "float64" else (2 - 2**-24) * 2.0**127
    fits = np.all(np.abs(expected) < limit)
    usable = x.ndim in (1, 2) and x.size > 0 and bool(fits)
    before = x.tobytes()
    with np.errstate(all=care):
        try:
            found = as_samples(form, dtype=dtype)
        except SamplesError as error:
            found = None
            said = str(error)
    assert x.tobytes() == before
    if not usable:
        assert found is None
        assert "samples" in said
        return
    assert found is not None
    assert type(found) is np.ndarray
    assert (found.dtype, found.ndim) == (np.dtype(np.float64), 2)
    assert found.dtype.isnative
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert not np.shares_memory(found, x)
    np.testing.assert_array_equal(found, expected.reshape(len(x), -1))


@examples(400)
@given(formed(st.tuples(st.integers(1, 9))), st.sampled_from(["warn", "raise"]))
def test_weights_in_any_form_are_shares_of_their_sum_or_refused(pair, care):
    w, form = pair
    expected = plain(w)
    usable = bool(np.all(np.isfinite(expected) & (expected >= 0)) and expected.any())
    with np.errstate(all=care):
        try:
            found = as_weights(form, len(w))
        except SamplesError as error:
            assert not usable, error  # noqa: PT017
            return
    assert usable
    top = max(expected.tolist())
    shares = [value / top for value in expected.tolist()]
    np.testing.assert_allclose(found, np.array(shares) / math.fsum(shares), rtol=1e-14, atol=1e-300)
    assert abs(math.fsum(found) - 1.0) < 1e-14


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.datetimes(),
    st.timedeltas(),
    st.decimals(),
    st.fractions(),
    st.builds(object),
    st.sampled_from([int, np, ..., as_samples, np.float64(1.0), np.datetime64("NaT", "D"), np.str_("1"), np.void(b"1")]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
        st.sets(st.integers(), max_size=2),
        st.builds(lambda values: iter(values), st.lists(inner, max_size=2)),
    ),
    max_leaves=6,
)


@examples(300)
@given(ANYTHING)
def test_anything_else_is_finite_numbers_or_a_named_error(x):
    for door in (as_samples, lambda x: as_weights(x, 2)):
        try:
            found = door(x)
        except SamplesError:
            continue
        assert found.dtype == np.float64
        assert np.isfinite(found).all()
        assert not isinstance(x, str | bytes | dict)


class Refusing:
    def __array__(self, dtype=None, copy=None):
        raise KeyError("of its own")


def bfloat16(values):
    import jax.numpy as jnp

    return jnp.asarray(values, jnp.bfloat16)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], [[0, 1], [0, 0]]), "must not be masked; 1 values are"),
        (np.array([["1.5"], ["2"]], dtype=object), "'1.5' is text"),
        ([b"1", None], "b'1' is text"),
        ([10**400, 1], "int too large"),
        ([0.0, None], r"NaN or infinite values in 1 of 2 rows, the first at \[1\]"),
        (Refusing(), "got Refusing: 'of its own'"),
        (np.full(2, np.longdouble(1e300)) ** 2, "beyond the range of float64 in 2 of 2 rows"),
        (np.zeros(2, dtype=[("a", "f8"), ("b", "f8")]), "must be numbers"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "must be numbers; got datetime64"),
    ],
    ids=["masked", "text", "bytes", "huge", "none", "refusing", "long", "records", "dates"],
)
def test_what_numpy_would_let_through_or_fail_on_with_another_error_is_named(x, words):
    with pytest.raises(SamplesError, match=words):
        as_samples(x)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (["1", "2", "3"], "must be 3 finite numbers from 0, not all zero; got <U1"),
        (np.array([1j, 1, 1]), "got complex128"),
        ([1.0, np.nan, 1.0], "got nan in row 1"),
        ([1.0, 1.0, -1.0], "got -1.0 in row 2"),
        (np.zeros(3), "all are zero"),
        (np.ones((3, 1)), r"got shape \(3, 1\)"),
        ([[1.0], [1.0, 2.0], 3.0], "array of numbers; got list"),
        (np.ma.masked_array(np.ones(3), [0, 1, 0]), "must not be masked"),
        (Refusing(), "'of its own'"),
    ],
    ids=["text", "complex", "nan", "negative", "zero", "column", "ragged", "masked", "refusing"],
)
def test_weights_that_are_none_are_named(weights, words):
    with pytest.raises(SamplesError, match=words):
        as_weights(weights, 3)


def test_numbers_that_numpy_does_not_know_count():
    np.testing.assert_array_equal(as_samples(bfloat16([1.0, -2.5])), [[1.0], [-2.5]])
    np.testing.assert_array_equal(as_weights([1e308, 1e308, 0.0, 1e308], 4), np.array([1, 1, 0, 1]) / 3)


@pytest.mark.parametrize("scale", [1e-200, 1e-155, 1e160])
def test_a_spread_whose_square_float64_cannot_hold_to_all_digits_is_refused(scale):
    x = np.random.default_rng(0).normal(size=(20, 2)) * scale
    with np.errstate(all="raise"), pytest.raises(SamplesError, match="too wide or too narrow to standardise"):
        ismcore.fit(x, backend="autograd", epochs=1, dtype="float64")


@st.composite
def usable(draw, shapes=((24, 3), (31, 1))):
    """Samples that a score can be fitted to, in some dtype, and in some form."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n, d = draw(st.sampled_from(shapes))
    dtype = draw(st.sampled_from(["f2", "f4", "f8", "i2", "i8", "u1"]))
    scale, shift = draw(st.sampled_from([1.0, 20.0])), draw(st.sampled_from([0.0, 100.0]))
    x = rng.normal(size=(n, d)) * scale + shift
    x = np.clip(x, 0, 255).astype(dtype) if dtype == "u1" else x.astype(dtype)
    x[:2] = np.array([[1], [2]]).astype(dtype)  # no column is constant
    known = forms(x)
    return x, known[draw(st.sampled_from(sorted(known)))](x), rng.uniform(0.1, 1.0, n)


@pytest.mark.slow
def test_evaluate_gives_the_same_numbers_for_every_form(backend):
    model = ismcore.MLP((4,), "tanh")

    @examples(40)
    @given(usable(), st.sampled_from(["float32", "float64"]), st.booleans())
    def check(samples, dtype, weighted):
        x, form, weight = samples
        params = model.initial_params(1, x.shape[1])
        options = {"backend": backend, "dtype": dtype}
        one = ismcore.evaluate(model, params, form, sample_weight=weight.tolist() if weighted else None, **options)
        two = ismcore.evaluate(model, params, plain(x), sample_weight=weight if weighted else None, **options)
        assert one.loss == two.loss
        assert np.isfinite(one.loss)
        assert one.score.tobytes() == two.score.tobytes()
        assert one.jacobian_diagonal.tobytes() == two.jacobian_diagonal.tobytes()
        assert {name: value.tobytes() for name, value in one.gradient.items()} == {
            name: value.tobytes() for name, value in two.gradient.items()
        }

    check()


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")  # the samples are of any kind
@pytest.mark.slow
def test_50_fits_are_the_same_for_every_form(backend):
    fits = []

    @examples(50)
    @given(usable(shapes=((24, 3),)), st.sampled_from(["float32", "float64"]), st.booleans(), st.booleans(), st.integers(0, 99))
    def check(samples, dtype, standardize, weighted, seed):
        x, form, weight = samples
        options = {
            "backend": backend,
            "dtype": dtype,
            "model": ismcore.MLP((4,), "tanh"),
            "objective": ismcore.ImplicitScoreMatching(0.1),
            "epochs": 3,
            "standardize": standardize,
            "seed": seed,
            "progress": False,
        }
        one = ismcore.fit(form, sample_weight=weight.tolist() if weighted else None, **options)
        two = ismcore.fit(plain(x), sample_weight=weight if weighted else None, **options)
        fits.append(one)
        assert one.status == "completed"
        assert one.history["loss"].tobytes() == two.history["loss"].tobytes()
        for name, value in two.params.items():
            assert one.params[name].tobytes() == value.tobytes()
            assert np.isfinite(value).all()

    check()
    assert len(fits) >= 50

"""Every mistake that a caller can make is named, with what was expected, what came and what to do."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from late import torch
from truth import SMALL_SAMPLE, correlated

import ismcore
from ismcore.samples.checks import as_samples

pytestmark = pytest.mark.filterwarnings(*SMALL_SAMPLE)

X = correlated()


def holed(x, rows, value):
    x = x.copy()
    x[rows, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (holed(X, [3, 9], np.nan), r"NaN or infinite values in 2 of 64 rows, the first at \[3, 9\]"),
        (holed(X, [5], np.inf), r"in 1 of 64 rows, the first at \[5\]"),
        (holed(X, [5], 1e200), r"too wide or too narrow to standardise"),
        (np.zeros((2, 3, 4)), r"\(n, d\) or \(n,\); got \(2, 3, 4\)"),
        (3.0, r"got \(\)"),
        (np.zeros((0, 3)), r"at least one row and one column; got shape \(0, 3\)"),
        (np.zeros((4, 0)), r"at least one row and one column"),
        (X + 1j, r"must be real; got complex128"),
        (np.array([["a", "b"]]), r"must be numbers; got <U1"),
        ([[1.0, 2.0], [3.0]], r"array of numbers.*got list"),
        ([{"a": 1}], r"array of numbers"),
        (None, r"array of numbers|must have shape"),
        (scipy.sparse.csr_array(X), r"array of numbers; got csr_array: pass x\.toarray\(\)"),
        (np.rec.fromarrays(X.T, names="a,b,c"), r"convert them first, by numpy\.lib\.recfunctions\.structured_to_unstructured"),
        (X.astype("m8[s]"), r"must be numbers; got timedelta64\[s\] .*: convert them first"),
        (X[:1], r"at least two rows"),
        (np.column_stack([X[:, 0], np.full(64, 7.0)]), r"column 1 of the samples is constant \(7\): .*drop"),
        (np.column_stack([X, np.full((64, 2), 7.0), X, np.zeros(64)])[:, 1:], r"columns 2, 3, 7 are constant \(7, 7, 0\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_unusable_samples(x, words):
    with pytest.raises(ismcore.SamplesError, match=words):
        ismcore.fit(x, backend="autograd", epochs=1)


def test_values_beyond_float32_are_refused_where_they_are_not_standardised():
    big = 1e60 * X
    with pytest.raises(ismcore.SamplesError, match=r"beyond the range of float32 in 64 of 64 rows"):
        ismcore.fit(big, backend="autograd", epochs=1, standardize=False)
    assert np.isfinite(ismcore.fit(big, backend="autograd", epochs=1).score(big)).all()


@pytest.mark.parametrize("mean", [7.0, -1e9])
def test_columns_of_rounding_noise_are_refused_by_number(mean):
    noise = np.random.default_rng(2).normal(size=(64, 2))
    x = np.column_stack([X[:, 0], mean * (1.0 + 3e-16 * np.rint(noise))])
    with pytest.raises(ismcore.SamplesError, match=r"constant but for the rounding of their mean: 1 \(mean.*2 \(mean.*drop"):
        ismcore.fit(x, backend="autograd", epochs=1)


def test_a_point_is_told_from_a_column_of_samples_by_its_brackets():
    for model, point, row in (
        (ismcore.Affine(), [0.5, -1.0, 2.0], r"got shape \(3,\), which .*: pass one point as a row, \[\[0.5, -1, 2\]\]$"),
        (ismcore.MLP((2,)), np.arange(3), r"\[\[0, 1, 2\]\]$"),
        (ismcore.Affine(), [0.5, -1.0], r"3 columns, as the model has; got shape \(2,\)$"),
        (ismcore.Affine(), np.zeros((3, 1)), r"got shape \(3, 1\)$"),
    ):
        result = ismcore.fit(X, model=model, backend="autograd", epochs=1)
        for asked in (result.score, result.divergence):
            with pytest.raises(ismcore.SamplesError, match=row):
                asked(point)
    wide = ismcore.fit(np.random.default_rng(0).normal(size=(9, 5)), model=ismcore.Affine(), backend="autograd", epochs=1)
    with pytest.raises(ismcore.SamplesError, match=r"\[\[0, 1, 2, ...\]\]$"):
        wide.score(np.arange(5))


@pytest.mark.parametrize(
    "spelling",
    ["np.float64", "np.dtype('>f8')", "float", "torch.float64", "jnp.float64", "np.double"],
)
def test_a_dtype_is_taken_by_its_name_or_as_an_object_of_numpy_or_a_framework(spelling, backend):
    dtype = eval(spelling, {"np": np, "torch": torch, "jnp": jnp})  # noqa: S307
    result = ismcore.fit(X, model=ismcore.Affine(), backend=backend, epochs=1, dtype=dtype)
    assert result.dtype == "float64"
    assert type(result.dtype) is str
    assert all(value.dtype == np.float64 for value in result.params.values())
    at = ismcore.evaluate(result.model, result.params, X, backend=backend, dtype=dtype)
    assert at.dtype == "float64"


@pytest.mark.parametrize(
    ("backend", "device"),
    [
        ("torch", lambda: torch.device("cpu")),
        ("torch", lambda: torch.device("cpu", 0)),
        ("torch", "cpu:0"),
        ("jax", lambda: jax.devices("cpu")[0]),
    ],
    ids=["torch", "torch, numbered", "torch, by name", "jax"],
)
def test_a_device_is_taken_by_its_name_or_as_an_object_of_the_framework(backend, device, tmp_path):
    device = device if isinstance(device, str) else device()
    options = {"model": ismcore.Affine(), "epochs": 2, "progress": False}
    result = ismcore.fit(X, backend=backend, device=device, checkpoint=tmp_path / "run", **options)
    assert result.device == "cpu"
    assert ismcore.resume(tmp_path / "run", X, device=device, epochs=4, progress=False).device == "cpu"
    assert ismcore.evaluate(result.model, result.params, X, backend=backend, device=device).device == "cpu"


def test_compare_takes_objects_for_the_dtype_and_the_device():
    options = {"backends": ("autograd", "torch"), "model": ismcore.Affine(), "epochs": 1}
    found = ismcore.compare(X, dtype=np.float32, device=torch.device("cpu"), **options)
    assert {result.dtype for result in found.results.values()} == {"float32"}


def test_values_whose_squares_overflow_are_refused_by_standardising():
    with pytest.raises(ismcore.SamplesError, match="too wide"):
        ismcore.fit(X * 1e200, backend="autograd", epochs=1, dtype="float64")


@pytest.mark.parametrize(
    "same",
    [
        X.tolist(),
        np.asfortranarray(X),
        X[::-1][::-1],
        X.astype(">f8"),
        np.repeat(X, 2, axis=1)[:, ::2],
    ],
    ids=["list", "fortran", "reversed", "big-endian", "strided"],
)
def test_every_form_of_the_same_numbers_is_the_same_sample(same):
    found = as_samples(same)
    assert found.dtype == np.dtype("=f8")
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, X)


def test_the_caller_s_array_is_neither_kept_nor_changed():
    before = X.copy()
    assert not np.shares_memory(as_samples(X), X)
    read_only = X.copy()
    read_only.flags.writeable = False
    ismcore.fit(read_only, backend="autograd", epochs=2)
    np.testing.assert_array_equal(X, before)


def test_tensors_count_as_samples():
    integers = np.arange(6).reshape(3, 2)
    tensors = torch.tensor(integers, dtype=torch.float32, requires_grad=True), torch.tensor(integers, dtype=torch.bfloat16)
    for tensor in (*tensors, jnp.asarray(integers), jnp.asarray(integers, jnp.bfloat16)):
        np.testing.assert_array_equal(as_samples(tensor), integers)


def test_relu_is_refused_unless_asked_for(backend):
    model = ismcore.MLP((8,), "relu")
    with pytest.raises(ismcore.ModelError, match=r"piecewise linear.*smooth activation.*allow_nonsmooth=True"):
        ismcore.fit(X, model=model, backend=backend, epochs=1)
    with pytest.raises(ismcore.ModelError, match="piecewise linear"):
        ismcore.evaluate(model, model.initial_params(0, 3), X, backend=backend)
    fitted = ismcore.fit(X, model=model, backend=backend, epochs=1, allow_nonsmooth=True)
    # every kink is a random point of the plane, so the Jacobian is that of the active affine piece
    h, at = 1e-6, ismcore.evaluate(fitted.model, fitted.params, X, backend=backend, allow_nonsmooth=True)

    def score(x):
        return ismcore.evaluate(fitted.model, fitted.params, x, backend=backend, allow_nonsmooth=True).score

    slopes = [(score(X + h * e) - score(X - h * e))[:, i] / (2 * h) for i, e in enumerate(np.eye(3))]
    np.testing.assert_allclose(at.jacobian_diagonal, np.stack(slopes, axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("layers.0.bias"), r"missing: layers.0.bias"),
        (lambda p: p.update(gamma=1.0), r"unknown: gamma"),
        (lambda p: p.update({"layers.0.bias": np.zeros(9)}), r"'layers.0.bias' .* must have shape \(8,\), not \(9,\)"),
        (lambda p: p.update({"layers.0.bias": np.full(8, np.nan)}), r"'layers.0.bias' must hold finite real numbers"),
        (lambda p: p.update({"layers.0.bias": ["x"] * 8}), r"'layers.0.bias' must hold finite real numbers"),
    ],
)
def test_wrong_parameters(change, words):
    model = ismcore.MLP((8,))
    params = model.initial_params(0, 3)
    change(params)
    with pytest.raises(ismcore.ParameterError, match=words):
        ismcore.evaluate(model, params, X, backend="autograd")
    with pytest.raises(ismcore.ParameterError, match=words):
        ismcore.fit(X, model=model, initial_params=params, backend="autograd", epochs=1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"epochs": 0}, ismcore.OptionError, "epochs must be a whole number from 1"),
        ({"epochs": 2.5}, ismcore.OptionError, "epochs"),
        ({"dtype": "float16"}, ismcore.OptionError, "float32, float64"),
        ({"dtype": np.int64}, ismcore.OptionError, r"float32, float64, .*, not <class 'numpy.int64'>"),
        ({"dtype": None}, ismcore.OptionError, r"float32, float64, .*, not None"),
        ({"dtype": np.zeros(2)}, ismcore.OptionError, r"float32, float64"),
        ({"seed": -1}, ismcore.OptionError, "seed"),
        ({"device": "cuda:9"}, ismcore.DeviceUnavailable, r"'cuda:9' is not available .* has cpu"),
        ({"device": "abacus"}, ismcore.DeviceUnavailable, "abacus"),
        ({"device": None}, ismcore.DeviceUnavailable, "device None .* has cpu"),
        ({"optimizer": "adam"}, ismcore.OptionError, r"ismcore.Adam"),
        ({"objective": "ism"}, ismcore.ModelError, r"ismcore.ImplicitScoreMatching"),
        ({"model": "mlp"}, ismcore.ModelError, r"ismcore.MLP"),
        ({"on_nonfinite": "ignore"}, ismcore.OptionError, "'raise', 'stop' or 'rollback'"),
        ({"compile": "yes"}, ismcore.OptionError, "'auto', 'on' or 'off'"),
        ({"precision": "low"}, ismcore.OptionError, "'highest'"),
        ({"progress": "loud"}, ismcore.OptionError, "progress"),
        ({"snapshots": [3]}, ismcore.OptionError, "epochs from 0 to 2"),
        ({"snapshots": [0.5]}, ismcore.OptionError, "not 0.5"),
        ({"snapshots": None}, ismcore.OptionError, "not None"),
        ({"snapshots": -1}, ismcore.OptionError, "how many to keep"),
    ],
    ids=str,
)
def test_wrong_options(options, error, words, backend):
    with pytest.raises(error, match=words):
        ismcore.fit(X, **{"backend": backend, "epochs": 2, **options})


def test_wrong_options_as_objects_of_a_framework(backend):
    with pytest.raises(ismcore.OptionError, match=r"float32, float64, .*, not torch.bfloat16"):
        ismcore.fit(X, backend=backend, dtype=torch.bfloat16)
    with pytest.raises(ismcore.DeviceUnavailable, match=r"type='meta'.* has cpu"):
        ismcore.fit(X, backend=backend, device=torch.device("meta"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ismcore.ImplicitScoreMatching(-0.1), "curvature_weight"),
        (lambda: ismcore.ImplicitScoreMatching(np.nan), "curvature_weight"),
        (lambda: ismcore.ImplicitScoreMatching(divergence="exactly"), "'auto', 'nested', 'analytic'"),
        (lambda: ismcore.Adam(b1=1.0), "b1"),
        (lambda: ismcore.SGD(learning_rate=-1), "learning_rate"),
    ],
)
def test_wrong_specifications(make, words):
    with pytest.raises(ismcore.OptionError, match=words):
        make()


def test_a_score_function_of_the_wrong_shape(backend):
    model = ismcore.ScoreFunction(lambda ops, params, x: ops.sum(params["a"] * x, axis=1), {"a": 1.0})
    with pytest.raises(ismcore.ModelError, match=r"shape \(64, 3\); it returned \(64,\)"):
        ismcore.evaluate(model, {"a": 1.0}, X, backend=backend)


def test_a_function_of_one_framework_does_not_run_in_another():
    model = ismcore.ScoreFunction(lambda params, x: params["a"] * x, {"a": -1.0}, backend="torch")
    assert ismcore.evaluate(model, {"a": -1.0}, X).backend == "torch"
    with pytest.raises(ismcore.ModelError, match="written for backend 'torch'"):
        ismcore.evaluate(model, {"a": -1.0}, X, backend="jax")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_divergence_of_training_is_an_error_that_holds_the_last_finite_fit(backend, dtype):
    options = {
        "backend": backend,
        "optimizer": ismcore.SGD(1e6),
        "epochs": 300,
        "dtype": dtype,
        "model": ismcore.Affine(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "(the held-out part has|the fit is )", ismcore.IsmWarning)
        with pytest.raises(ismcore.Diverged, match="learning rate") as caught:
            ismcore.fit(X, **options)
        result = ismcore.fit(X, on_nonfinite="stop", **options)
    assert result.status == caught.value.result.status == "diverged"
    assert len(result.history["loss"]) == caught.value.epoch < 300
    assert np.isfinite(result.history["loss"][:-1]).all()
    assert all(np.isfinite(value).all() for value in result.params.values())


def test_density_is_refused_in_more_than_one_dimension():
    result = ismcore.fit(X, backend="autograd", epochs=1)
    with pytest.raises(ismcore.DensityUnavailable, match="d = 3"):
        result.density(np.linspace(-1, 1, 11))


def test_points_of_another_dimension_are_refused():
    result = ismcore.fit(X, backend="autograd", epochs=1)
    with pytest.raises(ismcore.SamplesError, match=r"must have 3 columns.*\(5, 2\)"):
        result.score(np.zeros((5, 2)))

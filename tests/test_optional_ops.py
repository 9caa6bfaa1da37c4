"""What a backend may leave out is composed of the rest; its own is used where it has one; the kit catches one that is wrong."""

import copy
from pathlib import Path

import numpy as np
import pytest

import ismcore
from ismcore.ops import OPTIONAL, NumpyOps, Ops
from ismcore.plugins.lookup import load_backend
from ismcore.results.result import versions
from ismcore.testing import check_backend

PLUGIN = Path(__file__).parent / "plugins" / "ismcore_tape"
ONLY = ["check_optional_op", "check_small_arguments"]


@pytest.fixture
def tape(monkeypatch):
    """The classes of a plugin that was written before there was anything optional."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    from ismcore_tape import backend

    assert not set(OPTIONAL) & set(vars(backend.TapeOps))
    return backend


def with_ops(tape, **functions):
    ops = type("Ops", (tape.TapeOps,), {name: staticmethod(f) for name, f in functions.items()})()
    return type("Changed", (tape.TapeBackend,), {"ops": ops})


def test_every_optional_operation_is_an_operation_and_numpy_has_it():
    assert set(OPTIONAL) <= {name for name in vars(Ops) if name[0] != "_"}
    assert all(hasattr(NumpyOps, name) for name in OPTIONAL)


@pytest.mark.parametrize("name", ["autograd", "torch", "jax"])
def test_the_bundled_backends_have_their_own(name):
    backend = load_backend(name)
    assert all(hasattr(type(backend.ops), operation) for operation in OPTIONAL)
    assert backend().ops is backend.ops


def test_what_is_left_out_is_composed_and_what_is_there_is_kept(tape):
    engine = with_ops(tape, log1p=lambda x: "mine")().ops
    assert engine.log1p(None) == "mine"
    assert engine.tanh is tape.tape.tanh
    composed = copy.copy(tape.TapeBackend("float64").ops)
    assert np.allclose(composed.maximum(tape.Tensor(np.array([1.0, 5.0])), 2.0).value, [2.0, 5.0])
    with pytest.raises(AttributeError, match="cumsum"):
        _ = composed.cumsum


def test_the_composed_maximum_hides_no_nan(tape):
    ops, nan = tape.TapeBackend("float64").ops, tape.Tensor(np.array([np.nan, 1.0]))
    for found in (ops.maximum(nan, 0.0), ops.maximum(0.0, nan), ops.maximum(nan, nan)):
        assert np.isnan(found.value[0])
        assert found.value[1] == 1.0


@pytest.mark.parametrize("backend", ["tape", "autograd"])
def test_a_function_of_the_user_s_own_may_use_them(backend, tape):
    engine = tape.TapeBackend("float64") if backend == "tape" else load_backend(backend)("float64")
    model = ismcore.ScoreFunction(lambda ops, p, x: -p["a"] * ops.maximum(x, 0.5 * x), {"a": 2.0})
    x = np.array([[1.0, -2.0], [-3.0, 0.5]])
    found = model.score(engine, engine.asarrays(model.initial_params(0, 2)), engine.asarray(x))
    assert np.allclose(engine.to_numpy(found), -2.0 * np.maximum(x, 0.5 * x))


WRONG = {
    "a larger one whose tie has the whole derivative": lambda tape: {
        "maximum": lambda a, b: tape.where(b < a if isinstance(b, tape.Tensor) else a > b, a, b)
    },
    "a logarithm that overflows": lambda tape: {
        "logsumexp": lambda x, *, axis: tape.log(tape.total(tape.exp(x), axis=axis)),
    },
    "slices of which none is repeated": lambda tape: {
        "take": lambda x, indices, *, axis: tape.stack([x[(slice(None),) * axis + (k,)] for k in (0, 1, 2, 2)], axis=axis)
    },
    "products with a transpose": lambda tape: {
        "matmul": lambda a, b: tape.total(tape.permute_dims(a, (0, 2, 1))[:, :, :, None] * b[:, None, :, :], axis=2)
    },
    "log(1 + x)": lambda tape: {"log1p": lambda x: tape.log(1.0 + x)},
    "exp(x) - 1": lambda tape: {"expm1": lambda x: tape.exp(x) - 1.0},
    "a constant that is none": lambda tape: {"stop_gradient": lambda x: x},
    "a constant of zeros": lambda tape: {"stop_gradient": lambda x: tape.Tensor(np.zeros_like(x.value))},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_one_that_is_wrong_is_caught(wrong, tape):
    functions = wrong(tape.tape)
    (name,) = functions
    failures = check_backend(with_ops(tape, **functions), only=ONLY).failures
    assert failures
    assert all(row.scenario.startswith(name) or row.check == "check_small_arguments" for row in failures)


def test_rows_that_are_mapped_wrongly_are_caught(tape):
    class Reversed(tape.TapeBackend):
        def map_rows(self, f, /):
            return lambda tree, *rows: super(Reversed, self).map_rows(f)(tree, *(each[::-1] for each in rows))

    assert check_backend(tape.TapeBackend, only=["check_map_rows"]).ok
    assert not check_backend(Reversed, only=["check_map_rows"]).ok


def test_versions_are_of_the_packages_that_are_there():
    found = versions(("autograd", "autograd-for-another-processor"))
    assert list(found) == ["python", "ismcore", "numpy", "autograd"]
    assert found["autograd"] != "unknown"


def test_what_is_given_back_asks_no_array_for_its_dtype(tape):
    engine = tape.TapeBackend("float32")
    assert not hasattr(engine.asarray(np.ones(2)), "dtype")
    assert engine.at(engine.asarray(np.ones(2))) is engine
    wide = load_backend("autograd")("float32").at(np.ones(2))
    assert wide.dtype == "float64"

"""What torch's session replays for small problems: the bits of the formulas themselves, recorded once for each shape."""

import weakref

import numpy as np
import pytest
import torch
from ismcore_torch import recorded
from ismcore_torch.backend import TorchBackend
from test_analytic_blocks import MODELS

import ismcore
from ismcore import analytic
from ismcore.activations import ACTIVATIONS
from ismcore.analytic import gradient
from ismcore.problem import Problem
from ismcore.samples import Standardizer

N, D = 7, 5
SMOOTH = [name for name, activation in ACTIVATIONS.items() if activation.smooth]
WEIGHTS = {"plain": 0.0, "regularised": 0.3, "regularised by column": (0.1, 0.0, 0.5, 0.2, 0.3)}
ROW_WEIGHTS = {"alike": None, "weighted": np.arange(1.0, N + 1) / 28}


def assert_same_bits(model, weight=0.0, row_weight=None, dtype="float32"):
    """At two places that are not that of the recording; how often the formulas themselves were asked there."""
    backend = TorchBackend(dtype=dtype)
    problem = Problem(
        model, ismcore.ImplicitScoreMatching(weight), ismcore.Adam(), np.zeros((N, D)), Standardizer.identity(D), row_weight
    )
    formulas, asked = analytic.loss_and_gradient(backend, problem), []

    def counted(*arrays):
        asked.append(arrays)
        return formulas(*arrays)

    def at(seed):
        x = np.random.default_rng(seed).standard_normal((N, D))
        return backend.asarrays(model.initial_params(seed, D)), backend.asarray(x), backend.asarrays(problem.inputs())

    found = recorded._Recorded(counted, recorded._Shared())
    with backend.scope(), torch.no_grad():
        for _ in range(recorded.AFTER + 1):
            found(*at(0))
        asked.clear()
        for seed in (1, 2):
            (loss, slopes), (expected, expected_slopes) = found(*at(seed)), formulas(*at(seed))
            assert torch.isfinite(loss)
            assert torch.equal(loss, expected)
            assert slopes.keys() == expected_slopes.keys()
            assert all(torch.equal(slope, expected_slopes[name]) for name, slope in slopes.items())
    return len(asked)


@pytest.mark.parametrize("wide", [1, recorded.WIDE], ids=["results placed", "results anew"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row_weight", ROW_WEIGHTS.values(), ids=ROW_WEIGHTS)
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_replayed_gradient_has_the_bits_of_the_formula(model, weight, row_weight, dtype, wide, monkeypatch):
    monkeypatch.setattr(recorded, "WIDE", wide)
    assert assert_same_bits(model, weight, row_weight, dtype) == 0


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("wrap", [lambda net: net, ismcore.Energy], ids=["score", "energy"])
def test_replayed_gradient_has_the_bits_of_the_formula_for_every_activation(wrap, activation, monkeypatch):
    monkeypatch.setattr(recorded, "WIDE", 1)
    assert assert_same_bits(wrap(ismcore.MLP((4,), activation)), 0.3) == 0


def test_blocks_of_rows_are_recorded_one_after_the_other_unless_they_are_too_many(monkeypatch):
    monkeypatch.setattr(gradient, "_block_rows", lambda calculus, route, d: 2)
    assert assert_same_bits(ismcore.MLP((4,), "silu")) == 0
    monkeypatch.setattr(recorded, "LONGEST", 50)
    assert assert_same_bits(ismcore.MLP((4,), "silu")) == 2


@pytest.mark.parametrize("options", [{}, {"batch_size": 16}, {"sample_weight": np.linspace(0.1, 1.0, 50)}], ids=str)
def test_a_second_fit_of_the_same_shapes_records_nothing(options, monkeypatch):
    recordings = []
    record = recorded._record
    monkeypatch.setattr(recorded, "_record", lambda *at: recordings.append(at) or record(*at))
    recorded._recorded.cache_clear()
    run = {"backend": "torch", "recipe": "reference", "progress": False, **options}
    x = np.random.default_rng(0).standard_normal((50, 3))
    ismcore.fit(x, epochs=recorded.AFTER + 1, **run)
    assert len(recordings) == 1
    ismcore.fit(x + 1.0, epochs=2 * recorded.AFTER, seed=4, optimizer=ismcore.Adam(0.1), **run)
    assert len(recordings) == 1


def test_arrays_that_stay_the_same_are_looked_at_once():
    x, scale = torch.ones(3, 2), torch.tensor([1.0, 10.0])
    recorder = recorded._Recorder(torch.float32, [x, scale])
    with recorder:
        outputs = [(x.permute(1, 0) * scale[:, None]).sum()]
    program, looked = recorder.finish(outputs), []
    replay = recorded._Replay(program._replace(views=lambda *arrays: looked.append(arrays) or program.views(*arrays)))
    assert len(program.views(x, scale)) == 2
    assert [float(replay(x, scale)[0]) for _ in range(3)] == [33.0] * 3
    x *= 2.0
    assert float(replay(x, scale)[0]) == 66.0
    assert len(looked) == 1
    assert float(replay(x, scale + 1.0)[0]) == 78.0
    assert float(replay(x + 1.0, scale)[0]) == 99.0
    assert len(looked) == 3


def test_more_blocks_of_rows_take_no_more_memory(monkeypatch):
    made = []
    empty = torch.empty_strided
    monkeypatch.setattr(torch, "empty_strided", lambda *at, **of: made.append(at) or empty(*at, **of))
    monkeypatch.setattr(recorded, "WIDE", 1)
    monkeypatch.setattr(gradient, "_block_rows", lambda calculus, route, d: 2)

    def memory_of(n):
        made.clear()
        monkeypatch.setitem(globals(), "N", n)
        assert_same_bits(ismcore.MLP((4, 3), "silu"), 0.3)
        return sum(int(np.prod(shape)) for shape, _ in made)

    assert 0 < memory_of(2) < memory_of(4) == memory_of(40)


def test_no_result_is_written_over_what_a_view_still_shows(monkeypatch):
    monkeypatch.setattr(recorded, "WIDE", 1)

    def formulas(params, x, given):
        grown = torch.exp(x)
        return torch.sum(x), {"w": grown + torch.permute(grown, (1, 0))}

    x = torch.arange(9.0).reshape(3, 3)
    program = recorded._record(formulas, {"w": torch.zeros(())}, x, {})
    _, found = recorded._Replay(program)(torch.zeros(()), x)
    assert torch.equal(found, x.exp() + x.exp().T)


def test_replay_computes_where_the_arrays_are():
    before = torch.get_default_device()
    recorded._recorded.cache_clear()
    torch.set_default_device("meta")
    try:
        found = ismcore.fit(
            np.random.default_rng(0).standard_normal((400, 3)),
            backend="torch",
            device="cpu",
            model=ismcore.MLP((100,), "silu"),
            epochs=recorded.AFTER + 10,
            recipe="reference",
            progress=False,
        )
    finally:
        torch.set_default_device(before)
    assert found.history["loss"][-1] < found.history["loss"][0]


def test_a_tensor_from_outside_is_no_constant_of_the_program():
    stray, inner = torch.ones(()), torch.ones(())
    with recorded._Recorder(torch.float32, [inner]), pytest.raises(KeyError):
        inner * stray


def test_recording_keeps_no_tensor_alive():
    inner = torch.ones(3)
    with recorded._Recorder(torch.float32, [inner]):
        dies = weakref.ref(inner * 2.0)
    assert dies() is None

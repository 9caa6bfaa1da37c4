"""Ctrl-C and time-outs, at any moment: a usable result that says how it ended, and the signal's handler as it was."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from truth import PLAIN, SMALL_SAMPLE, correlated, needs

import ismcore
from ismcore.training import loop as training

pytestmark = [pytest.mark.usefixtures("interrupts_are_heard"), pytest.mark.filterwarnings(*SMALL_SAMPLE)]

X = correlated(n=40)
LONG = {"model": ismcore.MLP((4,), "tanh"), "backend": "autograd", "epochs": 10**7}
# The penalty bounds the loss from below. Without it the held-out loss runs away, and is told of, on a machine that does some
# thousand epochs before the time is over.
BOUNDED = {**LONG, "objective": ismcore.ImplicitScoreMatching(1.0)}
SHORT = {**PLAIN, **LONG, "epochs": 40}

PROGRAM = """
import json, os, signal, sys, threading
import numpy as np
import ismcore
from truth import correlated

backend, folder, delays = json.loads(sys.argv[1])
x, seen = correlated(n=40), []
options = {"model": ismcore.MLP((4,), "tanh"), "backend": backend, "epochs": 10**7, "validation": 0.25}
ismcore.fit(x, **{**options, "epochs": 1})  # imports of the framework are not to be interrupted
for number, delay in enumerate(delays):
    path, told = f"{folder}/{number}", []
    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        result = ismcore.fit(x, **options, checkpoint=path, callbacks=[lambda event: told.append(event.kind)])
    except KeyboardInterrupt:
        seen.append({"status": "before the run", "told": told})
        continue
    score, stored = result.score(x), ismcore.load(path)
    seen.append({
        "status": result.status,
        "epochs": len(result.history["loss"]),
        "last": told[-1],
        "usable": bool(np.isfinite(score).all()),
        "stored": stored.status == result.status and bool((stored.score(x) == score).all()),
        "restored": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    })
print(json.dumps(seen))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("autograd", 12), ("torch", 3), ("jax", 3)])
def test_ctrl_c_at_random_moments_gives_a_usable_result_and_a_checkpoint(name, count, tmp_path):
    needs(name)
    delays = [random.Random(count + k).uniform(0.0, 0.4) for k in range(count)]  # noqa: S311
    call = [sys.executable, "-c", PROGRAM, json.dumps([name, str(tmp_path), delays])]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == count
    early = [seen for seen in found if seen["status"] == "before the run"]
    assert all(seen["told"] == [] for seen in early)  # nothing was done yet, so nothing is lost
    assert len(early) < count
    for seen in found:
        if seen not in early:
            epochs = seen.pop("epochs")
            assert epochs >= 0
            assert seen == {"status": "interrupted", "last": "end", "usable": True, "stored": True, "restored": True}


@pytest.mark.slow
def test_a_timeout_at_random_moments_gives_a_usable_result_and_a_checkpoint(tmp_path):
    for number in range(8):
        timeout = random.Random(number).uniform(1e-6, 0.3)  # noqa: S311
        start = time.monotonic()
        result = ismcore.fit(X, **BOUNDED, validation=0.25, timeout=timeout, checkpoint=tmp_path / str(number))
        assert time.monotonic() - start >= timeout
        assert result.status == "timed_out"
        stored = ismcore.load(tmp_path / str(number))
        assert stored.status == "timed_out"
        np.testing.assert_array_equal(stored.score(X), result.score(X))
        again = ismcore.resume(tmp_path / str(number), X, timeout=0.01)
        assert again.status == "timed_out"
        assert len(again.history["loss"]) >= len(result.history["loss"])


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_timeout_ends_the_other_backends_too(backend):
    result = ismcore.fit(X, **{**BOUNDED, "backend": backend}, timeout=0.2)
    assert result.status == "timed_out"
    assert np.isfinite(result.score(X)).all()


@pytest.mark.parametrize("timeout", [0, -1.0, np.nan, np.inf, "soon", True])
def test_an_unusable_timeout_is_refused(timeout):
    with pytest.raises(ismcore.OptionError, match="timeout must be a positive finite number"):
        ismcore.fit(X, **SHORT, timeout=timeout)


@pytest.fixture(autouse=True)
def single_steps(monkeypatch, request):
    """A chunk is one step, where a test is about single events."""
    if "random" not in request.node.name and "timeout" not in request.node.name:
        monkeypatch.setattr(training, "_chunk_limit", lambda problem: 1)


def press(times=1, at=10):
    """A callback during which Ctrl-C is pressed."""

    def callback(event):
        if event.kind == "chunk" and event.epoch == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return callback


def is_restored():
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_first_ctrl_c_ends_after_the_steps_in_progress():
    result = ismcore.fit(X, **SHORT, callbacks=[press()])
    assert (result.status, len(result.history["loss"])) == ("interrupted", 10)
    short = ismcore.fit(X, **{**SHORT, "epochs": 10})
    np.testing.assert_array_equal(result.score(X), short.score(X))
    assert is_restored()


def test_a_second_ctrl_c_ends_at_once(monkeypatch):
    monkeypatch.setattr("ismcore.training.stopping.SAME", 0.0)
    with pytest.raises(KeyboardInterrupt):
        ismcore.fit(X, **SHORT, callbacks=[press(times=2)])
    assert is_restored()


def test_a_second_ctrl_c_of_the_same_moment_is_the_first():
    """As where a terminal and a supervisor both pass one key press on."""
    assert ismcore.fit(X, **SHORT, callbacks=[press(times=3)]).status == "interrupted"
    assert is_restored()


def test_ctrl_c_ends_all_starts_and_lbfgs_and_a_resumed_run(tmp_path):
    result = ismcore.fit(X, **{**SHORT, "validation": 0.25}, restarts=3, callbacks=[press()])
    assert [start["status"] for start in result.restarts] in ([], ["interrupted"])
    assert result.status == "interrupted"
    options = {**SHORT, "objective": ismcore.ImplicitScoreMatching(0.1), "optimizer": ismcore.LBFGS()}
    result = ismcore.fit(X, **options, callbacks=[press(at=5)])
    assert (result.status, len(result.history["loss"])) == ("interrupted", 5)
    ismcore.fit(X, **SHORT, callbacks=[press()], checkpoint=tmp_path / "run")
    result = ismcore.resume(tmp_path / "run", X, callbacks=[press(at=20)])
    assert (result.status, len(result.history["loss"])) == ("interrupted", 20)
    np.testing.assert_array_equal(ismcore.resume(tmp_path / "run", X).score(X), ismcore.fit(X, **SHORT).score(X))


@pytest.mark.filterwarnings("ignore:curvature_weight 0 was chosen:ismcore.IsmWarning")
def test_ctrl_c_during_the_choice_of_a_curvature_weight(monkeypatch):
    seen = []
    real = training.Loop.finish_chunk

    def finish_chunk(loop):
        seen.append(loop)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
        real(loop)

    monkeypatch.setattr(training.Loop, "finish_chunk", finish_chunk)
    result = ismcore.fit(X, **{**SHORT, "validation": 0.3}, objective=ismcore.ImplicitScoreMatching("auto"))
    assert (result.status, len(result.history["loss"]), len(seen)) == ("interrupted", 0, 3)
    assert np.isfinite(result.score(X)).all()


def fails(event):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, None),
        ({"callbacks": [fails]}, ismcore.CallbackFailed),
        ({"optimizer": ismcore.SGD(1e30)}, ismcore.Diverged),
        ({"initial_params": {}}, ismcore.ParameterError),
        ({"epochs": 0}, ismcore.OptionError),
        ({"timeout": 1e-9}, None),
    ],
)
def test_the_handler_is_put_back_whatever_happens(options, error):
    inside = []

    def look(event):
        inside.append(signal.getsignal(signal.SIGINT))

    options = {**SHORT, **options, "callbacks": [look, *options.get("callbacks", ())]}
    if error is None:
        ismcore.fit(X, **options)
    else:
        with pytest.raises(error):
            ismcore.fit(X, **options)
    assert is_restored()
    assert signal.default_int_handler not in inside


@pytest.mark.parametrize("own", [lambda number, frame: pressed.append(number), signal.SIG_IGN])
def test_a_handler_of_the_user_s_own_is_left_alone(own):
    pressed.clear()
    signal.signal(signal.SIGINT, own)
    result = ismcore.fit(X, **SHORT, callbacks=[press()])
    assert signal.getsignal(signal.SIGINT) is own
    assert (result.status, len(pressed)) == ("completed", 0 if own is signal.SIG_IGN else 1)


pressed = []


def test_nothing_is_touched_outside_of_the_main_thread():
    inside, results = [], []

    def look(event):
        inside.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    worker = threading.Thread(target=lambda: results.append(ismcore.fit(X, **SHORT, callbacks=[look])))
    worker.start()
    worker.join()
    assert results[0].status == "completed"
    assert all(inside)
    assert inside

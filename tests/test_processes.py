"""Fits that several processes share are those of one; one that is lost ends the others by name, and the checkpoint goes on."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from importlib import import_module
from pathlib import Path

import ismcore_torch
import numpy as np
import pytest
import ranks

import ismcore
from ismcore.backend.processes import Processes, shared, shared_by

SCRIPT = Path(ranks.__file__)
LIMIT = 100
QUICK = "--xla_backend_optimization_level=0"
"""JAX's processes compile in two thirds of the time."""
pytestmark = pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")


def started(world, backend, *words, devices=1, **environment):
    import_module(ranks.framework(backend))  # for want of it the test fails by its name
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), **environment}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    common["XLA_FLAGS"] = f"{QUICK} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, str(SCRIPT), backend, *map(str, words)]
    return [
        subprocess.Popen(command, env={**common, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True) for rank in range(world)
    ]


def ended(running, limit=LIMIT):
    """Exit status and standard error of each, which are killed after the limit."""
    end = time.monotonic() + limit
    try:
        said = [process.communicate(timeout=max(0.1, end - time.monotonic()))[1] for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return [(process.returncode, text) for process, text in zip(running, said, strict=True)]


def gap(found, right):
    assert found.keys() == right.keys()
    return max(float(np.max(np.abs(found[name] - right[name]))) for name in right)


MEDIA = ("source", "npy", "parquet")
SHARED = [
    ("torch", 2, ("batches", "weights", "whole", "noise", "folds", *MEDIA), 1, "all-but-left"),
    ("torch", 4, ("weights", "source-noise", "npy"), 1, "all"),
    ("jax", 2, ("weights", "source-noise", "folds", *MEDIA), 2, "all-but-left"),
    ("jax", 4, ("npy",), 1, "all"),
    ("devices", 1, ("whole",), 4, "all"),
]
LEFT = "process 1 ended by CallbackFailed, of 2"


@cache
def alone(case, backend):
    """The fit of one process, of rows in memory."""
    return ranks.arrays(ranks.fitted("source" if case in MEDIA else case, backend))


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "world", "cases", "devices", "how"), SHARED)
def test_shared_fits_are_those_of_one_process_whatever_the_rows_lie_in(backend, world, cases, devices, how, tmp_path):
    ranks.write(tmp_path)
    found = ended(started(world, backend, ",".join(cases), tmp_path, how, devices=devices))
    if how == "all":
        assert [status for status, _ in found] == [0] * world, found
    else:
        an_error_that_one_puts_up_with_ended_what_it_shared(found)
    for case in cases:
        first, *others = (dict(np.load(tmp_path / f"{case}-{rank}.npz")) for rank in range(world))
        assert gap(first, alone(case, ranks.framework(backend))) < 1e-10, case
        assert all(gap(other, first) == 0.0 for other in others), case


def an_error_that_one_puts_up_with_ended_what_it_shared(found):
    """And SIGTERM ended the program afterwards, as it does others."""
    (status, said), (other, own) = found
    assert status == other == -signal.SIGTERM, found
    assert said.count(LEFT) == 2, said
    assert own.count(LEFT) == 1, own
    assert "a callback of process 1" in own


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "victim", "after"), [("torch", 1, 0.1), ("torch", 0, 0.8), ("jax", 0, 0.1), ("jax", 1, 0.1)]
)
def test_a_killed_process_ends_the_others_by_name_and_the_checkpoint_goes_on(backend, victim, after, tmp_path):
    ranks.write(tmp_path)
    running = started(2, backend, "long-npy", tmp_path, "checkpoint")
    wait_for(tmp_path / "run", tmp_path / "begun0", tmp_path / "begun1")
    time.sleep(after)
    running[victim].kill()
    killed = time.monotonic()
    status, said = ended([running[1 - victim]])[0]
    running[victim].communicate()
    assert status == 1
    assert time.monotonic() - killed < 10
    assert f"WorkerLost: process {victim} is gone, of 2" in said
    stopped = ismcore.load(tmp_path / "run")
    epochs = len(stopped.history["loss"]) + 3
    right = ranks.arrays(ranks.fitted("long-npy", backend, tmp_path, epochs=epochs))
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / "run").read_bytes())
    resumed = [ranks.arrays(ismcore.resume(copy, ranks.samples("long-npy", tmp_path), epochs=epochs))]
    if victim == 1:
        world = {"torch": 3, "jax": 2}[backend]
        found = ended(started(world, backend, "long-npy", tmp_path, "resume", EPOCHS=str(epochs)))
        assert [status for status, _ in found] == [0] * world, found
        resumed.append(dict(np.load(tmp_path / "0.npz")))
    for other in resumed:
        assert len(other["loss"]) == len(right["loss"])
        assert gap(other, right) < 1e-10


def wait_for(*paths):
    end = time.monotonic() + LIMIT
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_process_that_raises_is_named_in_the_others(tmp_path):
    (first, said), (second, own) = ended(started(2, "torch", "batches", tmp_path, "raises-in-1"))
    assert first == second == 1
    assert f"WorkerLost: {LEFT}" in said
    assert "a callback of process 1" in own


@pytest.mark.slow
def test_what_cannot_be_shared_is_said_in_each(tmp_path):
    (tmp_path / "taken").touch()
    found = ended(started(2, "torch", "batches", tmp_path, "refused"))
    assert [status for status, _ in found] == [0, 0], found
    once = (
        "backend 'autograd' has no part in",
        "compile='off'",
        "LBFGS",
        "have the same samples,",
        "kept open",
        "of a sweep",
    )
    once += ("have the same objective, epochs,", "/taken", "the processes could not sum: Invalid scalar type")
    for _, said in found:
        lines = said.splitlines()
        for text in once:
            assert sum(text in line for line in lines) == 1, (text, said)
        assert sum("have the same starting parameters," in line for line in lines) == 2, said


class Pretended(Processes):
    """Two processes in one, of which the other has nothing to add; what number 0 decides from is the negative."""

    backend = "torch"

    def __init__(self):
        self.rank, self.world, self.parts, self.sums = 1, 2, 2, 0

    def total(self, array):
        self.sums += 1
        return array

    def gather(self, values):
        return np.array([np.negative(values) if len(values) == 1 else values, values])

    def leave(self, error):
        raise AssertionError from error


def test_a_network_is_looked_at_by_each_process_alone():
    processes = Pretended()
    with shared_by(processes):
        ranks.fitted("whole", model=ranks.module(0), epochs=3)
    assert processes.sums == 3


@pytest.mark.parametrize("until", [None, 1e-9])
def test_a_fit_that_was_opened_outside_is_that_of_each_process_alone_inside(until):
    plain = {"model": ranks.MODEL, "backend": "torch", "dtype": "float64"}
    inside, outside = (ismcore.Refit(ranks.X, **plain) for _ in range(2))
    processes = Pretended()
    with shared_by(processes):
        losses = inside.update(steps=6, until=until)
        assert shared() is processes
    assert processes.sums == 0
    assert np.array_equal(losses, outside.update(steps=6, until=until))


def test_a_curvature_weight_is_that_of_the_first_process():
    search = ismcore.ImplicitScoreMatching(curvature_weight=ismcore.CurvatureSearch((0.0, 0.1)))
    with shared_by(Pretended()):
        shared_notes = ranks.fitted("batches", epochs=1, objective=search).notes
    alone = ranks.fitted("batches", epochs=1, objective=search).notes
    tried, right = (re.findall(r"0(?:\.1)?: ([^,)]+)", " ".join(notes)) for notes in (shared_notes, alone))
    assert len(tried) == 2
    assert [float(a) * float(b) < 0.0 for a, b in zip(tried, right, strict=True)] == [True, True]


def test_without_torchrun_and_without_a_group_there_is_an_error(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for _ in range(2):  # the module that it lies in must not take its name
        with pytest.raises(ismcore.OptionError, match="RANK, WORLD_SIZE, MASTER_ADDR"), ismcore_torch.processes():
            pass


@pytest.mark.parametrize(
    ("error", "answers", "said"),
    [
        ("Connection closed by peer", {1: "closed"}, "process 2 is gone, of 3"),
        ("Timed out waiting", {1: "closed"}, "process 2 did not answer within 0.1 s, of 3"),
        (
            "Connection closed by peer",
            {1: "ended by OSError"},
            "process 2 did not answer within 0.1 s, process 1 ended by OS",
        ),
        ("Connection reset by peer", {}, "process 1 did not answer within 0.1 s, process 2 did not answer within 0.1 s, of 3"),
        ("no memory\nat all", {1: "here", 2: "here"}, "the processes could not sum: no memory, of 3"),
    ],
)
def test_a_process_that_does_not_answer_may_be_busy(error, answers, said, monkeypatch):
    sharing = import_module("ismcore_torch.sharing")
    processes = object.__new__(sharing.TorchProcesses)
    processes.rank, processes.world, processes._roll, processes._store = 0, 3, "roll", sharing.dist.HashStore()
    processes._host = processes._device = None
    monkeypatch.setattr(sharing, "ROLL_CALL", 0.1)
    monkeypatch.setattr(sharing.dist.distributed_c10d, "_abort_process_group", lambda group: None)
    for rank, word in answers.items():
        processes._store.set(f"roll/{rank}", word)
    assert processes._missing(RuntimeError(error)).startswith(said)


class Weighing(Pretended):
    """Number 0 finds that half of the normal law is best, by far."""

    def gather(self, values):
        count = len(values) - 2
        return np.array([[0.5, *(0.0,) * (count - 2), 0.25, -1.0, 0.01] if count == 4 else values, values])


def test_candidates_have_the_weights_that_the_first_process_finds():
    with shared_by(Weighing()):
        found = ranks.fitted("folds", epochs=5)
    assert [row["weight"] for row in found.candidates] == [0.5, 0.0, 0.0, 0.25]


class OnGpu(Pretended):
    backend, platform = "jax", "gpu"

    def leave(self, error):
        pass


def test_devices_of_another_kind_than_that_of_the_fit_are_refused():
    with shared_by(OnGpu()), pytest.raises(ismcore.OptionError, match="are those of gpu, and not of cpu"):
        ranks.fitted("whole", "jax", epochs=1)


def test_processes_of_jax_begin_before_all_else_and_one_device_shares_nothing():
    jax, ismcore_jax = import_module("jax"), import_module("ismcore_jax")
    assert len(jax.devices()) == 1
    with (
        pytest.raises(ismcore.OptionError, match="must be called before any JAX calls"),
        ismcore_jax.processes("127.0.0.1:1", 2, 0),
    ):
        pass
    with ismcore_jax.devices():
        assert shared() is None


def test_in_jax_nothing_but_the_program_s_call_is_within_the_sum(monkeypatch):
    """What fails before leaves the others waiting for a word, and not in a sum that they cannot leave."""
    jax, sharing = import_module("jax"), import_module("ismcore_jax.sharing.mesh")
    session, done, within = import_module("ismcore_jax.session"), [], []

    class Watched(sharing.JaxProcesses):
        def together(self, call):
            start = len(done)
            found = super().together(call)
            within.extend(done[start:])
            return found

    def hear(event, seconds, **about):
        if event.endswith("backend_compile_duration"):
            done.append(about["fun_name"])

    drawn = session.JaxSession._drawn
    monkeypatch.setattr(session.JaxSession, "_drawn", lambda *given: done.append("drawn") or drawn(*given))
    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        with shared_by(Watched(sharing._mesh())):
            ranks.fitted("noise", "jax", model=ismcore.MLP((5,)), epochs=2)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert within == []
    assert done.count("jit(on_device)") == 1
    assert "drawn" in done


class Remembering(Pretended):
    """The other process has what this one had the last time."""

    def __init__(self):
        super().__init__()
        self.rank, self.last = 0, None  # which writes the checkpoint

    def gather(self, values):
        if len(values) == 1:
            return np.array([values, values])
        last, self.last = self.last or values, values
        return np.array([last, values])


def test_a_run_goes_on_from_one_state_in_all(tmp_path):
    path = tmp_path / "run"
    ranks.fitted("whole", epochs=2, checkpoint=path)
    with shared_by(Remembering()):
        ismcore.resume(path, ranks.X, epochs=4)
        with pytest.raises(ismcore.OptionError, match="the same starting parameters, and have not"):
            ismcore.resume(path, ranks.X, epochs=4)

"""What the programs in this folder share: one prepared evaluation, interleaved rounds, and what the machine is."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import ismcore
from ismcore.coordinates import Coordinates
from ismcore.optimizers.rules import SGD
from ismcore.plugins.lookup import load_backend
from ismcore.problem import Loss, Problem

REPORTS = Path(__file__).parent / "reports"
PACKAGES = ("ismcore", "numpy", "autograd", "torch", "jax", "jaxlib")


class Evaluation:
    """Loss and gradient of one problem on one backend, prepared as a session prepares it: the same function, arrays in place.

    Calling it returns when the values are there: the loss is fetched, and the device has nothing left to do.
    """

    def __init__(self, backend, model, objective, x, *, dtype="float32", seed=0):
        self.engine = load_backend(backend)(dtype=dtype)
        problem = Problem(Loss(model, objective), SGD(), x, Coordinates.identity(x.shape[1]), seed=seed)
        with self.engine.scope():
            self.function = self.engine.loss_and_gradient(problem.loss)
            self.arrays = (
                self.engine.asarrays(model.initial_params(seed, x.shape[1])),
                self.engine.asarray(x),
                self.engine.asarrays(problem.inputs() | problem.draws(0)),
            )
            self.engine.synchronize()

    def __call__(self):
        with self.engine.scope():
            loss, gradient = self.function(*self.arrays)
            self.engine.to_numpy(loss)
            self.engine.synchronize()
        return loss, gradient

    def values(self):
        """Loss and gradient by name, in NumPy."""
        loss, gradient = self()
        found = {name: self.engine.to_numpy(value) for name, value in gradient.items()}
        return {"loss": self.engine.to_numpy(loss), **found}


def error(found, expected):
    """Largest error of any array, relative to max(1, its largest magnitude)."""
    assert found.keys() == expected.keys()
    return max(float(np.max(np.abs(found[k] - e)) / max(1.0, np.max(np.abs(e)))) for k, e in expected.items())


def interleaved(calls: dict[str, Callable], rounds: int, *, warm: int = 3) -> dict[str, list[float]]:
    """Seconds of each call in each round; every round runs all of them, so that drift meets them alike."""
    for call in calls.values():
        for _ in range(warm):
            call()
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median(seconds):
    return statistics.median(seconds)


def machine(threads: int | None = None) -> dict:
    """Processor, cores and memory: no names, no paths."""
    found = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found["cpu"] = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), found["cpu"])
        kib = Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]
        found["memory_gib"] = round(int(kib) / 2**20)
    if threads:
        found["threads"] = threads
    return found


def versions(packages=PACKAGES) -> dict[str, str]:
    found = {}
    for name in packages:
        try:  # of ismcore that of the code at work: the metadata of an editable installation is as old as that
            found[name] = ismcore.__version__ if name == "ismcore" else version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def one_thread_environment(threads: int) -> dict[str, str]:
    """The environment in which NumPy, torch and XLA use this many threads; it must be there before they are imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "PJRT_NPROC")
    found = {**os.environ, **dict.fromkeys(names, str(threads))}
    if threads == 1:
        found["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    return found


def thread_count(backend: str) -> int:
    """Threads that a framework may use in this process."""
    if backend == "torch" and "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def peak_mib() -> float:
    """Peak memory of this process so far, in MiB.

    On Linux VmHWM: `getrusage` counts what the process that started this one had, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_fresh_process(program: str, arguments: dict, threads: int | None = None) -> dict:
    """Run a program of this folder as `program --worker JSON`, and read the JSON in the last line that it writes.

    Threads are as the frameworks choose unless a number is given.
    """
    done = subprocess.run(  # noqa: S603  (our own program)
        [sys.executable, program, "--worker", json.dumps(arguments)],
        env=one_thread_environment(threads) if threads else None,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def write_report(name: str, markdown: str, data: dict) -> None:
    """Write NAME.md and NAME.json into `bench/reports`."""
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / f"{name}.md").write_text(markdown)
    (REPORTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")


def heading(title: str, command: str, threads: int | None = None, packages=PACKAGES) -> str:
    """Title, the command, machine and versions, as Markdown."""
    about = ", ".join(f"{key} {value}" for key, value in machine(threads).items())
    used = ", ".join(f"{key} {value}" for key, value in versions(packages).items())
    return f"# {title}\n\nWritten by `{command}`. Machine: {about}. Versions: {used}.\n"


def two_hidden(width: int, activation: str = "softplus"):
    return ismcore.MLP((width, width), activation)

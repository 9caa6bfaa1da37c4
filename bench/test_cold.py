"""A first fit in a fresh process, beside the import of the framework alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from measuring import in_fresh_process, median, thread_count
from rounds import RECORDING, recorded

import conftest
import ismcore

ROUNDS = 3
PROGRAM = str(Path(__file__).with_name("cold.py"))


def pytest_generate_tests(metafunc):
    metafunc.parametrize("backend", conftest.backends(metafunc.config))


@pytest.mark.benchmark(timer=recorded)
def test_cold_start(request, cells, device, tmp_path, backend):
    """`ismcore fit` on the reference run's sample and the import alternate; the first run of each does not count."""
    cells.need_device("cold start", backend, "ismcore fit")
    np.save(tmp_path / "sample.npy", ismcore.datasets.reference_run().sample)
    words = ["fit", "sample.npy", "--backend", backend, "--device", device, "--out", "out.safetensors"]
    commands = {"fit": ["-m", "ismcore", *words], "import": ["-c", f"import {backend}"]}
    seconds = {name: [] for name in commands}
    for _ in range(1 if cells.quick else 1 + ROUNDS):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            seconds[name].append(time.perf_counter() - start)
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = f"cold start {device} float32"
    benchmark.extra_info.update(
        family="cold",
        case="cold",
        program="ismcore fit",
        backend=backend,
        device=device,
        dtype="float32",
        phases=in_fresh_process(PROGRAM, {"backend": backend, "device": device}),
        import_alone=median(seconds["import"][-ROUNDS:]),
        threads=thread_count(backend),
        unit="seconds of a process",
    )
    RECORDING.hand_over(benchmark, seconds["fit"][-ROUNDS:])

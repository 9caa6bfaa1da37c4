"""Peak memory of one program, in a process of its own."""

from __future__ import annotations

from pathlib import Path

from cases import case
from measuring import in_fresh_process, thread_count
from programs import names

import conftest

PEAKS = (
    ("n-1000000", "ours"),
    ("n-1000000", "hand"),
    ("two-512", "ours"),
    ("two-512-penalised", "ours"),
    ("two-512-penalised", "hand"),
)
SMALL = (("n-1000", "ours"),)
PROGRAM = str(Path(__file__).with_name("memory.py"))


def pytest_generate_tests(metafunc):
    peaks = SMALL if metafunc.config.getoption("--smallest") else PEAKS
    rows = [
        (id, backend, program)
        for id, program in peaks
        for backend in conftest.backends(metafunc.config)
        if program in names(case(id), backend)
    ]
    metafunc.parametrize(("id", "backend", "program"), rows)


def test_peak_memory(request, cells, device, id, backend, program):
    cells.need_device(f"memory {id}", backend, program)
    job = {"case": id, "backend": backend, "program": program, "dtype": "float32", "device": device}
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = f"memory {id} {device} float32"
    found = benchmark.pedantic(in_fresh_process, (PROGRAM, job), rounds=1)
    benchmark.extra_info.update(job, family="memory", mib=found, threads=thread_count(backend), unit="seconds of a process")

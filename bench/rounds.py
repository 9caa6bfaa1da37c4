"""Interleaved rounds of the programs of a cell: checked, timed once, and then handed to pytest-benchmark one by one."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field, replace

import numpy as np
from programs import names, programs

from ismcore.errors import IsmError
from ismcore.plugins.lookup import load_backend

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
"""How far a loss may be from its answer, relative to max(1, its magnitude)."""
REST = 0.12
"""Seconds before each run: OpenBLAS's threads keep turning for 2^28 ticks of the processor's clock after their last product,
103 ms at 2.6 GHz, those of OpenMP and XLA for less, and would share the cores with whoever comes next."""
FEW = 10
"""Steps of a run that is to show only that it works."""


@dataclass
class Timed:
    """Seconds of one program.

    Attributes:
        first: Of the whole first run, which compiles what is compiled and was checked.
        steps: Seconds a step in each round after it.
    """

    first: float
    steps: list[float] = field(default_factory=list)


class Recording:
    """Seconds already taken, as a clock for pytest-benchmark, which reads it before and after each call of `advance`.

    The rounds of a cell's programs alternate, so that what else the machine does meets them alike; pytest-benchmark by itself
    runs all rounds of one program, and then all of the next.
    """

    def __init__(self):
        self.now, self._rounds = 0.0, iter(())

    def advance(self):
        self.now += next(self._rounds)

    def hand_over(self, benchmark, seconds):
        """Give the seconds of all rounds to a benchmark whose timer is `recorded`."""
        self._rounds = iter(seconds)
        benchmark.pedantic(self.advance, rounds=len(seconds))


RECORDING = Recording()


def recorded():
    """The timer of what is handed over."""
    return RECORDING.now


class Cells:
    """Seconds a step by case, backend, dtype and program; all programs of a cell are measured when the first is asked for.

    Attributes:
        device: Where.
        quick: One round of a few steps each.
        not_timed: What was not timed and why, as dicts for the report.
    """

    def __init__(self, device, *, quick=False):
        self.device, self.quick = device, quick
        self.not_timed = []
        self._cell, self._found = None, {}

    def __call__(self, case, backend, dtype, name):
        """The timing of one program; ends the test where there is none."""
        cell = case.id, backend, dtype
        if cell != self._cell:
            # no more than one is kept: the arrays of some are large
            self._cell, self._found = cell, self._measured(case, backend, dtype)
            gc.collect()
        found = self._found[name]
        if isinstance(found, str):
            self._leave_out(case.id, backend, dtype, name, found)
        return found

    def need_device(self, case, backend, program):
        """Leave a test out where the backend cannot compute on the device."""
        why = missing_device(backend, self.device)
        if why:
            self._leave_out(case, backend, "float32", program, why)

    def _leave_out(self, case, backend, dtype, program, why):
        """Note it for the report, and end the test: as skipped where there is no device, else as failed."""
        import pytest  # `gpu.py` uses the rest of this file without it

        self.not_timed.append({"case": case, "backend": backend, "dtype": dtype, "program": program, "why": why})
        (pytest.skip if why.startswith("no device") else pytest.fail)(f"not timed: {why}")

    def _measured(self, case, backend, dtype):
        why = missing_device(backend, self.device)
        if why:
            return dict.fromkeys(names(case, backend), why)
        found = programs(case, backend, dtype, self.device)
        if self.quick:
            found = {name: replace(program, epochs=min(program.epochs, FEW)) for name, program in found.items()}
        return interleaved(found, 1 if self.quick else case.rounds, TOLERANCE[dtype])


def missing_device(backend, device):
    """Why a backend cannot compute on a device here, or ""."""
    try:
        present = load_backend(backend).devices()
    except IsmError as error:
        return f"{type(error).__name__}: {error}"
    return "" if {device, f"{device}:0"} & set(present) else f"no device {device!r}; {backend} has {', '.join(present)}"


def interleaved(programs, rounds, tolerance):
    """The timing of each program by name, or the reason why its first losses were not right."""
    found = {name: checked(program, tolerance) for name, program in programs.items()}
    sound = [name for name in programs if isinstance(found[name], Timed)]
    for round_ in range(rounds):
        # in another order each time: what a program leaves behind, in caches and in threads, meets now one, now another
        for name in np.random.default_rng(round_).permutation(sound):
            take, epochs = programs[name].take, programs[name].epochs
            time.sleep(REST)
            if epochs > FEW:
                take(FEW)  # a processor that has rested runs the next 20 ms at up to half its speed
            found[name].steps.append(take(epochs)[1])
    return found


def checked(program, tolerance):
    """The timing of the first run once its first losses are right, else a string with the reason."""
    expected = program.expected
    start = time.perf_counter()
    try:
        losses, _ = program.take(max(program.epochs, 0 if expected is None else len(expected)))
    except Exception as error:  # whatever it is, the other programs are timed
        return f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    if not np.all(np.isfinite(losses)):
        return "a loss is not finite"
    if expected is not None:
        off = float(np.max(np.abs(losses[: len(expected)] - expected) / np.maximum(1.0, np.abs(expected))))
        if off > tolerance:
            return f"the first losses are off by {off:.1e}, which is more than {tolerance:.0e}"
    return Timed(seconds)

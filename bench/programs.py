"""Which programs run in a cell: ours, the same by hand in that framework, and the floors. Each is checked before it is timed.

| program | is |
|---|---|
| ours | `ismcore.fit` |
| compiled | `ismcore.fit(compile=...)`, compiled whether or not that pays |
| tier 0 | `ismcore.fit(compile="off")` |
| ours, squared score | `ismcore.fit` with 1/2 abs(psi)^2 alone |
| ours, sliced | `ismcore.fit` with `SlicedScoreMatching(1)` |
| ours, n = 10,000, ... | `ismcore.fit` on fewer rows, for the slope of time by rows |
| clipping, averaging, ... | `ismcore.fit` with one option more: see `ours.added` |
| hand | what a careful user writes: see `by_hand/` |
| unsynchronised | hand, with the losses left on the device until the end (JAX) |
| scan | a `lax.scan` by hand (JAX) |
| squared score | hand, with 1/2 abs(psi)^2 alone |
| NumPy, C | gradients derived by hand: the floors; C runs on one thread |
| ebmkit, coreax, ... | other people's libraries: see `by_others/` |
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import by_others
import numpy as np
from by_hand import with_c, with_numpy
from cases import FEWER, Case
from cases import case as case_of
from ours import BATCHES, COMPILED, added, fit, sliced, squared_score, step_seconds

import ismcore

CHECKED = 3
"""Losses that are compared before anything is timed: from the second on, they tell of the gradient."""
BY_HAND = ("hand", "unsynchronised", "scan", "square")
OUTSIDE = {"torch": ("unsynchronised", "scan"), "jax": ("compiled",), "autograd": ("unsynchronised", "scan", "compiled")}
"""What a backend has no counterpart of; a third party's has no program by hand."""


@dataclass
class Program:
    """One way to run a case.

    Attributes:
        name: See the table above.
        take: epochs -> (loss of each epoch before its update, seconds a step).
        epochs: Steps in one timed run.
        expected: Its first losses, from elsewhere, or None for the squared score alone, and where probes or rows are random.
    """

    name: str
    take: Callable[[int], tuple[np.ndarray, float]]
    epochs: int
    expected: np.ndarray | None


def names(case, backend):
    """Names of the programs of a cell, known without importing a framework."""
    if "others" in case.beside:
        others = by_others.names(case, backend)
        return ["ours", "ours, sliced", *others] if others else []
    outside = OUTSIDE.get(backend, BY_HAND) + (BY_HAND if backend in case.but_for else ())
    beside = [name for name in case.beside if name not in outside]
    found = ["ours"]
    for name in beside:
        found += {
            "square": ["ours, squared score", "squared score"],
            "options": list(added(case)),
            "rows": [on_rows(n) for n in FEWER],
        }.get(name, [name])
    if isinstance(case, Case):
        found += ["NumPy", "C"] if with_c.serves(case, "float32") else ["NumPy"]
    return found


def on_rows(n):
    """Name of ours on so many rows, beside more of them."""
    return f"ours, n = {n:,}"


def programs(case, backend, dtype, device):
    """The programs of a cell, by name; preparing compiles and places arrays, but runs nothing."""
    answer = expected_losses(case)
    found = {"ours": _ours(case, backend, dtype, device, answer)}
    if "compiled" in case.beside:
        found["compiled"] = _ours(case, backend, dtype, device, answer, compile=COMPILED)
    if "tier 0" in case.beside:
        found["tier 0"] = _ours(case, backend, dtype, device, answer, compile="off")
    if "square" in case.beside:
        found["ours, squared score"] = _ours(case, backend, dtype, device, None, objective=squared_score())
    if "sliced" in case.beside:
        # in one dimension v^2 = 1, and sliced is exact
        found["ours, sliced"] = _ours(case, backend, dtype, device, answer if case.d == 1 else None, objective=sliced())
    if "rows" in case.beside:
        for n in FEWER:
            fewer = case_of(f"n-{n}")
            found[on_rows(n)] = _ours(fewer, backend, dtype, device, expected_losses(fewer))
    if "options" in case.beside:
        for name, options in added(case).items():
            known = not {"objective", "batch_size"} & options.keys()
            found[name] = _ours(case, backend, dtype, device, answer if known else None, **options)
    for name, run in _by_others(case, backend, dtype, device).items():
        epochs = case.epochs if name in by_others.COMPILED else case.slow_epochs
        found[name] = Program(name, _timed(run), epochs, answer if by_others.is_known(name, case) else None)
    for name, run in _by_hand(case, backend, dtype, device).items():
        slow = name in ("hand", "unsynchronised")
        found[name] = Program(
            name, _timed(run), case.slow_epochs if slow else case.epochs, None if "square" in name else answer
        )
    floors = {**with_numpy.prepare(case, dtype), **with_c.prepare(case, dtype)} if isinstance(case, Case) else {}
    for name, run in floors.items():
        found[name] = Program(name, _timed(run), case.epochs, answer)
    return {name: found[name] for name in names(case, backend) if name in found}


def _by_hand(case, backend, dtype, device):
    if not set(names(case, backend)) & {"hand", "scan", "squared score"}:
        return {}
    return importlib.import_module(f"by_hand.with_{backend}").prepare(case, dtype, device)


def _by_others(case, backend, dtype, device):
    if "others" not in case.beside:
        return {}
    return importlib.import_module(f"by_others.with_{backend}").prepare(case, dtype, device)


def _ours(case, backend, dtype, device, answer, **options):
    batches = BATCHES if "batch_size" in options else 1

    def take(epochs):
        start = time.perf_counter()
        result = fit(case, backend, -(-epochs // batches), dtype=dtype, device=device, **options)
        losses = result.history["loss"]
        steps = len(losses) * batches
        return losses, (time.perf_counter() - start) / steps if case.whole else step_seconds(result, steps)

    return Program("ours", take, case.epochs, answer)


def _timed(run):
    def take(epochs):
        start = time.perf_counter()
        losses = run(epochs)
        return losses, (time.perf_counter() - start) / epochs

    return take


def expected_losses(case):
    """The first losses in float64, by no differentiation library: the kit's answer, or gradients derived by hand."""
    if isinstance(case, Case):
        return with_numpy.prepare(case, "float64")["NumPy"](min(CHECKED, case.slow_epochs + 1))
    adam = ismcore.Adam(case.rate)
    state, losses = adam.start(case.params), []
    for step in range(CHECKED):
        loss, gradient = case.value_and_grad(state.params, step)
        losses.append(loss)
        state = adam.update(state, gradient, case.rate)
    return np.array(losses)

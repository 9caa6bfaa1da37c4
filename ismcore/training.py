"""The training loop: chunks of steps in the backend, events in between. It knows no framework and no objective."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ismcore.backend import Backend, Session
from ismcore.problem import Params, Problem, Steps, TrainState

__all__ = ["FitEvent", "Run", "train"]

DRAW_BYTES = 64 * 2**20
"""Random draws of a chunk take at most about this much memory."""
MAX_CHUNK = 2**30
CHUNK_SECONDS = 0.2
"""Chunks are sized to last about this long: short enough to follow, long enough to cost nothing."""


@dataclass(frozen=True, eq=False)
class FitEvent:
    """What happened in a run.

    Attributes:
        kind: "start", "chunk" or "end".
        epoch: Epochs done.
        epochs: Epochs asked for.
        losses: The loss of each epoch done so far, before its update.
        seconds: Time since the start, from a monotonic clock.
        status: How the run ended; "" before its end.
    """

    kind: str
    epoch: int
    epochs: int
    losses: np.ndarray
    seconds: float
    status: str = ""


@dataclass(eq=False)
class Run:
    """A run and what came of it.

    Attributes:
        state: The last state known to be finite.
        losses: The loss of each epoch done, before its update.
        snapshots: Parameters by the number of epochs that led to them.
        status: "completed" or "diverged".
        timings: Seconds spent in "prepare" and "run".
    """

    state: TrainState
    losses: np.ndarray
    snapshots: dict[int, Params] = field(default_factory=dict)
    status: str = "completed"
    timings: dict[str, float] = field(default_factory=dict)


def train(
    backend: Backend,
    problem: Problem,
    state: TrainState,
    *,
    epochs: int,
    snapshot_epochs: Iterable[int] = (),
    listeners: Sequence[Callable[[FitEvent], object]] = (),
) -> Run:
    """Run full-batch epochs, one step each, from the state given.

    A run ends early, as "diverged", after the first chunk that holds a loss which is not finite; the state is then the one
    before that chunk, and the losses are those up to and with the first bad one.

    Args:
        backend: Where to compute.
        problem: What to minimise.
        state: Where to start.
        epochs: Steps to take.
        snapshot_epochs: Epochs after which to keep the parameters; 0 is the start.
        listeners: Called with every event, between chunks.
    """
    start = time.monotonic()
    with backend.scope():
        session = backend.prepare(problem, state)
        backend.synchronize()
    run = Run(state, np.empty(0), timings={"prepare": time.monotonic() - start})
    wanted = set(snapshot_epochs)
    stops = sorted({*wanted, epochs})

    def notify(kind: str) -> None:
        losses = run.losses.view()
        losses.flags.writeable = False  # listeners look, they do not touch
        status = run.status if kind == "end" else ""
        event = FitEvent(kind, len(losses), epochs, losses, time.monotonic() - start, status)
        for listener in listeners:
            listener(event)

    notify("start")
    if 0 in wanted:
        run.snapshots[0] = state.copy().params
    began = time.monotonic()
    length = 16
    limit = _chunk_limit(problem)
    while run.status == "completed" and len(run.losses) < epochs:
        done = len(run.losses)
        count = min(length, limit, next(stop for stop in stops if stop > done) - done)
        seconds = _take(backend, problem, session, run, count)
        length = int(np.clip(length * CHUNK_SECONDS / max(seconds, 1e-6), length / 4 + 1, length * 4))
        if run.status == "completed" and len(run.losses) in wanted:
            run.snapshots[len(run.losses)] = run.state.copy().params
        notify("chunk")
    run.timings["run"] = time.monotonic() - began
    notify("end")
    return run


def _chunk_limit(problem: Problem) -> int:
    """Steps whose draws fit into `DRAW_BYTES`."""
    size = sum(value.nbytes for value in problem.draws(0).values())
    return max(1, DRAW_BYTES // size) if size else MAX_CHUNK


def _steps(problem: Problem, done: int, count: int) -> Steps:
    rates = np.full(count, problem.optimizer.learning_rate, dtype=np.float64)
    first = problem.draws(done)
    drawn = [first, *(problem.draws(done + k) for k in range(1, count))] if first else []
    return Steps(rates, {name: np.stack([step[name] for step in drawn]) for name in first})


def _take(backend: Backend, problem: Problem, session: Session, run: Run, count: int) -> float:
    """One chunk of steps; returns the seconds that it took."""
    start = time.monotonic()
    with backend.scope():
        losses = session.run(_steps(problem, run.state.step, count))
        state = session.state()
    finite = np.isfinite(losses)
    if finite.all() and all(np.isfinite(value).all() for value in state.params.values()):
        run.state = state
    else:
        run.status = "diverged"
        losses = losses[: int(np.argmin(finite)) + 1] if not finite.all() else losses
    run.losses = np.concatenate([run.losses, losses])
    return time.monotonic() - start

"""Training from a source: a session sees a window of rows at a time, while a thread reads the next one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import cast

import numpy as np

from ismcore.backend.contract import Session
from ismcore.errors import SamplesError
from ismcore.objectives import LossInputs
from ismcore.optimizers.state import TrainState
from ismcore.problem import Problem, Steps, take_rows
from ismcore.samples.sources.source import LANES
from ismcore.samples.sources.survey import Survey
from ismcore.seeds import stream

__all__ = ["StreamedProblem", "StreamedSession"]

Begin = Callable[[Problem, TrainState], Session]
"""Makes the session of a backend for a window, from a state."""


@dataclass(frozen=True, eq=False)
class StreamedProblem(Problem):
    """A problem whose rows come in windows: `x` holds those of one, (l w, d), or others that stand for them.

    Row i of the k-th block of a window that this process has is row w k + i of `x`, with w the rows of the largest block and l
    such blocks at most. The r rows of a block that are trained on, in an order of their own, are dealt over the m steps of its
    window: the j-th of its 16 blocks gives step t those from floor(t r / m + j / 16) to before floor((t + 1) r / m + j / 16).
    So all rows are dealt in an epoch, and where blocks are of equal size batches differ by one row at most. The loss of a step
    is the mean over its rows of all processes, of which this one has its share; where a block gives fewer rows than it might,
    others of it stand there with weight 0, for one shape throughout. All of that is a function of the seed and the number of
    the step: the place in the stream is the number of steps taken.

    Attributes:
        survey: Of the source, and which rows are trained on.
        rank: Number of this process.
        world: Processes that share the source.
    """

    survey: Survey | None = None
    rank: int = 0
    world: int = 1
    _kept: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, problem: Problem, survey: Survey, rank: int = 0, world: int = 1) -> StreamedProblem:
        """A problem of some rows of a source as the problem of all that are trained on, or of the share of one process."""
        given = {f.name: getattr(problem, f.name) for f in fields(Problem) if f.init}
        given |= {"row_weight": None, "batch_size": problem.batch_size or LANES * survey.source.layout.width}
        return cls(**given, survey=survey, rank=rank, world=world)

    @property
    def _rows(self) -> Survey:
        assert self.survey is not None  # noqa: S101  (our own bug otherwise)
        return self.survey

    @property
    def n(self) -> int:
        """Number of rows trained on in an epoch, by all processes."""
        return int(self._rows.sizes.sum())

    @cached_property
    def _rows_of_a_block(self) -> int:
        """Rows that a block gives to a step, at most."""
        most = int(self._rows.sizes.max())
        return min(most, max(1, (self.batch_size or most) // LANES))

    @cached_property
    def batches_a_window(self) -> int:
        """Steps of a window."""
        return -(-int(self._rows.sizes.max()) // self._rows_of_a_block)

    @property
    def batches(self) -> int:
        """Steps of an epoch."""
        return self._rows.source.layout.windows * self.batches_a_window

    @property
    def _lanes(self) -> int:
        """Blocks of a window that this process has, at most."""
        return -(-LANES // self.world)

    @property
    def batch_rows(self) -> int:
        """Rows of a step of this process, repeated ones with them."""
        return self._lanes * self._rows_of_a_block

    @property
    def is_dealt(self) -> bool:
        """See `Problem.is_dealt`."""
        return self.world > 1

    def draws(self, step: int) -> LossInputs:
        """See `Problem.draws`: of those for the rows of all processes its own."""
        if not self.is_dealt:
            return super().draws(step)
        each, own = self._rows_of_a_block, self._own(step // self.batches_a_window)
        drawn = self.objective.draws(stream(self.seed, "draws", step), LANES * each, self.x.shape[1])
        lanes = np.zeros(self._lanes, dtype=np.int64)
        lanes[: len(own)] = own
        return take_rows(drawn, self.row_axes, (lanes[:, None] * each + np.arange(each)).ravel())

    @property
    def batches_are_alike(self) -> bool:
        """See `Problem.batches_are_alike`."""
        sizes = self._rows.sizes
        return self.world == 1 and int(sizes.min()) == int(sizes.max()) == self.batches_a_window * self._rows_of_a_block

    def batch_share(self, step: int, count: int) -> np.ndarray:
        """See `Problem.batch_share`; batches that are a row short count as the others."""
        return np.full(count, 1.0 / self.batches)

    def rows(self, step: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of `x`, of the step's window, and their weights for each step from the given one: both (count, batch_rows)."""
        rows, weight = np.empty((count, self.batch_rows), dtype=np.int64), np.empty((count, self.batch_rows))
        taken = 0
        while taken < count:
            window, batch = divmod(step + taken, self.batches_a_window)
            dealt, shares = (table[batch : batch + count - taken] for table in self._dealt(window))
            rows[taken : taken + len(dealt)], weight[taken : taken + len(dealt)] = dealt, shares
            taken += len(dealt)
        return rows, weight

    def _dealt(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """What `rows` gives for all steps of a window, which is counted from the first epoch on."""
        if window not in self._kept:
            self._kept.clear()  # one window is some megabytes
            survey, width, steps, each = (
                self._rows,
                self._rows.source.layout.width,
                self.batches_a_window,
                self._rows_of_a_block,
            )
            rng = stream(self.seed, "shuffle", window)
            places, there = np.zeros((steps, LANES, each), dtype=np.int64), np.zeros((steps, LANES, each), dtype=bool)
            for lane, number in enumerate(self._numbers(window)):
                rows = rng.permutation(survey.trained(int(number)))
                cuts = (np.arange(steps + 1) * len(rows) * LANES + lane * steps) // (LANES * steps)
                at = cuts[:-1, None] + np.arange(each)
                there[:, lane] = at < cuts[1:, None]
                places[:, lane] = rows[np.minimum(at, len(rows) - 1)]
            own = self._own(window)
            weight = np.zeros((steps, self._lanes, each))
            weight[:, : len(own)] = (there / there.sum(axis=(1, 2), keepdims=True))[:, own]
            found = np.zeros((steps, self._lanes, each), dtype=np.int64)
            found[:, : len(own)] = places[:, own] + width * np.arange(len(own))[:, None]
            self._kept[window] = found.reshape(steps, -1), weight.reshape(steps, -1)
        return self._kept[window]

    def _numbers(self, window: int) -> np.ndarray:
        """Numbers of the blocks of a window, (16,)."""
        epoch, place = divmod(window, self._rows.source.layout.windows)
        return self._rows.source.order(epoch, self.seed)[place * LANES : (place + 1) * LANES]

    def _own(self, window: int) -> np.ndarray:
        """Which blocks of a window this process has, by their place in it."""
        first = window % self._rows.source.layout.windows * LANES
        return np.flatnonzero((first + np.arange(LANES)) % self.world == self.rank)

    def windows(self, window: int, epochs: int) -> Generator[np.ndarray, None, None]:
        """The rows of each window from the given one to the last of the epochs, those of this process: z, (l w, d).

        Raises:
            SamplesError: A block cannot be used; the message names it.
        """
        source = self._rows.source
        layout, domain = source.layout, self.objective.domain
        for epoch in range(window // layout.windows, epochs):
            place = max(0, window - epoch * layout.windows)
            blocks = source.blocks(epoch, self.seed, self.rank, self.world, start=place * LANES)
            for number in range(epoch * layout.windows + place, (epoch + 1) * layout.windows):
                x = np.zeros((self._lanes * layout.width, source.shape[1]))
                for k, own in enumerate(self._numbers(number)[self._own(number)]):
                    block = next(blocks, None)
                    if block is None:
                        raise SamplesError(f"the source gave fewer than its {layout.blocks} blocks in epoch {epoch}")
                    self._rows.check(int(own), block)
                    if domain is not None:
                        domain.check(block)
                    x[k * layout.width : k * layout.width + len(block)] = self.coordinates(block)
                yield x
            if next(blocks, None) is not None:
                raise SamplesError(f"the source gave more than its {layout.blocks} blocks in epoch {epoch}")

    def on(self, x: np.ndarray) -> StreamedProblem:
        """The same with the rows of another window, as `windows` gives them."""
        base = {name: value for name, value in (self.fixed_inputs or {}).items() if name.startswith("base_")}
        return replace(self, x=x, fixed_inputs=cast(LossInputs, {**self.loss.inputs(x, self.coordinates), **base}))


class StreamedSession(Session):
    """Takes the steps of a source, window by window, by the session of a backend.

    Args:
        problem: What is trained on.
        state: Where to go on from.
        epochs: How many the run has at most, after which nothing is read ahead.
        begin: Makes the backend's session.
    """

    def __init__(self, problem: StreamedProblem, state: TrainState, epochs: int, begin: Begin) -> None:
        self._problem, self._begin, self._state = problem, begin, state
        self._step, self._window = state.step, -1
        self._session: Session | None = None
        self._windows = problem.windows(state.step // problem.batches_a_window, epochs)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ismcore-rows")
        self._next: Future[np.ndarray | None] = self._reader.submit(next, self._windows, None)

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`."""
        losses, taken, length = [], 0, self._problem.batches_a_window
        while taken < steps.count:
            window, place = divmod(self._step, length)
            if window != self._window:
                self._enter(window)
            count = min(steps.count - taken, length - place)
            assert self._session is not None  # noqa: S101  (our own bug otherwise)
            losses.append(self._session.run(steps.part(taken, taken + count)))
            taken, self._step = taken + count, self._step + count
        return np.concatenate(losses)

    def _enter(self, window: int) -> None:
        x = self._next.result()
        assert x is not None  # noqa: S101  (no step is asked for after the last)
        problem = self._problem.on(x)
        self._next = self._reader.submit(next, self._windows, None)
        if self._session is None or not self._session.follow(problem):
            self._session = self._begin(problem, self.state())
        self._window = window

    def state(self) -> TrainState:
        """See `Session.state`."""
        return self._state if self._session is None else self._session.state()

    def close(self) -> None:
        """See `Session.close`: waits for the window that is read, and reads no other."""
        self._next.cancel()
        self._reader.shutdown(wait=True)
        self._windows.close()
        if self._session is not None:
            self._session.close()

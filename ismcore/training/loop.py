"""The training loop: chunks of steps in the backend, validation and events in between. It knows no framework, no objective."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

import numpy as np

from ismcore.backend.contract import Backend, Session
from ismcore.backend.processes import gathered
from ismcore.errors import CallbackFailed, CheckpointMismatch
from ismcore.ops import Params
from ismcore.optimizers.state import TrainState
from ismcore.problem import Problem
from ismcore.seeds import stream
from ismcore.training.events import FitEvent, Kind, Listener, tell
from ismcore.training.run_state import Best, Plan, RollbackPoint, RunState
from ismcore.training.stopping import StopRequest

__all__ = ["Loop", "Prepare", "Saver", "train", "validation_loss"]

DRAW_BYTES = 64 * 2**20
"""What is drawn for the steps of a chunk takes at most about this much memory."""
MAX_CHUNK = 2**30
CHUNK_SECONDS = 0.2
"""Chunks are sized to last about this long: short enough to follow, long enough to cost nothing."""
GROWTH = 16
"""A chunk has at most so many times the steps of the one before it; the first has one, as nobody knows how long that takes."""
NOTICEABLE = 1e-6
"""A held-out loss is better if it is lower by this share of it: less is the rounding of another backend."""
ROLLBACKS = 10
"""So often a run rolls back and halves its learning rate before it is given up as diverged."""

ValidationLoss = Callable[[Params], float]
"""The objective on the held-out rows, of parameters (NumPy)."""
Prepare = Callable[[Backend, TrainState], Session]
"""Makes a session that goes on from a state."""
Saver = Callable[[RunState, bool], str]
"""Writes a checkpoint if one is due, or in any case if the flag is set; the file's name, or "" where nothing was written."""


def validation_loss(backend: Backend, held_out: Problem) -> ValidationLoss:
    """The objective on held-out samples, as a function of the parameters; draws are made once, so that its values compare."""
    rng = stream(held_out.seed, "validation")
    drawn = held_out.objective.draws(rng, *held_out.x.shape)
    with backend.scope():
        x, given = backend.asarray(held_out.x), backend.asarrays(held_out.inputs() | drawn)
        loss = backend.loss(held_out.loss)

    def loss_of(params: Params) -> float:
        with backend.scope():
            return float(backend.to_numpy(loss(backend.asarrays(params), x, given)))

    return loss_of


class Loop:
    """What happens between chunks, whoever takes the steps: history, validation, snapshots, checkpoints, events, when to end.

    Args:
        problem: What is minimised.
        plan: How.
        run_state: Where the run stands; kept up to date.
        validation_loss: Held-out loss of parameters; None where nothing is held out.
        listeners: Told of every event.
        stop: Ends the run when it says so.
        save: Writes checkpoints.
        prepare: Makes the session that takes the steps; the backend's own for the problem if None.

    Raises:
        CheckpointMismatch: The state is not the one after the steps in its history.
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        run_state: RunState,
        *,
        validation_loss: ValidationLoss | None = None,
        listeners: Sequence[Listener] = (),
        stop: StopRequest | None = None,
        save: Saver | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        entered = run_state.epoch * problem.batches + len(run_state.open_losses)
        if not run_state.status and run_state.state.step != entered:  # the loop counts on it to come to an end
            raise CheckpointMismatch(f"the state is that after {run_state.state.step} steps, and the history holds {entered}")
        self.problem, self.plan, self.run_state = problem, plan, run_state
        self._validation_loss, self._listeners, self._save = validation_loss, listeners, save
        self.stop = stop or StopRequest()
        self._prepare, self._begun = prepare, False
        self.until: int | None = None
        """An epoch with a validation after which the run pauses, without a status; `train` then goes on with it."""
        self._start = time.monotonic()
        self._epoch_at_start = run_state.epoch
        self._run = secrets.token_hex(6)
        # The next rollback point, once a step from there was finite: a state can be finite and its loss not.
        self._candidate: RollbackPoint | None = None

    def session(self, backend: Backend, state: TrainState) -> Session:
        """A session that goes on from the state; inside of the backend's scope."""
        return backend.prepare(self.problem, state) if self._prepare is None else self._prepare(backend, state)

    @property
    def paused(self) -> bool:
        """Whether the run has come to where it is to pause, or to its end."""
        return bool(self.run_state.status) or (self.until is not None and self.run_state.epoch >= self.until)

    def begin(self) -> None:
        """Keep the start where it is asked for, and say that the run begins; nothing where it has begun already."""
        if self._begun:
            return
        self._begun = True
        run_state = self.run_state
        if run_state.state.step == 0:
            if 0 in self.plan.snapshot_epochs:
                run_state.snapshots[0] = run_state.state.copy().evaluation_params
        if self.plan.on_nonfinite == "rollback":
            if run_state.state.step == 0:
                run_state.rollback_point = RollbackPoint(0, run_state.state)
            elif not len(run_state.open_losses) and self.plan.validates(run_state.epoch):
                self._candidate = RollbackPoint(run_state.epoch, run_state.state)
        if run_state.epoch >= self.plan.epochs:
            self.validate()
            run_state.status = "completed"
        self.notify("start")
        self._end_if_asked()
        if run_state.status:
            self.checkpoint(force=True)

    def leave(self) -> None:
        """End a run that has paused, early."""
        self.run_state.status = "early_stopped"
        self.notify("end")
        self.checkpoint(force=True)

    def steps_to_boundary(self) -> int:
        """Steps until something is to be done at the end of an epoch."""
        plan, epoch = self.plan, self.run_state.epoch
        stops = [plan.epochs, *(e for e in plan.snapshot_epochs if e > epoch)]
        if self._validation_loss is not None or plan.on_nonfinite == "rollback":
            stops.append(plan.next_validation(epoch))
        return min(stops) * self.problem.batches - self.run_state.state.step

    def record(self, losses: np.ndarray, state: TrainState) -> None:
        """Append the loss of each step to the history, (k,), and take over the state after the last."""
        run_state, batches = self.run_state, self.problem.batches
        run_state.state = state
        if len(losses) and self._candidate is not None:
            run_state.rollback_point, self._candidate = self._candidate, None
        taken = np.concatenate([run_state.open_losses, losses])
        whole = len(taken) // batches * batches
        share = self.problem.batch_share(0, batches)
        # One after the other: a product of matrices adds in an order that depends on how many epochs there are.
        means = np.cumsum(taken[:whole].reshape(-1, batches) * share, axis=1)[:, -1]
        run_state.losses = np.concatenate([run_state.losses, means])
        run_state.open_losses = taken[whole:]
        self._record_rates()

    def _record_rates(self) -> None:
        run_state, batches = self.run_state, self.problem.batches
        done = len(run_state.rates)
        rates = self.plan.rates(self.problem, done * batches, (run_state.epoch - done) * batches)[::batches]
        run_state.rates = np.concatenate([run_state.rates, rates * run_state.rate_factor])

    def finish_chunk(self) -> None:
        """Do what is due after a chunk's steps were recorded; sets the run's status if it is to end."""
        run_state = self.run_state
        # All is recorded before anybody is told: a listener that raises must not change where the run would have ended.
        validated = not len(run_state.open_losses) and self._end_of_epoch()
        if validated:
            self.notify("validation")
        self.notify("chunk")
        self._end_if_asked()
        self.checkpoint(force=bool(run_state.status))

    def _end_if_asked(self) -> None:
        if not self.run_state.status:
            self.run_state.status = self.stop.status

    def _end_of_epoch(self) -> bool:
        """What is due at the end of an epoch; whether the validation loss was computed."""
        run_state, plan = self.run_state, self.plan
        epoch, validated = run_state.epoch, False
        if epoch in plan.snapshot_epochs:
            run_state.snapshots[epoch] = run_state.state.copy().evaluation_params
        if plan.validates(epoch):
            validated = self.validate()
            if plan.on_nonfinite == "rollback":
                self._candidate = RollbackPoint(epoch, run_state.state)
            # Only here, where every run comes by, however it is cut into chunks.
            if plan.patience and epoch - (0 if run_state.best is None else run_state.best.epoch) >= plan.patience:
                run_state.status = "early_stopped"
        if epoch >= plan.epochs:
            run_state.status = "completed"
        return validated

    def validate(self) -> bool:
        """Compute the validation loss of the present parameters, if it is not there and rows are held out; whether so."""
        run_state = self.run_state
        if self._validation_loss is None or run_state.epoch in run_state.validation or not run_state.epoch:
            return False
        params = run_state.state.evaluation_params
        loss = float(gathered(self._validation_loss(params))[0])
        run_state.validation[run_state.epoch] = loss
        best = run_state.best
        if np.isfinite(loss) and (best is None or loss < best.loss - NOTICEABLE * max(1.0, abs(best.loss))):
            run_state.best = Best(run_state.epoch, loss, {name: np.array(value) for name, value in params.items()})
        return True

    def diverge(self, losses: np.ndarray, state: TrainState, what: str) -> None:
        """The last of these steps was not finite: roll back, or end as diverged with the last finite state."""
        self.record(losses[:-1], state)
        run_state = self.run_state
        if self.plan.on_nonfinite == "rollback" and run_state.rollbacks < ROLLBACKS and run_state.rollback_point is not None:
            self._roll_back(run_state.rollback_point, what)
            return
        run_state.failure = what
        run_state.losses = np.append(run_state.losses, losses[-1])
        run_state.open_losses = np.empty(0)
        self._record_rates()
        run_state.status = "diverged"
        self.notify("chunk")
        self.checkpoint(force=True)

    def _roll_back(self, rollback_point: RollbackPoint, what: str) -> None:
        run_state = self.run_state
        run_state.rollbacks += 1
        run_state.rate_factor *= 0.5
        run_state.warnings += (
            f"{what} in epoch {run_state.epoch + 1}: rolled back to the end of epoch {rollback_point.epoch}, and on at "
            f"{run_state.rate_factor:g} of the learning rate",
        )
        run_state.state, self._candidate = rollback_point.state, None
        run_state.losses, run_state.open_losses = run_state.losses[: rollback_point.epoch], np.empty(0)
        run_state.rates = run_state.rates[: rollback_point.epoch]
        run_state.validation = {epoch: loss for epoch, loss in run_state.validation.items() if epoch <= rollback_point.epoch}
        run_state.snapshots = {epoch: kept for epoch, kept in run_state.snapshots.items() if epoch <= rollback_point.epoch}

    def checkpoint(self, *, force: bool) -> None:
        """Write a checkpoint where that is due."""
        path = self._save(self.run_state, force) if self._save is not None else ""
        if path:
            self.notify("checkpoint", checkpoint=path)

    def close(self, error: Exception) -> None:
        """Write a last checkpoint, and say that the run is about to raise; callbacks that fail on that are not heard again."""
        self.run_state.status = self.run_state.status or "interrupted"
        if self.run_state.state.step:
            with suppress(CallbackFailed):
                self.checkpoint(force=True)
        with suppress(CallbackFailed):
            self.notify("error", error=error)

    def notify(self, kind: Kind, *, checkpoint: str = "", error: BaseException | None = None) -> None:
        """Tell the listeners of an event; one that answers STOP ends the run."""
        run_state, plan = self.run_state, self.plan
        losses = run_state.losses.view()
        losses.flags.writeable = False  # listeners look, they do not touch
        seconds = time.monotonic() - self._start
        done = run_state.epoch - self._epoch_at_start
        event = FitEvent(
            kind=kind,
            epoch=run_state.epoch,
            epochs=plan.epochs,
            losses=losses,
            seconds=seconds,
            status=run_state.status if kind in ("end", "error") else "",
            validation=dict(run_state.validation),
            learning_rate=float(plan.rates(self.problem, run_state.state.step, 1)[0]) * run_state.rate_factor,
            remaining=seconds / done * (plan.epochs - run_state.epoch) if done > 0 else np.nan,
            checkpoint=checkpoint,
            error=error,
            run=self._run,
        )
        if tell(self._listeners, event):
            self.stop.interrupted = True


def train(backend: Backend, loop: Loop) -> RunState:
    """Take the steps of a run, in chunks, until it has a status.

    The run's state is finite throughout. Where a loss or an update is not, the steps before it are taken again from the
    start of the chunk, one run of the same program, so that the last finite state does not depend on how the run was cut.

    Args:
        backend: Where to compute.
        loop: The run's state, and what happens between chunks.
    """
    run_state, session = loop.run_state, None
    try:
        loop.begin()
        if not run_state.status:
            start = time.monotonic()
            session = _prepared(backend, loop)
            run_state.timings["prepare"] += time.monotonic() - start
        length, limit = 1, _chunk_limit(loop.problem)
        while session is not None and not loop.paused:
            start = time.monotonic()
            count = min(length, limit, loop.steps_to_boundary())
            if not _take(backend, loop, session, count):
                session = _prepared(backend, loop)
            seconds = time.monotonic() - start
            run_state.timings["run"] += seconds
            if not run_state.status:
                loop.finish_chunk()
            length = _next_length(count, float(gathered(seconds).max()))
        if run_state.status:
            loop.notify("end")
    except Exception as error:
        loop.close(error)
        raise
    finally:
        if session is not None:
            session.close()
    return run_state


def _next_length(count: int, seconds: float) -> int:
    """Steps of the next chunk, after one of `count` steps that took so many seconds.

    It follows the steps taken, not those aimed at: what is due at the end of an epoch cuts chunks short.
    """
    return max(1, min(int(count * CHUNK_SECONDS / max(seconds, 1e-6)), count * GROWTH))


def _prepared(backend: Backend, loop: Loop) -> Session:
    with backend.scope():
        session = loop.session(backend, loop.run_state.state)
        backend.synchronize()
    return session


def _chunk_limit(problem: Problem) -> int:
    """Steps whose draws fit into `DRAW_BYTES`."""
    size = problem.bytes_a_step()
    return max(1, DRAW_BYTES // size) if size else MAX_CHUNK


def _take(backend: Backend, loop: Loop, session: Session, count: int) -> bool:
    """Take a chunk of steps and record it; False if one of them was not finite, and the session is closed."""
    run_state, plan = loop.run_state, loop.plan
    step = run_state.state.step
    rates = plan.rates(loop.problem, step, count) * run_state.rate_factor
    steps = loop.problem.steps(step, rates, plan.decays(step, count))
    with backend.scope():
        losses = session.run(steps)
        state = session.state()
    if np.isfinite(losses).all() and state.finite:
        loop.record(losses, state)
        return True
    session.close()

    def again(length: int) -> TrainState:
        with backend.scope(), closing(loop.session(backend, run_state.state)) as rerun:
            if length:
                rerun.run(steps.part(0, length))
            return rerun.state()

    finite = np.isfinite(losses)
    first_bad = count if finite.all() else int(np.argmin(finite))
    taken = _last_finite(again, first_bad)
    bad = f"the loss is {losses[taken]}" if taken == first_bad else "the gradient or the update is not finite"
    loop.diverge(losses[: taken + 1], again(taken), bad)
    return False


def _last_finite(again: Callable[[int], TrainState], most: int) -> int:
    """How many steps, at most so many, lead to a state that is finite: a state that is not leads to none that is."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = high - 1 if high == most + 1 else (low + high) // 2
        low, high = (middle, high) if again(middle).finite else (low, middle)
    return low

"""Several members trained side by side as one run: same model, same steps, each on rows of its own.

The state of the run holds the parameters of all members, see `ismcore.models.joined`; whatever happens between chunks of steps
(held-out loss, the best parameters, checkpoints, events, the end) is that of any other run, and so happens to all members at
once: there is one stopping step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ismcore.backend.contract import Backend, Session
from ismcore.models import joined, parted
from ismcore.ops import Params
from ismcore.optimizers.state import STATE_PARTS, TrainState
from ismcore.problem import Problem, Steps
from ismcore.training.loop import ValidationLoss, validation_loss

__all__ = ["Member", "MemberSession", "lead_problem", "pooled_loss"]


@dataclass(frozen=True, eq=False)
class Member:
    """One of several members.

    Attributes:
        problem: What it is trained on: all rows, those that others are held out of with weight 0.
        held_out: What judges it.
        share: Weight of what judges it, among all members; they sum to 1.
    """

    problem: Problem
    held_out: Problem
    share: float


def lead_problem(members: Sequence[Member]) -> Problem:
    """The problem that the steps of all members are drawn for, in which no row has a weight."""
    return replace(members[0].problem, row_weight=None)


class MemberSession(Session):
    """A session of sessions, one a member: each takes the same steps, in which the rows have its own weights."""

    def __init__(self, backend: Backend, members: Sequence[Member], state: TrainState) -> None:
        self._problems = [member.problem for member in members]
        parts = zip(*(parted(getattr(state, part), len(members)) for part in STATE_PARTS), strict=True)
        states = [TrainState(state.step, *trees) for trees in parts]
        self._sessions = [backend.prepare(p, own) for p, own in zip(self._problems, states, strict=True)]

    def run(self, steps: Steps) -> np.ndarray:
        """See `Session.run`; the loss of a step is the mean of the members'."""
        pairs = zip(self._sessions, self._problems, strict=True)
        losses = [session.run(_own(steps, problem)) for session, problem in pairs]
        return np.asarray(np.mean(losses, axis=0))

    def follow(self, problem: Problem) -> bool:
        """See `Session.follow`: where there is one member alone, as others have rows of their own."""
        if len(self._sessions) > 1 or not self._sessions[0].follow(problem):
            return False
        self._problems = [problem]
        return True

    def state(self) -> TrainState:
        """See `Session.state`."""
        states = [session.state() for session in self._sessions]
        trees = (joined([getattr(state, part) for state in states]) for part in STATE_PARTS)
        return TrainState(states[0].step, *trees)

    def close(self) -> None:
        """See `Session.close`."""
        for session in self._sessions:
            session.close()


def _own(steps: Steps, problem: Problem) -> Steps:
    """The steps with a member's row weights: n w_i of its problem times the batch's own, see `Problem.rows`."""
    if steps.rows is None or problem.row_weight is None:
        return steps
    weight = 1.0 / steps.rows.shape[1] if steps.row_weight is None else steps.row_weight
    return replace(steps, row_weight=weight * problem.n * problem.row_weight[steps.rows])


def pooled_loss(backend: Backend, members: Sequence[Member]) -> ValidationLoss:
    """Mean held-out loss of the members, by the weight of what judges each: a row judges the member that has not seen it."""
    losses = [validation_loss(backend, member.held_out) for member in members]

    def loss_of(params: Params) -> float:
        parts = parted(params, len(members))
        return float(sum(m.share * loss(part) for m, loss, part in zip(members, losses, parts, strict=True)))

    return loss_of

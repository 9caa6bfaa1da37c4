"""A fit in folds, from the normal law on: candidates are trained one after the other, and what comes back is a sum of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ismcore.backend.contract import Backend, Session
from ismcore.backend.processes import gathered, of_the_first, rank_and_world
from ismcore.errors import CallbackFailed, Diverged
from ismcore.fitting.folds import Folds
from ismcore.fitting.outcome import Weighed, result_of, warnings_of, weighed
from ismcore.fitting.parting import kept_of
from ismcore.fitting.run import Job, findings_of
from ismcore.models import joined
from ismcore.optimizers.state import TrainState
from ismcore.problem import Problem
from ismcore.results.result import FitResult
from ismcore.samples.advice import more_curvature, notes_for
from ismcore.training.loop import Loop, Prepare, train
from ismcore.training.members import Member, MemberSession, lead_problem, pooled_loss
from ismcore.training.run_state import Best, RunState
from ismcore.training.settings import Candidate
from ismcore.training.streamed import StreamedProblem, StreamedSession

__all__ = ["EnsembleRun"]

FIRST_ROUND = 5
"""All candidates run a fifth of the epochs; after that only those go on that the fit would use."""
LEAST_SHARE = 0.2
"""Least share of the candidates' weights with which one goes on."""


class EnsembleRun:
    """The runs of all candidates, each of them one run of all folds, and the result that they come to."""

    def __init__(self, job: Job) -> None:
        self._began = time.monotonic()
        self._job = job
        self.folds = Folds.of(job.settings, job.samples)
        self._loops: dict[int, Loop] = {}
        self._save = job.writer(self.folds.coordinates, len(self.folds.judges))

    def __call__(self, run_states: Sequence[RunState] = ()) -> FitResult:
        """Take the steps of every candidate that has not ended.

        Args:
            run_states: Where the candidates stand that have begun; kept up to date.

        Raises:
            Diverged: All candidates diverged, and that is not to be put up with.
            CallbackFailed: A callback raised.
        """
        states, first = list(run_states), self._first_round
        if states and self._save is not None:
            self._run_is(states, 0)
            self._save.forget_rows(states[0])
        try:
            if first and not any(state.epoch > first for state in states):
                self._round(states, first)
                if not self._job.stop.status:
                    self._leave_behind(states)
            self._round(states)
        except CallbackFailed as error:
            error.result = self._result(states, weighed(self._job.engine, self._job.settings, self.folds, states))
            raise
        for state in states:  # of those that had paused, or had not gone on
            state.status = state.status or self._job.stop.status
        result = self._result(states, self._weighed(states))
        if result.status == "diverged" and self._job.settings.plan.on_nonfinite != "stop":
            raise self._diverged(states, result)
        return result

    @property
    def _first_round(self) -> int:
        """The epoch after which candidates that the fit would hardly use are left behind; 0 where none may be left.

        In one dimension none is: its networks learn at speeds of their own, so that an early look does not tell which is good.
        """
        plan = self._job.settings.plan
        if plan.patience == 0 or len(self._job.settings.candidates) < 2 or self.folds.z.shape[1] == 1:
            return 0
        return plan.next_validation(plan.epochs // FIRST_ROUND - 1)

    def _round(self, states: list[RunState], until: int | None = None) -> None:
        for number in range(len(self._job.settings.candidates)):
            if states and self._job.stop.status:
                return
            if number not in self._loops:
                self._loops[number] = self._loop(states, number)
            if not states[number].status and (until is None or states[number].epoch < until):
                self._train(states, number, until)

    def _leave_behind(self, states: list[RunState]) -> None:
        """End the candidates that have less than `LEAST_SHARE` of the weight of all."""
        weights = self._weighed(states).stack.weights[1:]
        for number, (state, weight) in enumerate(zip(states, weights, strict=True)):
            if not state.status and weight <= LEAST_SHARE * weights.sum():
                self._run_is(states, number)
                self._loops[number].leave()

    def _weighed(self, states: list[RunState]) -> Weighed:
        """The candidates as they stand, with the weights that number 0 finds, where processes share the fit."""
        found = weighed(self._job.engine, self._job.settings, self.folds, states)
        stack = found.stack
        *weights, difference, error = of_the_first([*stack.weights, stack.difference, stack.standard_error])
        stack = replace(stack, weights=np.array(weights), difference=float(difference), standard_error=float(error))
        return replace(found, stack=stack)

    def _loop(self, states: list[RunState], number: int) -> Loop:
        """What happens between the steps of a candidate, which begins if it has not."""
        candidate = self._job.settings.candidates[number]
        members = self.folds.members(self._job.settings, candidate)
        loss = pooled_loss(self._job.engine, members)
        if number == len(states):
            states.append(self._start(candidate, loss))
            if self._save is not None and number == 0:
                self._save.reserve(states[0])
        problem = lead_problem(members)
        if self._job.samples.survey is not None:
            problem = StreamedProblem.of(problem, self._job.samples.survey, *rank_and_world())
        return Loop(
            problem,
            self._job.settings.plan,
            states[number],
            validation_loss=loss,
            listeners=self._job.followers,
            stop=self._job.stop,
            save=self._save,
            prepare=_sessions_of(members, problem, self._job.settings.plan.epochs),
        )

    def _start(self, candidate: Candidate, loss: Any) -> RunState:
        """All members at the normal law, which is the best so far."""
        model, settings = candidate.model, self._job.settings
        d, count = self.folds.z.shape[1], len(self.folds.parts)
        params = joined([model.at_zero(model.initial_params(settings.seed + k, d)) for k in range(count)])
        state = settings.optimizer.start(params)
        if settings.plan.average_decay is not None:
            state = replace(state, average=params)
        run_state = RunState(state.astype(settings.dtype))
        first = run_state.state.copy().evaluation_params
        value = float(gathered(loss(first))[0])
        if np.isfinite(value):
            run_state.best = Best(0, value, first)
        return run_state

    def _run_is(self, states: list[RunState], number: int) -> None:
        """Tell checkpoints which candidate is at work."""
        if self._save is not None:
            self._save.candidate, self._save.others = number, [*states[:number], *states[number + 1 :]]

    def _train(self, states: list[RunState], number: int, until: int | None) -> None:
        self._run_is(states, number)
        if self._save is not None:
            self._save.check(states[number])
        loop = self._loops[number]
        loop.until = until
        train(self._job.engine, loop)

    def _diverged(self, states: list[RunState], result: FitResult) -> Diverged:
        weight = self._job.settings.objective.least_curvature_weight
        return Diverged(
            f"every candidate diverged ({states[0].failure} at epoch {states[0].epoch}) on backend "
            f"{self._job.settings.backend!r} in {self._job.settings.dtype}: lower the learning rate or give "
            f"{more_curvature(weight)}; the last finite fit is in this error's .result",
            epoch=states[0].epoch,
            result=result,
        )

    def _result(self, states: list[RunState], table: Weighed) -> FitResult:
        job, settings = self._job, self._job.settings
        findings = findings_of(settings, job.samples, job.diagnosis, self.folds.coordinates)
        said = warnings_of(settings, job.samples, job.diagnosis, findings, self.folds, table)
        noted = notes_for(findings, (), settings.objective.least_curvature_weight)
        total = {"total": time.monotonic() - self._began}
        result = result_of(settings, self.folds, table, said, noted, timings=total, versions=job.versions)
        return kept_of(result, job.samples, job.diagnosis, settings.seed)


def _sessions_of(members: Sequence[Member], problem: Problem, epochs: int) -> Prepare:
    """What makes the session of all members; of a source that of the one that there is, for a window of rows at a time."""
    if not isinstance(problem, StreamedProblem):
        return lambda backend, state: MemberSession(backend, members, state)

    def session(backend: Backend, state: TrainState) -> Session:
        def begin(window: Problem, state: TrainState) -> Session:
            return MemberSession(backend, [replace(members[0], problem=window)], state)

        return StreamedSession(problem, state, epochs, begin)

    return session

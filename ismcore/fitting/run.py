"""A run of a fit from its state to its result, and the best of several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.backend.processes import rank_and_world
from ismcore.coordinates import Coordinates
from ismcore.coordinates.transforms import in_words
from ismcore.errors import CallbackFailed, Diverged
from ismcore.files.checkpoint_writer import CheckpointWriter
from ismcore.files.checkpoints import Checkpoint
from ismcore.fitting.parting import kept_of
from ismcore.problem import Problem
from ismcore.results.result import FitResult, versions
from ismcore.samples.advice import more_curvature, notes_for, warnings_for
from ismcore.samples.diagnosis import Diagnosis
from ismcore.samples.findings import Finding
from ismcore.samples.sources.survey import Survey
from ismcore.training.baseline import compare_with_normal
from ismcore.training.events import Listener
from ismcore.training.kernel import compare_with_kernel
from ismcore.training.lbfgs import optimise
from ismcore.training.loop import Loop, Prepare, validation_loss
from ismcore.training.run_state import RunState
from ismcore.training.settings import Data, Samples, Settings
from ismcore.training.stopping import StopRequest
from ismcore.training.streamed import StreamedProblem, StreamedSession

__all__ = ["Job", "Run", "best_of", "findings_of"]


@dataclass(frozen=True, eq=False)
class Job:
    """What a run needs beside its state.

    Attributes:
        engine: Where to compute.
        settings: The arguments of the fit, resolved.
        samples: What the caller gave.
        diagnosis: Of them.
        stop: Ends the runs when it says so.
        followers: Told of every event.
        where: Where to write checkpoints, if anywhere.
    """

    engine: Backend
    settings: Settings
    samples: Samples
    diagnosis: Diagnosis
    stop: StopRequest
    followers: Sequence[Listener]
    where: Checkpoint | None

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions of Python, ismcore, NumPy and the framework."""
        return versions(self.engine.packages)

    def writer(self, coordinates: Coordinates, held_out: int) -> CheckpointWriter | None:
        """Writes checkpoints of a run in these coordinates, with so many rows held out; None where none are asked for."""
        if self.where is None:
            return None
        about = self.settings, coordinates, self.samples.fingerprints(), held_out, self.versions, self.diagnosis.modes
        return CheckpointWriter(self.where, *about)


class Run:
    """One run from a state to a result; it can be done from several starts."""

    def __init__(self, job: Job) -> None:
        self._began = time.monotonic()
        self._job = job
        self.data = Data.of(job.settings, job.samples)
        self._problem, self._prepare = self.data.problem, None
        if job.samples.survey is not None:
            self._problem, self._prepare = _streamed(self.data.problem, job.samples.survey, job.settings.plan.epochs)
        coordinates = self.data.problem.coordinates
        self._findings = findings_of(job.settings, job.samples, job.diagnosis, coordinates)
        self._save = job.writer(coordinates, self.data.held_out_rows)

    def reserve(self, run_state: RunState) -> None:
        """Take the path of the checkpoint for a new run, if there is one; see `CheckpointWriter.reserve`."""
        if self._save is not None:
            self._save.check(run_state)
            self._save.reserve(run_state)

    def __call__(self, run_state: RunState, *, alone: bool = True) -> FitResult:
        """Take the steps, unless the run has ended already.

        Args:
            run_state: Where the run stands; kept up to date.
            alone: Whether it is the only one; of several, one that diverges costs only itself.

        Raises:
            Diverged: A loss or an update was not finite, and that is not to be put up with.
            CallbackFailed: A callback raised.
        """
        if self._save is not None:
            self._save.check(run_state)
            self._save.forget_rows(run_state)
        ended = bool(run_state.status)
        held_out = None if ended else self.data.held_out
        loop = Loop(
            self._problem,
            self._job.settings.plan,
            run_state,
            validation_loss=None if held_out is None else validation_loss(self._job.engine, held_out),
            listeners=self._job.followers,
            stop=self._job.stop,
            save=self._save,
            prepare=self._prepare,
        )
        try:
            if not ended:
                optimise(self._job.engine, loop)
        except CallbackFailed as error:
            error.result = self._result(run_state)
            raise
        result = self._result(run_state)
        if run_state.status == "diverged" and self._job.settings.plan.on_nonfinite != "stop":
            diverged = self._diverged(loop, result)
            if alone:
                raise diverged
        return result

    def _diverged(self, loop: Loop, result: FitResult) -> Diverged:
        run_state, weight = loop.run_state, self._job.settings.objective.least_curvature_weight
        diverged = Diverged(
            f"{run_state.failure} at epoch {run_state.epoch} of the fit on backend {self._job.settings.backend!r} in "
            f"{self._job.settings.dtype}: lower the learning rate or give {more_curvature(weight)}; the last "
            "finite fit is in this error's .result",
            epoch=run_state.epoch,
            result=result,
        )
        with suppress(CallbackFailed):  # the divergence is what is to be known
            loop.notify("error", error=diverged)
        return diverged

    def _result(self, run_state: RunState) -> FitResult:
        job, settings, problem, held_out = self._job, self._job.settings, self.data.problem, self.data.held_out
        total = {"total": time.monotonic() - self._began}
        about = settings, problem.coordinates, run_state, self.data.held_out_rows
        result = FitResult.of(*about, timings=total, versions=job.versions)
        validation, weight = list(run_state.validation.values()), settings.objective.least_curvature_weight
        baseline, compared = compare_with_normal(job.engine, problem, held_out, run_state.params)
        said = warnings_for(
            problem.x,
            diagnosis=job.diagnosis,
            parameters=sum(np.size(value) for value in result.params.values()),
            findings=self._findings,
            curvature_weight=weight,
            held_out=self.data.held_out_rows or None,
            validation=validation,
            training=run_state.losses[0 if run_state.best is None else run_state.best.epoch - 1 :],
            standard_error=0.0 if baseline is None else baseline.standard_error,
        )
        said += settings.objective.advice(problem.x, problem.coordinates, settings.dtype)
        beside = compare_with_kernel(job.engine, problem, held_out, run_state.params, job.diagnosis)
        said += tuple(text for text in (compared, beside) if text)
        noted = notes_for(self._findings, validation, weight)
        result = replace(result, baseline=baseline, warnings=said + result.warnings, notes=result.notes + noted)
        return kept_of(result, job.samples, job.diagnosis, settings.seed)


def findings_of(settings: Settings, samples: Samples, diagnosis: Diagnosis, coordinates: Coordinates) -> tuple[Finding, ...]:
    """What was found in the samples, with the cures that the fit has applied told as applied."""
    held_out, parted = _held_out_by(settings, samples, diagnosis)
    return diagnosis.findings_for(
        settings.objective.least_curvature_weight,
        held_out,
        _scaled_by(coordinates, settings),
        bounded_by_recipe=settings.bounded_by_recipe,
        parted=parted,
        drawn_in=all(coordinates.transforms[tail.column] is not None for tail in diagnosis.tails),
        domain=settings.domain,
        without_edges=_without_edges(diagnosis, coordinates),
    )


def _held_out_by(settings: Settings, samples: Samples, diagnosis: Diagnosis) -> tuple[str, bool]:
    """How rows that are not independent are held out, in words; and whether arguments of the fit part them as they should.

    The words are "" where no rows are held out, or each for itself.
    """
    if samples.judges_given:
        return "the samples given as validation= judge instead", True
    if not settings.validation:
        return "", False
    if samples.survey is not None:
        by_runs = settings.holdout.by == "blocks"
        return (
            "runs of rows, one of each block and apart from those trained on, were therefore held out" if by_runs else "",
            False,
        )
    if samples.groups is not None:
        rows = slice(None) if samples.weight is None else samples.weight > 0.0
        if diagnosis.keeps_together(samples.x[rows], samples.groups[rows]):
            return "the rows of a group are held out together, as groups= says", True
        return "rows are held out by groups=, which part those that depend on each other", False
    return {
        "blocks": "short blocks, spread over the rows and apart from those trained on, were therefore held out",
        "near-copies": "rows near each other were therefore held out together",
    }.get(settings.holdout.by, ""), False


def _streamed(problem: Problem, survey: Survey, epochs: int) -> tuple[Problem, Prepare]:
    """The problem of all rows of a source that are trained on, and what makes its session, which sees a window at a time."""
    streamed = StreamedProblem.of(problem, survey, *rank_and_world())
    return streamed, lambda backend, state: StreamedSession(streamed, state, epochs, backend.prepare)


def _scaled_by(coordinates: Coordinates, settings: Settings) -> str:
    """How columns are scaled where tails are heavy, in words; "" by their standard deviations, or not."""
    if coordinates.transform is not None:
        return f"transform={in_words(coordinates.transform)} was applied"
    if settings.standardize == "robust":
        return 'the columns were scaled by their interquartile range; transform="asinh" would draw in the tails too'
    return ""


def _without_edges(diagnosis: Diagnosis, coordinates: Coordinates) -> str:
    """How a transform takes away the edges that were found, in words; "" where it does not take all of them."""
    ends = [(coordinates.transforms[edge.column], "lower" if edge.lower else "upper") for edge in diagnosis.edges]
    if all(f is not None and np.isfinite(getattr(f, end)) for f, end in ends):
        return f"transform={in_words(coordinates.transform)} was applied, behind which columns have no end"
    return ""


def best_of(results: list[FitResult]) -> FitResult:
    """The fit with the lowest held-out loss, which knows of the others."""
    if len(results) == 1:
        return results[0]

    def lowest(result: FitResult) -> float:
        losses = result.history.get("validation_loss", np.empty(0))
        return float(np.nanmin(losses)) if np.isfinite(losses).any() else np.inf

    report = tuple(
        {
            "start": number,
            "status": result.status,
            "epochs": len(result.history["loss"]),
            "loss": float(result.history["loss"][-1]) if len(result.history["loss"]) else None,
            "validation_loss": lowest(result) if np.isfinite(lowest(result)) else None,
        }
        for number, result in enumerate(results)
    )
    best = min(results, key=lowest)
    return replace(best, restarts=report)

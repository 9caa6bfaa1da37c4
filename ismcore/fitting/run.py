"""A run of a fit from its books to its result, and the best of several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.errors import CallbackFailed, Diverged
from ismcore.files.checkpoints import Checkpoint, CheckpointWriter
from ismcore.results.result import FitResult, versions
from ismcore.samples.advice import advise, more_curvature
from ismcore.samples.diagnosis import Diagnosis
from ismcore.training.baseline import compare_with_normal
from ismcore.training.events import Listener
from ismcore.training.lbfgs import optimise
from ismcore.training.ledger import Ledger
from ismcore.training.loop import Loop, judge_of
from ismcore.training.settings import Data, Samples, Settings
from ismcore.training.stopping import StopRequest

__all__ = ["Run", "best_of"]


class Run:
    """One run from a ledger to a result; it can be done from several starts."""

    def __init__(
        self,
        engine: Backend,
        settings: Settings,
        samples: Samples,
        diagnosis: Diagnosis,
        stop: StopRequest,
        followers: Sequence[Listener],
        where: Checkpoint | None,
    ) -> None:
        self._began = time.monotonic()
        self._engine, self._settings, self._diagnosis, self._stop, self._followers = (
            engine,
            settings,
            diagnosis,
            stop,
            followers,
        )
        self.data = Data.of(settings, samples)
        self._held_out_by = _held_out_by(settings, samples)
        self._versions = versions(engine.packages)
        self._save: CheckpointWriter | None = None
        if where is not None:
            about = samples.fingerprints(), self.data.held_out_rows, self._versions
            self._save = CheckpointWriter(where, settings, self.data.problem.standardizer, *about)

    def __call__(self, ledger: Ledger, *, alone: bool = True) -> FitResult:
        """Take the steps, unless the ledger's run has ended already.

        Args:
            ledger: Where the run stands; kept up to date.
            alone: Whether it is the only one; of several, one that diverges costs only itself.

        Raises:
            Diverged: A loss or an update was not finite, and that is not to be put up with.
            CallbackFailed: A callback raised.
        """
        if self._save is not None:
            self._save.check(ledger)
        ended = bool(ledger.status)
        judge = None if ended or self.data.held_out is None else judge_of(self._engine, self.data.held_out)
        loop = Loop(
            self.data.problem,
            self._settings.plan,
            ledger,
            judge=judge,
            listeners=self._followers,
            stop=self._stop,
            save=self._save,
        )
        try:
            if not ended:
                optimise(self._engine, loop)
        except CallbackFailed as error:
            error.result = self._result(ledger)
            raise
        result = self._result(ledger)
        if ledger.status == "diverged" and self._settings.plan.on_nonfinite != "stop":
            diverged = self._diverged(loop, result)
            if alone:
                raise diverged
        return result

    def _diverged(self, loop: Loop, result: FitResult) -> Diverged:
        ledger, weight = loop.ledger, self._settings.objective.least_curvature_weight
        diverged = Diverged(
            f"{ledger.failure} at epoch {ledger.epoch} of the fit on backend {self._settings.backend!r} in "
            f"{self._settings.dtype}: lower the learning rate or give {more_curvature(weight)}; the last "
            "finite fit is in this error's .result",
            epoch=ledger.epoch,
            result=result,
        )
        with suppress(CallbackFailed):  # the divergence is what is to be known
            loop.notify("error", error=diverged)
        return diverged

    def _result(self, ledger: Ledger) -> FitResult:
        result = FitResult.of(
            self._settings,
            self.data.problem.standardizer,
            ledger,
            self.data.held_out_rows,
            timings={"total": time.monotonic() - self._began},
            versions=self._versions,
        )
        judged = np.array(list(ledger.validation.values()))
        said = advise(
            self.data.problem.x,
            diagnosis=self._diagnosis,
            parameters=sum(np.size(value) for value in result.params.values()),
            curvature_weight=self._settings.objective.least_curvature_weight,
            held_out=self.data.held_out_rows or None,
            validation=judged if len(judged) else None,
            held_out_by=self._held_out_by,
        )
        baseline, compared = compare_with_normal(self._engine, self.data.problem, self.data.held_out, ledger.params)
        said += (compared,) if compared else ()
        return replace(result, baseline=baseline, warnings=said + result.warnings)


def _held_out_by(settings: Settings, samples: Samples) -> str:
    """How rows are held out where they are not independent, in words; "" where none are, or each for itself."""
    if samples.judged_by is not None:
        return "the samples given as validation= judge instead"
    if not settings.validation:
        return ""
    return {
        "blocks": "short blocks, spread over the rows and apart from those trained on, were therefore held out",
        "near-copies": "rows near each other were therefore held out together",
        "groups": "the rows of a group are held out together, as groups= says",
    }.get(settings.holdout.by, "")


def best_of(results: list[FitResult]) -> FitResult:
    """The fit with the lowest held-out loss, which knows of the others."""
    if len(results) == 1:
        return results[0]

    def held_out_loss(result: FitResult) -> float:
        judged = result.history.get("validation_loss", np.empty(0))
        return float(np.nanmin(judged)) if np.isfinite(judged).any() else np.inf

    report = tuple(
        {
            "start": number,
            "status": result.status,
            "epochs": len(result.history["loss"]),
            "loss": float(result.history["loss"][-1]) if len(result.history["loss"]) else None,
            "validation_loss": held_out_loss(result) if np.isfinite(held_out_loss(result)) else None,
        }
        for number, result in enumerate(results)
    )
    best = min(results, key=held_out_loss)
    return replace(best, restarts=report)

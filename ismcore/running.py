"""A run of a fit from its books to its result, and the best of several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ismcore.advice import Traits, advise, more_curvature
from ismcore.backend import Backend
from ismcore.baseline import compare_with_normal
from ismcore.checkpoints import Checkpoint, CheckpointWriter
from ismcore.errors import CallbackFailed, Diverged
from ismcore.events import Listener
from ismcore.lbfgs import LBFGS, minimise
from ismcore.ledger import Ledger
from ismcore.result import FitResult, versions
from ismcore.settings import Data, Samples, Settings
from ismcore.stopping import StopRequest
from ismcore.training import Loop, judge_of, train

__all__ = ["Run", "best_of", "one_of"]


class Run:
    """One run from a ledger to a result; it can be done from several starts."""

    def __init__(
        self,
        engine: Backend,
        settings: Settings,
        samples: Samples,
        traits: Traits,
        stop: StopRequest,
        followers: Sequence[Listener],
        where: Checkpoint | None,
    ) -> None:
        self._began = time.monotonic()
        self._engine, self._settings, self._traits, self._stop, self._followers = engine, settings, traits, stop, followers
        self.data = Data.of(settings, samples)
        self._versions = versions(engine.packages)
        self._save: CheckpointWriter | None = None
        if where is not None:
            about = samples.fingerprints(), self.data.held_out_rows, self._versions
            self._save = CheckpointWriter(where, settings, self.data.problem.standardizer, *about)

    def __call__(self, ledger: Ledger) -> FitResult:
        """Take the steps, unless the ledger's run has ended already."""
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
        if not ended:
            self._take(loop)
        if ledger.status == "diverged" and self._settings.plan.on_nonfinite != "stop":
            raise self._diverged(loop)
        return self._result(ledger)

    @property
    def _curvature_weight(self) -> float:
        """The smallest of the objective's."""
        return float(np.min(getattr(self._settings.objective, "curvature_weight", 0.0)))

    def _take(self, loop: Loop) -> None:
        try:
            (minimise if isinstance(self._settings.optimizer, LBFGS) else train)(self._engine, loop)
        except CallbackFailed as error:
            error.result = self._result(loop.ledger)
            raise

    def _diverged(self, loop: Loop) -> Diverged:
        ledger = loop.ledger
        diverged = Diverged(
            f"{ledger.failure} at epoch {ledger.epoch} of the fit on backend {self._settings.backend!r} in "
            f"{self._settings.dtype}: lower the learning rate or give {more_curvature(self._curvature_weight)}; the last "
            "finite fit is in this error's .result",
            epoch=ledger.epoch,
            result=self._result(ledger),
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
            traits=self._traits,
            parameters=sum(np.size(value) for value in result.params.values()),
            curvature_weight=self._curvature_weight,
            held_out=self.data.held_out_rows or None,
            validation=judged if len(judged) else None,
        )
        baseline, compared = compare_with_normal(self._engine, self.data.problem, self.data.held_out, ledger.params)
        said += (compared,) if compared else ()
        return replace(result, baseline=baseline, warnings=said + result.warnings)


def one_of(restarts: int, run: Run, ledger: Ledger) -> FitResult:
    """A run that is one of several, of which one that diverges costs only itself."""
    try:
        return run(ledger)
    except Diverged as error:
        if restarts == 1 or not isinstance(error.result, FitResult):
            raise
        return error.result


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

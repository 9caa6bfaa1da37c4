"""What the candidates of a fit in folds come to: their out-of-fold table, the weights, and the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.coordinates import Coordinates
from ismcore.errors import SamplesError
from ismcore.fitting.folds import Folds, base_of
from ismcore.fitting.stacking import LEAST_GAIN, OutOfFold, Stack, stacked
from ismcore.models import Affine, Combination, Model, joined, parted
from ismcore.objectives import LossInputs
from ismcore.ops import Params
from ismcore.problem import take_rows
from ismcore.results.result import FitResult
from ismcore.samples.advice import warnings_for
from ismcore.samples.diagnosis import Diagnosis
from ismcore.samples.findings import Finding
from ismcore.samples.normality import departure
from ismcore.training.baseline import Baseline, NormalLaw, in_words, mean_and_error, score_and_diagonal
from ismcore.training.kernel import beside_kernel, judges_fits
from ismcore.training.run_state import Best, RunState, Status
from ismcore.training.settings import Candidate, Samples, Settings

__all__ = ["Weighed", "result_of", "warnings_of", "weighed"]


@dataclass(frozen=True, eq=False)
class Weighed:
    """The candidates of a fit, judged by rows that their members have not seen.

    Attributes:
        begun: The candidates that have begun, and where they stand.
        normal: Table of the normal laws.
        table: Table of each candidate, in their order; None for one that never became better than the normal law, or whose
            Jacobian cannot be found.
        weight: Weight of each row of a table, (m,), of sum 1.
        stack: What is best made of them.
    """

    begun: list[tuple[Candidate, RunState]]
    normal: OutOfFold
    table: list[OutOfFold | None]
    weight: np.ndarray
    stack: Stack

    @property
    def shares(self) -> np.ndarray:
        """Weights of the normal law and each candidate in the fit, (1 + K,): the stack's, or those of the normal law alone."""
        return self.stack.weights if self.stack.significant else np.eye(1 + len(self.table))[0]

    @property
    def fit(self) -> OutOfFold:
        """Table of the fit."""
        return self.stack.sum if self.stack.significant else self.normal


def weighed(engine: Backend, settings: Settings, folds: Folds, states: Sequence[RunState]) -> Weighed:
    """Judge the candidates as they stand."""
    begun = list(zip(settings.candidates, states, strict=False))
    edges = _edges_of_table(folds)
    normal = OutOfFold.joined([_linear(fold.law.score_params(), folds.judges[fold.rows]) for fold in folds.parts], edges)
    table = [_out_of_fold(engine, folds, candidate, state) for candidate, state in begun]
    weight = np.concatenate([fold.share * fold.judging for fold in folds.parts])
    clusters = None if folds.clusters is None else folds.clusters[np.concatenate([fold.rows for fold in folds.parts])]
    there = [0, *(1 + k for k, part in enumerate(table) if part is not None)]
    stack = stacked([normal, *(part for part in table if part is not None)], weight, settings.objective, clusters)
    weights = np.zeros(1 + len(table))
    weights[there] = stack.weights
    return Weighed(begun, normal, table, weight, replace(stack, weights=weights))


def result_of(
    settings: Settings,
    folds: Folds,
    found: Weighed,
    said: tuple[str, ...],
    noted: tuple[str, ...],
    *,
    timings: Mapping[str, float],
    versions: Mapping[str, str],
) -> FitResult:
    """The result of a fit in folds, with warnings and notes on its samples; its history is that of the first candidate."""
    states = [state for _, state in found.begun]
    lead = states[0]
    model, params = _assembled(folds, found, [state.params for state in states])
    diverged = tuple(
        f"candidate {c.name!r} diverged, {s.failure} at epoch {s.epoch}: it counts as it was at its best look"
        for c, s in found.begun
        if s.status == "diverged"
    )
    shown = replace(
        lead,
        best=Best(0 if lead.best is None else lead.best.epoch, np.nan, params),
        snapshots={epoch: _assembled(folds, found, [_at(s, epoch) for s in states])[1] for epoch in lead.snapshots},
        status=_status(states),
        warnings=sum((state.warnings for state in states), ()) + diverged,
        timings={name: sum(state.timings[name] for state in states) for name in ("prepare", "run")},
    )
    result = FitResult.of(
        replace(settings, model=model), folds.coordinates, shown, len(found.weight), timings=timings, versions=versions
    )
    return replace(
        result,
        baseline=_baseline(folds, found),
        warnings=said + result.warnings,
        notes=result.notes + noted + (() if found.stack.significant else (_floor_in_words(found.stack, folds.law.name),)),
        candidates=_rows(found, folds.law.name),
    )


def warnings_of(
    settings: Settings,
    samples: Samples,
    diagnosis: Diagnosis,
    findings: Sequence[Finding],
    folds: Folds,
    found: Weighed,
) -> tuple[str, ...]:
    """Warnings in words about the samples, and about a fit that is no better than the normal law where it should be.

    Of losses it is the candidate with the largest weight that is looked at; one that was ended early for others' sake says
    nothing by its last ones.
    """
    shapes = settings.candidates[0].model.shapes(folds.z.shape[1])
    baseline, lead = _baseline(folds, found), found.begun[int(np.argmax(found.shares[1:]))][1]
    said = warnings_for(
        folds.z,
        diagnosis=diagnosis,
        parameters=sum(int(np.prod(shape)) for shape in shapes.values()) if found.stack.significant else 0,
        findings=findings,
        curvature_weight=settings.objective.least_curvature_weight,
        held_out=len(found.weight),
        validation=list(lead.validation.values()) if found.stack.significant and lead.status == "completed" else (),
        training=lead.losses[max(0, (0 if lead.best is None else lead.best.epoch) - 1) :],
        standard_error=0.0 if baseline is None else baseline.standard_error,
    )
    said += settings.objective.advice(folds.z, folds.coordinates, settings.dtype)
    beside = _beside_kernel(settings, diagnosis, folds, found)
    said += (beside,) if beside else ()
    if baseline is None:
        return said
    departs = None
    if isinstance(folds.law, NormalLaw):
        columns = settings.coordinates_of(samples.x, samples.weight)(samples.x)
        departs = departure(columns, NormalLaw.of(columns, folds.weight).whitened(columns), folds.weight)
    compared = in_words(baseline, departs, folds.law.name)
    return (*said, compared) if compared else said


def _beside_kernel(settings: Settings, diagnosis: Diagnosis, folds: Folds, found: Weighed) -> str:
    """The fit beside a kernel density estimate of the rows that the first fold is trained on; see `beside_kernel`."""
    fold = folds.parts[0]
    trained, count = np.flatnonzero(fold.weight), len(fold.rows)
    if not judges_fits(settings.objective, diagnosis, min(len(trained), count)):
        return ""
    derivatives = found.fit.psi[:count], found.fit.diagonal[:count]
    judges = folds.judges[fold.rows]
    return beside_kernel(folds.z[trained], fold.weight[trained], judges, fold.judging, derivatives, settings.seed)


def _at(state: RunState, epoch: int) -> Params:
    """A candidate's parameters after so many epochs, or its last ones, where it ended before."""
    return state.snapshots.get(epoch, state.state.evaluation_params)


def _status(states: Sequence[RunState]) -> Status:
    """How the whole fit ended: as a candidate that was cut short; else as the first that did not diverge."""
    found: list[Status] = [state.status or "interrupted" for state in states]
    cut: list[Status] = [status for status in found if status in ("interrupted", "timed_out")]
    return next(status for status in cut + found if status != "diverged" or set(found) == {"diverged"})


def _linear(score: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W x + b and the diagonal of W at each row, both (m, d)."""
    return x @ score["weight"].T + score["bias"], np.broadcast_to(np.diagonal(score["weight"]), x.shape)


def _out_of_fold(engine: Backend, folds: Folds, candidate: Candidate, state: RunState) -> OutOfFold | None:
    """A candidate's table, of the parameters that its pooled held-out loss chose; None where there is none to have."""
    if state.best is not None and state.best.epoch == 0:
        return None
    parts = []
    for fold, params in zip(folds.parts, parted(state.params, len(folds.parts)), strict=True):
        x = folds.judges[fold.rows]
        found = score_and_diagonal(engine, candidate.model, params, x)
        if found is None or not all(np.isfinite(values).all() for values in found):
            return None
        base = _linear(base_of(candidate.objective, fold.law), x)
        parts.append((found[0] + base[0], found[1] + base[1]))
    return OutOfFold.joined(parts, _edges_of_table(folds))


def _edges_of_table(folds: Folds) -> LossInputs:
    """The weight of a domain at the rows of a table, in their order; nothing without a domain."""
    rows = np.concatenate([fold.rows for fold in folds.parts])
    return take_rows(folds.edges, dict.fromkeys(folds.edges, 0), rows)


def _assembled(folds: Folds, found: Weighed, params: Sequence[Params]) -> tuple[Model, Params]:
    """The weighted sum as one model: all normal laws together are one `Affine`, beside it are the members of each candidate."""
    count, shares = len(folds.parts), found.shares
    bases = [folds.law.score_params()]
    for candidate, _ in found.begun:
        scores = [base_of(candidate.objective, fold.law) for fold in folds.parts]
        bases.append({name: np.mean([score[name] for score in scores], axis=0) for name in scores[0]})
    affine = {name: sum(w * base[name] for w, base in zip(shares, bases, strict=True)) for name in ("weight", "bias")}
    used = [k for k in range(len(found.begun)) if shares[1 + k] > 0.0]
    if not used:
        return Affine(), affine
    members = [found.begun[k][0].model.canonical() for k in used for _ in range(count)]
    weights = [shares[1 + k] / count for k in used for _ in range(count)]
    parts = [part for k in used for part in parted(params[k], count)]
    return Combination((Affine(), *members)), {"weights": np.array([1.0, *weights]), **joined([affine, *parts])}


def _baseline(folds: Folds, found: Weighed) -> Baseline | None:
    """The comparison with the normal law in standardised coordinates; where the fit is the normal law the difference is 0."""
    try:
        units = Coordinates.standardizing(folds.z, folds.weight)
    except SamplesError:  # not standardised for training either
        return None
    scaled = [part.scaled(units.scale) for part in (found.normal, found.fit)]
    law, fit = (part.terms(np.zeros(())) for part in scaled)
    difference, error = mean_and_error(fit - law, found.weight)
    losses = float(found.weight @ law), float(found.weight @ fit)
    if not np.isfinite([*losses, difference, error]).all():
        return None
    return Baseline(*losses, difference, error, len(law), folds.law.shrinkage)


def _floor_in_words(stack: Stack, law: str) -> str:
    if not stack.weights[1:].any():
        return f"the fit is the {law} in closed form: no candidate had a lower out-of-fold loss"
    return (
        f"the fit is the {law} in closed form: the candidates' out-of-fold loss differs by {stack.difference:.2g} with "
        f"standard error {stack.standard_error:.2g}, and {LEAST_GAIN:g} standard errors are asked for to leave it"
    )


def _rows(found: Weighed, law: str) -> tuple[dict[str, Any], ...]:
    """What became of each candidate; see `FitResult.candidates`."""
    plain = np.zeros(())
    rows: list[dict[str, Any]] = [{"name": law, "weight": float(found.shares[0])}]
    for (candidate, state), part, share in zip(found.begun, found.table, found.shares[1:], strict=True):
        row: dict[str, Any] = {"name": candidate.name, "weight": float(share), "status": state.status or "interrupted"}
        row |= {"epochs": state.epoch, "best_epoch": 0 if state.best is None else state.best.epoch}
        if part is not None:
            difference, error = mean_and_error(part.terms(plain) - found.normal.terms(plain), found.weight)
            row |= {"difference": difference, "standard_error": error}
        rows.append({**row, "seconds": sum(state.timings.values())})
    return tuple(rows)

"""The choice of a curvature weight, by held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.backend.processes import gathered
from ismcore.errors import OptionError
from ismcore.models import Model, check_params
from ismcore.objectives import CurvatureSearch
from ismcore.optimizers.state import TrainState
from ismcore.problem import Problem
from ismcore.samples.diagnosis import Diagnosis
from ismcore.samples.findings import ON_ATOMS
from ismcore.samples.splitting import fold_rows
from ismcore.seeds import stream
from ismcore.training.lbfgs import optimise
from ismcore.training.loop import Loop, validation_loss
from ismcore.training.run_state import RunState
from ismcore.training.settings import Data, Samples, Settings
from ismcore.training.stopping import StopRequest

__all__ = ["StartingPoint", "choose_curvature", "start_of", "starts_of"]

NOISE_DRAWS = 16
"""Copies of each held-out row, each with noise of its own, where columns are discrete."""


@dataclass(frozen=True)
class StartingPoint:
    """Parameters to start from.

    Attributes:
        model: The model that they are parameters of, which takes x in the samples' units.
        params: By name.
    """

    model: Model
    params: Mapping[str, Any]


def start_of(settings: Settings, problem: Problem, number: int = 0, start: StartingPoint | None = None) -> TrainState:
    """The state that a run begins with: parameters drawn from the seed, or those of a starting point.

    Args:
        settings: Of the fit.
        problem: What it trains on.
        number: Of the start, where a fit has several.
        start: Where to start, if not at random; taken to the coordinates that the problem trains in.

    Raises:
        ParameterError: The parameters given are not the model's.
    """
    model: Model = settings.model
    d = problem.x.shape[1]
    if start is None:
        params = model.initial_params(settings.seed + number, d)
    else:
        given = check_params(start.model, start.params, d)
        params = check_params(model, start.model.from_units(given, problem.coordinates)[1], d)
    state = settings.optimizer.start(params)
    if settings.plan.average_decay is not None:
        state = replace(state, average=params)
    return state.astype(settings.dtype)


def starts_of(settings: Settings, samples: Samples, start: StartingPoint | None, restarts: int) -> list[TrainState]:
    """What tells whether two fits start alike: the parameters given, or those of each model, start and member by itself.

    Args:
        settings: Of the fit.
        samples: Of the fit.
        start: Where it starts, if not at random.
        restarts: From how many starts.

    Raises:
        ParameterError: The parameters given are not the model's.
    """
    if start is not None:
        return [start_of(settings, Data.of(settings, samples).problem, 0, start)]
    models, d = [c.model for c in settings.candidates] or [settings.model], samples.x.shape[1]
    seeds = range(settings.seed, settings.seed + max(restarts, settings.ensemble))
    return [TrainState(0, model.initial_params(seed, d)) for model in models for seed in seeds]


def choose_curvature(
    engine: Backend, settings: Settings, samples: Samples, diagnosis: Diagnosis, stop: StopRequest
) -> Settings:
    """The settings, with the curvature weight chosen if the objective leaves it to a search.

    Each weight of the grid is tried by a fit of its own, which its own held-out loss ends; one loss then compares all, on the
    same rows, and the lowest mean over the folds wins. Where columns are discrete the held-out rows get uniform noise as wide
    as the step, which carries them off the steep steps that a fit makes at their values. For a value that many rows share in
    a continuous column there is no such loss: the weight is then 0.1, unless the search names one.

    Raises:
        OptionError: No rows are held out to choose by.
    """
    search = settings.objective.search
    if search is None:
        return settings
    if diagnosis.atoms and not search.judge_weight:
        chosen, text = ON_ATOMS, "as no held-out loss can choose one where many rows share a value of a continuous column"
    else:
        losses = [_mean_held_out(engine, settings, samples, diagnosis, stop, search, weight) for weight in search.weights]
        chosen = search.weights[int(np.argmin(losses))]
        tried = ", ".join(f"{weight:g}: {loss:.5g}" for weight, loss in zip(search.weights, losses, strict=True))
        text = f"by the held-out loss of each that was tried ({tried})"
    said = f"curvature_weight {chosen:g} was chosen, {text}"
    objective = settings.objective.with_curvature_weight(chosen)
    candidates = tuple(replace(c, objective=c.objective.with_curvature_weight(chosen)) for c in settings.candidates)
    return replace(settings, objective=objective, candidates=candidates, notes=(*settings.notes, said))


def _mean_held_out(
    engine: Backend,
    settings: Settings,
    samples: Samples,
    diagnosis: Diagnosis,
    stop: StopRequest,
    search: CurvatureSearch,
    weight: float,
) -> float:
    trial = replace(settings, objective=settings.objective.with_curvature_weight(weight))
    losses = []
    for data in _parts(trial, samples, search.folds):
        if data.held_out is None:
            raise OptionError("a curvature weight is chosen by held-out rows: pass validation=0.2, or CurvatureSearch(folds=5)")
        run_state = RunState(start_of(trial, data.problem))
        plan = replace(trial.plan, snapshot_epochs=(), on_nonfinite="stop")
        loop = Loop(data.problem, plan, run_state, validation_loss=validation_loss(engine, data.held_out), stop=stop)
        optimise(engine, loop)
        comparable = _under_common_loss(data.held_out, search.judge_weight, diagnosis.rounding)
        losses.append(validation_loss(engine, comparable)(run_state.params))
    mean = float(gathered(float(np.mean(losses)))[0])  # processes that share the fit choose alike
    return mean if np.isfinite(mean) else np.inf


def _under_common_loss(held_out: Problem, judge_weight: float, rounding: np.ndarray) -> Problem:
    """The held-out problem under one loss for all curvature weights; `rounding` is each column's step, (d,), in [x]."""
    if not judge_weight and rounding.any():
        held_out = held_out.take(np.tile(np.arange(held_out.n), NOISE_DRAWS))
        noise = stream(held_out.seed, "dequantise").uniform(-0.5, 0.5, held_out.x.shape)
        coordinates = held_out.coordinates
        held_out = replace(held_out, x=coordinates(coordinates.inverse(held_out.x) + rounding * noise))
    inputs = held_out.inputs()
    inputs.pop("curvature_weight", None)
    if judge_weight:
        inputs["curvature_weight"] = np.asarray(judge_weight)
    objective = held_out.objective.with_curvature_weight(judge_weight)
    return replace(held_out, loss=replace(held_out.loss, objective=objective), fixed_inputs=inputs)


def _parts(settings: Settings, samples: Samples, folds: int) -> list[Data]:
    """The samples laid out once for each fold, or as the settings hold rows out where there are no folds."""
    if not folds:
        return [Data.of(settings, samples)]
    about = {"weight": samples.weight, "groups": samples.groups}
    splits = fold_rows(samples.x, 1.0 / folds, folds, settings.seed, settings.holdout, **about)
    return [Data.of(settings, samples, split) for split in splits]

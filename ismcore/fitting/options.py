"""What the arguments of `ismcore.fit` mean: checks of each, and the recipe's for those left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard
from uuid import uuid4

import numpy as np

from ismcore.backend.contract import Backend, Precision
from ismcore.coordinates import Coordinates, Standardize
from ismcore.coordinates.transforms import as_transforms
from ismcore.errors import OptionError
from ismcore.fitting.recipes import FOLDS, MOST_IN_FOLDS, RECIPES, Recipe, candidates_of
from ismcore.fitting.selection import StartingPoint
from ismcore.models import NoiseConditional, Standardized
from ismcore.objectives import (
    ImplicitScoreMatching,
    NoiseConditionalScoreMatching,
    Objective,
    SlicedScoreMatching,
    noise_ladder,
)
from ismcore.objectives.base import on_domain
from ismcore.optimizers.rules import Optimizer
from ismcore.optimizers.schedules import as_schedule
from ismcore.plugins.adoption import adopted, users_own
from ismcore.problem import Loss
from ismcore.results.evaluate import check_model
from ismcore.results.result import FitResult
from ismcore.samples.diagnosis import Diagnosis
from ismcore.samples.edges import auto_domain
from ismcore.samples.sources import Source
from ismcore.samples.splitting import HoldOut
from ismcore.training.baseline import MOST_COLUMNS
from ismcore.training.run_state import Plan
from ismcore.training.settings import Samples, Settings
from ismcore.training.truncated import MOST_TRUNCATED

__all__ = [
    "Request",
    "as_epochs",
    "as_timeout",
    "loss_of",
    "settings_of",
    "share_held_out",
]

VALIDATIONS = 100
"""The validation loss is computed about so often in a run."""
LOOKS = 30
"""About so often the pooled loss of folds is computed, beside the early looks."""
FEWEST_HELD_OUT = 10
"""Fewer rows than this tell no fit from another: then none are held out, unless it is asked for."""


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of `ismcore.fit`, as they came."""

    x: Any
    backend: str
    model: Any
    objective: Any
    optimizer: Any
    epochs: Any
    batch_size: Any
    schedule: Any
    clip_norm: Any
    average_decay: Any
    seed: Any
    dtype: object
    device: object
    initial_params: Any
    standardize: Any
    transform: Any
    domain: Any
    validation: Any
    patience: Any
    restarts: Any
    sample_weight: Any
    groups: Any
    callbacks: Any
    checkpoint: Any
    on_nonfinite: Any
    timeout: Any
    progress: Any
    snapshots: Any
    compile: Any
    precision: Precision
    allow_nonsmooth: bool
    recipe: Any
    ensemble: Any
    test: Any


def resolved(request: Request, samples: Samples, diagnosis: Diagnosis) -> tuple[Request, tuple[str, ...]]:
    """The request with transforms by number of column, and with the domain that "auto" stands for; and what it took, in words.

    Raises:
        OptionError: There is no such transform or column.
    """
    d, domain, said = samples.x.shape[1], request.domain, tuple[str, ...]()
    if isinstance(domain, str) and domain == "auto":
        if samples.survey is not None:
            raise OptionError(
                "domain='auto' takes its edges from all rows, and those of a source are not in memory: name a domain"
            )
        domain, text = auto_domain(diagnosis.edges, *samples.arrays)
        said = (text,)
    return replace(request, transform=as_transforms(request.transform, d, samples.names), domain=domain), said


def loss_of(request: Request, samples: Samples, diagnosis: Diagnosis) -> tuple[Loss, StartingPoint | None]:
    """What is to be minimised, and where to start, if not at parameters drawn from the seed.

    Raises:
        OptionError: There is no such recipe.
        ModelError: The model cannot serve as one, or not for the objective.
    """
    recipe, start = _recipe(request), request.initial_params
    model = start.model if request.model is None and isinstance(start, FitResult) else request.model
    model = recipe.model(samples.x.shape[1]) if model is None else adopted(model, samples.x, request.objective)
    objective = _objective(recipe, model, request, samples, diagnosis) if request.objective is None else request.objective
    if isinstance(objective, Objective):
        objective = on_domain(objective, request.domain, *samples.arrays, weight=samples.weight)
    check_model(model, objective, allow_nonsmooth=request.allow_nonsmooth)
    if isinstance(start, FitResult):
        start = StartingPoint(start.model, start.params)
    elif start is not None:
        start = StartingPoint(model, start)
    return Loss(model.inner if isinstance(model, Standardized) else model, objective), start


def _objective(recipe: Recipe, model: Any, request: Request, samples: Samples, diagnosis: Diagnosis) -> Objective:
    """The recipe's; of a model that asks for a noise scale, denoising over the ladder that the samples make."""
    if not isinstance(model.inner if isinstance(model, Standardized) else model, NoiseConditional):
        return recipe.objective(diagnosis)
    if isinstance(request.initial_params, FitResult) and request.model is None:
        return request.initial_params.objective
    units = "x" if request.transform is None else "spread"
    return NoiseConditionalScoreMatching(noise_ladder(samples.x, units=units), units=units)


def settings_of(
    request: Request, loss: Loss, engine: Backend, backend_reason: str, samples: Samples, diagnosis: Diagnosis
) -> Settings:
    """The settings of a fit: what was asked for, and the recipe's for what was not.

    Raises:
        OptionError: An argument has a value that it cannot have; the message lists those that it can.
    """
    recipe = _recipe(request)
    optimizer = recipe.optimizer if request.optimizer is None else request.optimizer
    _check_choices(request, optimizer)
    ensemble = _ensemble(request, recipe, loss, optimizer, samples)
    if recipe.floor and ensemble < 2:  # one network is trained as one network ever was
        recipe = _recipe(replace(request, recipe="single"))
        optimizer = recipe.optimizer if request.optimizer is None else request.optimizer
    n, d = samples.n, samples.x.shape[1]
    candidates = candidates_of(loss, ensemble, d, model=request.model, objective=request.objective)
    validation = 0.0 if samples.judges_given else _validation(request.validation, recipe, n)
    epochs = as_epochs(recipe.epochs_of(ensemble, n, d) if request.epochs is None else request.epochs)
    plan = Plan(
        epochs=epochs,
        schedule=recipe.schedule if request.schedule is None else as_schedule(request.schedule, epochs),
        average_decay=_share("average_decay", request.average_decay, recipe.average_decay),
        on_nonfinite=request.on_nonfinite,
        patience=_patience(request.patience, recipe, epochs) if validation or ensemble or samples.judges_given else 0,
        judge_every=max(1, epochs // (LOOKS if ensemble else VALIDATIONS)),
        snapshot_epochs=_snapshot_epochs(request.snapshots, epochs),
    )
    return Settings(
        backend=engine.name,
        backend_reason=backend_reason,
        model=candidates[0].model if candidates else loss.model,
        objective=loss.objective,
        optimizer=optimizer,
        plan=plan,
        seed=int(request.seed) if isinstance(request.seed, int | np.integer) else request.seed,
        dtype=engine.dtype,
        device=engine.device,
        precision=engine.precision,
        compile=request.compile,
        standardize=_standardize(request.standardize, recipe, diagnosis),
        transform=request.transform,
        coordinates=_kept_coordinates(request, d),
        run_id=uuid4().hex,
        feature_names=samples.names,
        validation=recipe.validation if ensemble == 1 and not validation and not samples.judges_given else validation,
        holdout=diagnosis.holdout if samples.groups is None else HoldOut("groups", by_weight=diagnosis.effective is not None),
        batch_size=_batch_size(request.batch_size, recipe, round(n * (1.0 - validation * (ensemble < 2)))),
        clip_norm=_positive("clip_norm", recipe.clip_norm if request.clip_norm is None else request.clip_norm),
        ensemble=ensemble,
        candidates=candidates,
        bounded_by_recipe=request.objective is None and diagnosis.has_atoms and loss.objective.least_curvature_weight > 0.0,
    )


def _standardize(standardize: Any, recipe: Recipe, diagnosis: Diagnosis) -> Standardize:
    """How to shift and scale: as asked for; else as the recipe has it, robustly where a few rows set the standard deviation."""
    if standardize is None:
        return "robust" if recipe.standardize and diagnosis.tails else recipe.standardize
    found: Standardize = bool(standardize) if isinstance(standardize, np.bool_ | int) else standardize
    return found


def _kept_coordinates(request: Request, d: int) -> Coordinates | None:
    """The coordinates of the parameters to start from, where these mean the same in no others.

    Those of a result, or of parameters whose model knows theirs, as `result.model` does.
    """
    start = request.initial_params
    model = start.model if isinstance(start, FitResult) else None if start is None else request.model
    if not isinstance(model, Standardized) or model.coordinates.d != d or model.coordinates.transform != request.transform:
        return None
    tied = request.transform is not None or (users_own(model)[0] is not None and request.standardize is not False)
    return model.coordinates if tied else None


def _recipe(request: Request) -> Recipe:
    if request.recipe not in RECIPES:
        raise OptionError(f"recipe must be one of {', '.join(map(repr, RECIPES))}, not {request.recipe!r}")
    recipe = RECIPES[request.recipe]
    if getattr(request.optimizer, "runs_whole", False):  # which sees all rows, and whose last iterate is its best
        recipe = replace(recipe, full_batch_up_to=2**62, average_decay=None)
    return recipe


def _ensemble(request: Request, recipe: Recipe, loss: Loss, optimizer: Any, samples: Samples) -> int:
    """Folds of a fit that starts at the normal law; 0 for one network that starts at random."""
    count, n = request.ensemble, samples.n
    against = _against_folds(request, loss, optimizer, samples)
    if count is None:
        if not recipe.floor or against or request.model is not None or n < 2 * FOLDS:
            return 0
        return FOLDS if request.validation is None and samples.survey is None and n <= MOST_IN_FOLDS else 1
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= n:
        raise OptionError(f"ensemble must be a number of folds, from 1 to the {n} rows, not {count!r}")
    if not recipe.floor:
        against = f"recipe={request.recipe!r} is of one network"
    elif count > 1 and request.validation is not None:
        against = "every fold holds out a part of its own, and validation= another one: leave one of the two away"
    if against:
        raise OptionError(f"ensemble={count} cannot be: {against}")
    return int(count)


def _against_folds(request: Request, loss: Loss, optimizer: Any, samples: Samples) -> str:
    """Why a fit cannot start at the normal law and be averaged over folds, in words; "" where it can."""
    if getattr(optimizer, "runs_whole", False):
        return "optimizer=LBFGS() runs one network as a whole, and folds stop at one step together"
    if request.initial_params is not None:
        return "its members start at the normal law, and initial_params= says otherwise"
    if request.restarts != 1:
        return "its members start at different parameters and are averaged, where restarts= would choose one"
    if samples.validation_x is None and request.validation is not None and not request.validation:
        return "its members are stopped and weighed by held-out rows, and validation=0 holds none out"
    if not isinstance(loss.objective, ImplicitScoreMatching | SlicedScoreMatching):
        return f"its members are weighed by implicit score matching, and {loss.objective!r} aims at something else"
    if samples.x.shape[1] > MOST_COLUMNS:
        return f"the normal law of more than {MOST_COLUMNS} columns takes longer than a fit"
    if loss.objective.domain is not None and samples.x.shape[1] > MOST_TRUNCATED:
        return f"the truncated normal law of more than {MOST_TRUNCATED} columns takes longer than a fit"
    return ""


def _validation(validation: Any, recipe: Recipe, n: int) -> float:
    if validation is None or validation is True:
        share = recipe.validation if validation is None else recipe.validation or 0.1
        return share if n * share >= FEWEST_HELD_OUT else 0.0
    if not isinstance(validation, int | float | np.number) or not 0.0 <= validation < 1.0:
        raise OptionError(
            f"validation must be a share of the rows in (0, 1), 0 for none, or samples of shape (m, d), not {validation!r}"
        )
    return float(validation)


def share_held_out(request: Request) -> float:
    """The share of the rows of a source that the fit holds out; 0 for none, or of samples in memory, which are looked at first.

    Raises:
        OptionError: There is no such recipe, or the share is none.
    """
    given = request.validation is not None and np.ndim(request.validation) > 0
    if given or not isinstance(request.x, Source):
        return 0.0
    return _validation(request.validation, _recipe(request), request.x.shape[0])


def _patience(patience: Any, recipe: Recipe, epochs: int) -> int:
    if patience is None:
        return max(recipe.patience, epochs // (15 if recipe.floor else 5)) if recipe.patience else 0
    if isinstance(patience, bool) or not isinstance(patience, int | np.integer) or patience < 0:
        raise OptionError(f"patience must be a whole number of epochs, 0 for no end of it, not {patience!r}")
    return int(patience)


def _batch_size(batch_size: Any, recipe: Recipe, n: int) -> int | None:
    if batch_size is None:
        return None if n <= recipe.full_batch_up_to else int(np.clip(n // 64, 128, 1024))
    if batch_size == "all":
        return None
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise OptionError(f"batch_size must be a whole number from 1, or 'all', not {batch_size!r}")
    return int(batch_size) if batch_size < n else None


def _positive(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0.0 < value < np.inf:
        raise OptionError(f"{name} must be a positive finite number, or None, not {value!r}")
    return float(value)


def _share(name: str, value: Any, default: float | None) -> float | None:
    share = _positive(name, default if value is None else value)
    if share is not None and share >= 1.0:
        raise OptionError(f"{name} must be in (0, 1), not {share!r}")
    return share


def as_epochs(epochs: Any) -> int:
    """A number of epochs.

    Raises:
        OptionError: It is no whole number from 1.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs < 1:
        raise OptionError(f"epochs must be a whole number from 1, not {epochs!r}")
    return int(epochs)


def as_timeout(timeout: Any) -> float | None:
    """Seconds, or None.

    Raises:
        OptionError: It is no positive finite number.
    """
    return _positive("timeout", timeout)


def _check_choices(request: Request, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise OptionError(f"optimizer must be ismcore.Adam(...), ismcore.SGD(...) or ismcore.LBFGS(...), not {optimizer!r}")
    if request.on_nonfinite not in ("raise", "stop", "rollback"):
        raise OptionError(f"on_nonfinite must be 'raise', 'stop' or 'rollback', not {request.on_nonfinite!r}")
    if request.compile not in ("auto", "on", "off"):
        raise OptionError(f"compile must be 'auto', 'on' or 'off', not {request.compile!r}")


def _snapshot_epochs(snapshots: int | Sequence[int], epochs: int) -> tuple[int, ...]:
    if _is_count(snapshots):
        return tuple(sorted({round(e) for e in np.linspace(0, epochs, int(snapshots))})) if snapshots else ()
    found = list(snapshots) if isinstance(snapshots, Sequence | np.ndarray) else [snapshots]
    wrong = [e for e in found if not (_is_count(e) and e <= epochs)]
    if wrong:
        raise OptionError(f"snapshots must be how many to keep, or epochs from 0 to {epochs} in a list, not {wrong[0]!r}")
    return tuple(int(e) for e in found)


def _is_count(number: Any) -> TypeGuard[int]:
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and bool(number >= 0)

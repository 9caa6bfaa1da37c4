"""The arguments of a fit, once defaults are resolved: what a checkpoint holds of it, and the data laid out by it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ismcore.backend.contract import Dtype, Precision
from ismcore.coordinates import Coordinates
from ismcore.errors import SamplesError
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.optimizers.rules import Optimizer
from ismcore.problem import Compile, Loss, Problem
from ismcore.samples.checks import as_samples
from ismcore.samples.splitting import HoldOut, Split, held_out_rows
from ismcore.training.run_state import Plan

__all__ = ["Candidate", "Data", "Samples", "Settings", "share_of"]


@dataclass(frozen=True)
class Candidate:
    """What a fit in folds is tried with.

    Attributes:
        name: What it is called in a result.
        model: What is added to the normal law.
        objective: What it is trained by; the objective of the fit judges it.
    """

    name: str
    model: Model
    objective: Objective


@dataclass(frozen=True)
class Settings:
    """The arguments of `ismcore.fit`, resolved.

    Attributes:
        validation: Share of the rows that is held out; 0 where none is, or where the caller gave validation samples.
        holdout: How rows are held out.
        warnings: What was noticed before training, in words.
        ensemble: Folds, from 1, of a fit that starts at the normal law; 0 for a fit of one network that starts at random.
        candidates: What such a fit is made of.

    The others are as in `fit`.
    """

    backend: str
    backend_reason: str
    model: Model
    objective: Objective
    optimizer: Optimizer
    plan: Plan
    seed: int
    dtype: Dtype
    device: str
    precision: Precision
    compile: Compile
    standardize: bool
    validation: float
    holdout: HoldOut
    batch_size: int | None
    clip_norm: float | None
    warnings: tuple[str, ...] = ()
    ensemble: int = 0
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, eq=False)
class Samples:
    """What the caller gave: samples (n, d), row weights (n,) of sum 1, validation samples (m, d), and groups (n,), from 0."""

    x: np.ndarray
    weight: np.ndarray | None = None
    validation_x: np.ndarray | None = None
    groups: np.ndarray | None = None

    def fingerprints(self) -> dict[str, str]:
        """A hash of every bit of each argument, by which data that changed are noticed; "" for one that was not given."""
        given = {"x": self.x, "sample_weight": self.weight, "validation": self.validation_x, "groups": self.groups}
        return {name: "" if array is None else _hash(array) for name, array in given.items()}


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Data:
    """The samples, split and standardised.

    Attributes:
        problem: What is trained on.
        held_out: What the validation loss is computed on; None where there is none.
    """

    problem: Problem
    held_out: Problem | None

    @property
    def held_out_rows(self) -> int:
        """Number of samples that the validation loss is computed on."""
        return 0 if self.held_out is None else self.held_out.n

    @classmethod
    def of(cls, settings: Settings, samples: Samples, split: Split | None = None) -> Data:
        """Laid out as the settings say, or as a split says.

        Raises:
            SamplesError: The rows left to train on, or those held out, cannot be used.
        """
        x, weight = samples.x, samples.weight
        if split is None and settings.validation:
            about = {"weight": weight, "groups": samples.groups}
            split = held_out_rows(x, settings.validation, settings.seed, settings.holdout, **about)
        trained = np.arange(len(x)) if split is None else np.flatnonzero(split.trained)
        train_weight = share_of(weight, trained, "trained on")
        coordinates = Coordinates.identity(x.shape[1])
        if settings.standardize:
            coordinates = Coordinates.standardizing(x[trained], train_weight)
        loss = Loss(settings.model.canonical(), settings.objective)
        whole = Problem(
            loss,
            settings.optimizer,
            as_samples(coordinates(x), dtype=settings.dtype),
            coordinates,
            weight,
            settings.seed,
            settings.compile,
            settings.batch_size,
            settings.clip_norm,
            settings.plan.average_decay is not None,
        )
        if split is None and samples.validation_x is not None:
            validation_x = as_samples(coordinates(samples.validation_x), dtype=settings.dtype)
            validation = Problem(loss, settings.optimizer, validation_x, coordinates, seed=settings.seed)
            return cls(whole, validation)
        if split is None:
            return cls(whole, None)
        held = np.flatnonzero(split.held_out)
        share_of(weight, held, "held out")
        return cls(whole.take(trained), whole.take(held))


def share_of(weight: np.ndarray | None, rows: np.ndarray, what: str) -> np.ndarray | None:
    """The weights of some rows, divided by their sum; None where all weigh alike.

    Raises:
        SamplesError: None of them has weight.
    """
    if weight is None:
        return None
    total = weight[rows].sum()
    if not total > 0.0:
        raise SamplesError(
            f"all {len(rows)} rows {what} have sample_weight 0: too few rows have weight to be parted; give validation=0"
        )
    return np.asarray(weight[rows] / total)

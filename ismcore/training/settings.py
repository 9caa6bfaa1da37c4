"""The arguments of a fit, once defaults are resolved: what a checkpoint holds of it, and the data laid out by it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

import numpy as np

from ismcore.backend.contract import Dtype, Precision
from ismcore.coordinates import Coordinates, Standardize, check_options
from ismcore.coordinates.transforms import Transforms
from ismcore.domains import Domain
from ismcore.errors import OptionError, SamplesError
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.optimizers.rules import Optimizer
from ismcore.problem import Compile, Loss, Problem
from ismcore.samples.checks import as_samples, label_all
from ismcore.samples.sources.survey import Survey
from ismcore.samples.splitting import HoldOut, Split, held_out_rows
from ismcore.training.run_state import Plan
from ismcore.training.set_aside import SetAside

__all__ = ["Candidate", "Data", "Samples", "Settings", "check_names", "share_of"]


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
        run_id: 32 hexadecimal digits, drawn once a fit and kept by `resume`; "" in files of schema 1.
        feature_names: Names of the columns, where the samples have them.
        coordinates: Those to train in, where a start brings its own; None for those that `standardize` and `transform` say.
        warnings: What was noticed before training, in words.
        ensemble: Folds, from 1, of a fit that starts at the normal law; 0 for a fit of one network that starts at random.
        candidates: What such a fit is made of.
        notes: What was chosen before training, in words.
        bounded_by_recipe: Whether the recipe gave the objective its curvature weight, because values repeat.
        test: Share of the rows that was set aside before all others; 0 for none, or where the caller gave rows for it.

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
    standardize: Standardize
    validation: float
    holdout: HoldOut
    batch_size: int | None
    clip_norm: float | None
    warnings: tuple[str, ...] = ()
    ensemble: int = 0
    candidates: tuple[Candidate, ...] = ()
    transform: Transforms = None
    coordinates: Coordinates | None = None
    run_id: str = ""
    feature_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    bounded_by_recipe: bool = False
    test: float = 0.0

    def __post_init__(self) -> None:
        check_options(self.standardize, self.transform)
        if not isinstance(self.coordinates, Coordinates | None):
            raise OptionError(f"coordinates must be Coordinates, not {self.coordinates!r:.80}")
        check_names(self.run_id, self.feature_names)
        if self.domain is not None and (self.transform is not None or self.standardize == "whiten"):
            name = "transform" if self.transform is not None else "standardize"
            raise OptionError(
                f"{name}={getattr(self, name)!r} moves the edges of a domain: each column of it is scaled alone; leave one of "
                "the two away"
            )
        if self.ensemble < 0 or bool(self.ensemble) != bool(self.candidates):
            raise OptionError(f"a fit in {self.ensemble} folds cannot have {len(self.candidates)} candidates")
        for name, share in {"validation": self.validation, "test": self.test}.items():
            if not 0.0 <= share < 1.0:
                raise OptionError(f"{name} must be a share in [0, 1), not {share!r}")
        if self.batch_size is not None and self.batch_size < 1:
            raise OptionError(f"batch_size must be a whole number from 1, not {self.batch_size!r}")
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise OptionError(f"clip_norm must be a positive number, not {self.clip_norm!r}")

    @property
    def domain(self) -> Domain | None:
        """Where the samples end at edges; None for nowhere."""
        return self.objective.domain

    def coordinates_of(self, x: np.ndarray, weight: np.ndarray | None = None, survey: Survey | None = None) -> Coordinates:
        """Those to train in on samples x, (n, d), with row weights (n,) of sum 1: see `Coordinates.by`.

        On a domain they scale, and its edges are not shifted but to 0: see `Domain.origin`. Where the samples are some rows of
        a source, mean and standard deviation are those of all its rows.
        """
        found = Coordinates.by(self.standardize, self.transform, x, weight)
        if survey is not None and self.standardize is True and self.transform is None:
            found = Coordinates(survey.mean, survey.scale)
        if self.domain is None or not self.standardize:
            return found
        return replace(found, mean=self.domain.origin(found.mean))


@dataclass(frozen=True, eq=False)
class Samples:
    """What the caller gave: samples (n, d), row weights (n,) of sum 1, validation samples (m, d), groups (n,), names (d,).

    Rows that were set aside are in `test` alone. Of a source, x are some of the rows that are trained on, the validation
    samples those that are held out of it, and its survey knows which all of them are.
    """

    x: np.ndarray
    weight: np.ndarray | None = None
    validation_x: np.ndarray | None = None
    groups: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    test: SetAside | None = None
    survey: Survey | None = None

    @property
    def n(self) -> int:
        """Number of rows of the fit, held-out ones with them where they are a share of these."""
        return len(self.x) if self.survey is None else self.survey.n

    @property
    def judges_given(self) -> bool:
        """Whether the caller gave validation samples."""
        return self.validation_x is not None and (self.survey is None or not self.survey.held)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All rows: those of the fit, (n, d), those given to validate, and those set aside."""
        test = None if self.test is None else self.test.x
        return tuple(x for x in (self.x, self.validation_x, test) if x is not None)

    def fingerprints(self) -> dict[str, str]:
        """A hash of every bit of each argument, by which data that changed are noticed; "" for one that was not given.

        Of a source there is the gap beside its rows held out too, as a number, "" where there is none.
        """
        given = {"x": self.x, "sample_weight": self.weight, "validation": self.validation_x, "groups": self.groups}
        given["test"] = None if self.test is None else self.test.x
        found = {name: "" if array is None else _hash(array) for name, array in given.items()}
        return found if self.survey is None else {**found, "x": self.survey.digest, "gap": str(self.survey.gap or "")}


def check_names(run_id: object, feature_names: object, d: int | None = None) -> None:
    """Refuse a run id that is none, and names of columns that are no strings, or not as many as the d columns.

    Raises:
        OptionError: See above.
    """
    if not isinstance(run_id, str) or not re.fullmatch(r"[0-9a-f]{32}|", run_id):
        raise OptionError(f"run_id must be 32 hexadecimal digits, not {run_id!r:.80}")
    names = feature_names if isinstance(feature_names, tuple) else (None,)
    bad = not all(isinstance(name, str) for name in names) or (d is not None and len(names) != d)
    if feature_names is not None and bad:
        count = "strings" if d is None else f"{d} strings"
        raise OptionError(f"feature_names must be {count}, one a column, not {feature_names!r:.80}")


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Data:
    """The samples, split and in the coordinates to train in.

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
        if split is None and settings.validation and samples.validation_x is None:
            about = {"weight": weight, "groups": samples.groups}
            split = held_out_rows(x, settings.validation, settings.seed, settings.holdout, **about)
        trained = np.arange(len(x)) if split is None else np.flatnonzero(split.trained)
        train_weight = share_of(weight, trained, "trained on")
        coordinates = settings.coordinates
        if coordinates is None:
            if split is not None and settings.standardize:
                _check_left(samples, trained)
            coordinates = settings.coordinates_of(x[trained], train_weight, samples.survey)
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


def _check_left(samples: Samples, trained: np.ndarray) -> None:
    """Refuse a split that leaves a column no spread to be standardised by.

    Raises:
        SamplesError: See above.
    """
    rows = trained if samples.weight is None else trained[samples.weight[trained] > 0.0]
    x = samples.x[rows]
    constant = np.flatnonzero(x.max(axis=0) == x.min(axis=0)).tolist()
    if constant:
        raise SamplesError(
            f"with {len(samples.x) - len(trained)} rows held out, the {len(x)} left to train on have a single value in column"
            f"{'s' * (len(constant) > 1)} {label_all(constant, samples.names)}: drop what so few rows tell apart, give "
            "validation=0, or draw other rows by seed="
        )


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

"""Samples laid out in folds: each fold trains on all rows but those held out of it, from the normal law of its own rows on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ismcore.coordinates import FLAT, Coordinates
from ismcore.objectives import DenoisingScoreMatching, LossInputs, Objective
from ismcore.ops import Params
from ismcore.problem import Loss, Problem
from ismcore.samples.checks import as_samples
from ismcore.samples.splitting import Split, dependent_rows, fold_rows, held_out_rows
from ismcore.training.baseline import NormalLaw
from ismcore.training.members import Member
from ismcore.training.settings import Candidate, Samples, Settings, share_of
from ismcore.training.truncated import TruncatedNormal

__all__ = ["Fold", "Folds", "base_of"]


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold.

    Attributes:
        weight: Weight of each row in what is trained on, (n,), of sum 1; 0 for those that are not.
        rows: Numbers of the rows that judge it, (m,); where validation samples were given, of these.
        judging: Their weights, (m,), of sum 1.
        share: Weight of the rows that judge it, among all folds.
        law: The normal law of what it is trained on.
    """

    weight: np.ndarray
    rows: np.ndarray
    judging: np.ndarray
    share: float
    law: NormalLaw | TruncatedNormal


@dataclass(frozen=True, eq=False)
class Folds:
    """All folds of the samples, in coordinates that they share.

    Attributes:
        z: Samples as trained on, (n, d), float64.
        coordinates: Took them there from the user's units: those in which the law of all rows has mean 0 and covariance I.
        weight: Row weights, (n,), of sum 1, or None.
        judges: The rows that `Fold.rows` are of, (n, d), or (m, d) where validation samples were given.
        law: The normal law of all rows.
        parts: The folds.
        clusters: Labels of rows that judge and are not independent of each other; None where all are.
        edges: On a domain its weight at `judges`, see `LossInputs`.
    """

    z: np.ndarray
    coordinates: Coordinates
    weight: np.ndarray | None
    judges: np.ndarray
    law: NormalLaw | TruncatedNormal
    parts: tuple[Fold, ...]
    clusters: np.ndarray | None
    edges: LossInputs

    @classmethod
    def of(cls, settings: Settings, samples: Samples) -> Folds:
        """Laid out as the settings say; a fold out of which no row is held is left away.

        Raises:
            SamplesError: The rows left to train on, or those held out, cannot be used.
        """
        x, weight = samples.x, samples.weight
        columns = settings.coordinates_of(x, weight, samples.survey)
        law = _law(settings, columns, x, weight)
        coordinates = _whitened(settings, columns, law)
        z = judges = as_samples(coordinates(x), dtype=settings.dtype)
        if samples.validation_x is not None:
            judges = as_samples(coordinates(samples.validation_x), dtype=settings.dtype)
            edges = _edges(settings, coordinates, judges)
            every, shares = np.arange(len(judges)), np.full(len(judges), 1.0 / len(judges))
            whole = np.full(len(z), 1.0 / len(z)) if weight is None else weight
            own = _through(law, columns, coordinates)
            return cls(z, coordinates, weight, judges, own, (Fold(whole, every, shares, 1.0, own),), None, edges)
        splits = [split for split in _splits(settings, samples) if split.held_out.any()]
        sizes = np.array([split.held_out.sum() if weight is None else weight[split.held_out].sum() for split in splits])
        parts = []
        for split, share in zip(splits, sizes / sizes.sum(), strict=True):
            trained, held = np.flatnonzero(split.trained), np.flatnonzero(split.held_out)
            shares, whole = _shares(weight, trained, "trained on"), np.zeros(len(z))
            whole[trained] = shares
            own = _through(_law(settings, columns, x[trained], shares), columns, coordinates)
            parts.append(Fold(whole, held, _shares(weight, held, "held out"), float(share), own))
        clusters = dependent_rows(x, settings.holdout, samples.groups)
        edges = _edges(settings, coordinates, judges)
        return cls(z, coordinates, weight, judges, _through(law, columns, coordinates), tuple(parts), clusters, edges)

    def members(self, settings: Settings, candidate: Candidate) -> list[Member]:
        """A candidate's member for each fold: the same problem on all rows, with weights of its own.

        The steps of several members share their rows. A single one has its own alone: rows of weight 0 would make a quarter
        more steps, and five times the work of a look at the rows that judge.
        """
        members = [self._member(settings, candidate, fold) for fold in self.parts]
        return members if len(members) > 1 else [self._on_its_rows(members[0])]

    def _on_its_rows(self, member: Member) -> Member:
        """The member on the rows that have a weight in what it is trained on, and judged by those that have one there."""
        trained, judging = (_weighed_rows(p, alike=self.weight is None) for p in (member.problem, member.held_out))
        return Member(trained, judging, member.share)

    def _member(self, settings: Settings, candidate: Candidate, fold: Fold) -> Member:
        loss = Loss(candidate.model.canonical(), candidate.objective)
        score = base_of(candidate.objective, fold.law)
        base: LossInputs = {
            "base_weight": score["weight"],
            "base_bias": score["bias"],
            "base_diagonal": np.diagonal(score["weight"]).copy(),
        }
        problem = Problem(
            loss,
            settings.optimizer,
            self.z,
            self.coordinates,
            fold.weight,
            settings.seed,
            settings.compile,
            settings.batch_size,
            settings.clip_norm,
            settings.plan.average_decay is not None,
            {**loss.inputs(self.z, self.coordinates, fold.weight), **base},
        )
        judge, judging = Loss(loss.model, settings.objective), np.zeros(len(self.judges))
        judging[fold.rows] = fold.judging
        inputs: LossInputs = {**judge.inputs(self.judges, self.coordinates, judging), **base}
        held_out = replace(problem, loss=judge, x=self.judges, row_weight=judging, fixed_inputs=inputs)
        return Member(problem, held_out, fold.share)


def _weighed_rows(problem: Problem, *, alike: bool) -> Problem:
    """The problem of those rows alone that have a weight; without weights where all of them weigh alike."""
    own = problem.take(np.flatnonzero(problem.inputs()["row_weight"]))
    if not alike:
        return own
    inputs = own.inputs()
    del inputs["row_weight"]
    return replace(own, row_weight=None, fixed_inputs=inputs)


def base_of(objective: Objective, law: NormalLaw | TruncatedNormal) -> Params:
    """The score of a normal law as the parameters of an `Affine`; of the blurred law, where the objective is denoising."""
    if isinstance(objective, DenoisingScoreMatching) and isinstance(law, NormalLaw):
        law = law.blurred(np.full(len(law.mean), objective.noise_scale))
    return law.score_params()


def _splits(settings: Settings, samples: Samples) -> Sequence[Split]:
    x, count, about = samples.x, settings.ensemble, {"weight": samples.weight, "groups": samples.groups}
    if count == 1:
        return [held_out_rows(x, settings.validation, settings.seed, settings.holdout, **about)]
    return fold_rows(x, 1.0 / count, count, settings.seed, settings.holdout, **about)


def _law(settings: Settings, columns: Coordinates, x: np.ndarray, weight: np.ndarray | None) -> NormalLaw | TruncatedNormal:
    """What the rows x, (n, d), with weights (n,) of sum 1, are told by in closed form: a normal law, truncated on a domain."""
    if settings.domain is None:
        return NormalLaw.of(columns(x), weight)
    return TruncatedNormal.of(columns(x), settings.domain.in_coordinates(columns), weight)


def _edges(settings: Settings, coordinates: Coordinates, z: np.ndarray) -> LossInputs:
    """The weight of a domain at rows z, (m, d), in the coordinates; nothing without a domain."""
    if settings.domain is None:
        return {}
    h, slope = settings.domain.in_coordinates(coordinates).weights(z)
    return {"edge_weight": h, "edge_slope": slope}


def _whitened(settings: Settings, columns: Coordinates, law: NormalLaw | TruncatedNormal) -> Coordinates:
    """Standardised columns times the root of their normal law's precision; other coordinates as they are.

    The law is whitened and not the rows: with few rows it is shrunk, towards independent columns. A curvature penalty is one of
    the columns' own directions, so that these stay; and so do the edges of a domain.
    """
    if isinstance(law, TruncatedNormal):
        return columns
    penalised = getattr(settings.objective, "penalised", False)
    if columns.d == 1 or settings.standardize is not True or settings.transform is not None or penalised:
        return columns
    roots = np.sqrt(np.maximum(law.variances, FLAT * law.variances.max()))
    return replace(columns, matrix=(law.directions / roots) @ law.directions.T)


def _shares(weight: np.ndarray | None, rows: np.ndarray, what: str) -> np.ndarray:
    found = share_of(weight, rows, what)
    return np.full(len(rows), 1.0 / len(rows)) if found is None else found


def _through(law: NormalLaw | TruncatedNormal, columns: Coordinates, coordinates: Coordinates) -> NormalLaw | TruncatedNormal:
    """A law of the columns in the coordinates that are trained in."""
    matrix = coordinates.matrix
    if coordinates is columns or matrix is None or isinstance(law, TruncatedNormal):
        return law
    return law.through(matrix)

"""The yardstick of a fit: the normal law in closed form, and the held-out loss of both on the same rows.

A fit that is no better than a normal law has learned nothing that a mean and a covariance do not say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ismcore import analytic
from ismcore.backend.contract import Backend
from ismcore.backend.programs import jacobian_diagonal, score_on
from ismcore.calculus import NumpyCalculus
from ismcore.coordinates import Coordinates
from ismcore.errors import SamplesError
from ismcore.models import Model
from ismcore.objectives import DenoisingScoreMatching, ImplicitScoreMatching, LossInputs, NoiseConditionalScoreMatching
from ismcore.ops import Params
from ismcore.problem import Problem
from ismcore.samples.normality import Departure, departure
from ismcore.seeds import stream
from ismcore.training.truncated import MOST_TRUNCATED, TruncatedNormal

__all__ = ["Baseline", "NormalLaw", "compare_with_normal", "compared_rows", "in_words", "mean_and_error", "score_and_diagonal"]

ROWS_A_COLUMN = 10
"""From so many rows on for each of the d + 1 parameters of a column's score the normal law is not shrunk."""
LADDER = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0)
"""Shrinkages that are tried with fewer rows; of several that are as good the first is taken."""
RANK = 1e-10
"""A direction with a smaller share of the largest variance counts as one in which the rows do not vary."""
MOST_COLUMNS = 1024
"""Of more columns there is no baseline: the eigenvectors of a covariance cost d^3, and would take longer than a fit."""
NUMBERS, FEWEST_ROWS = 2**17, 200
"""Held-out rows that are compared: all, or about so many numbers, and rows, where there are more."""
BLOCK = 2**13
"""So many pairs of a row and a direction are differentiated at once, which bounds the memory."""
WORSE, BETTER = 2.0, 1.0
"""Standard errors by which a fit must be worse to be called so, and better to be let pass; see docs/training.md."""
SHARE = 0.1
"""A fit of normal samples is wrong if it is worse, beyond that error, by this share of the normal law's own gain, -loss."""


@dataclass(frozen=True)
class Baseline:
    """Held-out loss of a fit beside that of the normal law fitted in closed form to its training rows.

    Both are plain implicit score matching, J = sum_i w_i [ 1/2 |psi(z_i)|^2 + div psi(z_i) ], whatever the fit has minimised,
    on the same held-out rows, in coordinates in which each column of the training rows has mean 0 and standard deviation 1.
    J is half the Fisher divergence from the true score, less a constant of the law, so 2 * difference estimates how much
    further from it the fit is than the normal law. The fit's is a little low, as these rows have also chosen its epoch.

    Attributes:
        loss: J of the normal law, without a unit.
        fit_loss: J of the fit, on the same scale.
        difference: fit_loss - loss: below 0 where the fit is better.
        standard_error: Of the difference, from its terms g_i of the rows:
            sqrt( sum_i w_i^2 (g_i - difference)^2 / (1 - sum_i w_i^2) ), which is sd(g) / sqrt(m) for m rows that weigh alike.
        rows: Rows of the comparison, m: those held out, or a part of them drawn from the seed where rows times columns would
            exceed 131,072, but at least 200.
        shrinkage: a in the normal law's covariance (1 - a) S + a t I, S that of the training rows and t its mean variance: 0
            for d = 1, and from 10 (d + 1) (effective) rows on; with fewer that of 0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1
            whose J of each row under the law of the others is lowest in the mean.

    Source: Hyvarinen (2005), JMLR 6:695-709, section 3.1, for the minimiser in closed form.
    """

    loss: float
    fit_loss: float
    difference: float
    standard_error: float
    rows: int
    shrinkage: float = 0.0

    def __str__(self) -> str:
        return (
            f"normal law {self.loss:.6g}, fit {self.fit_loss:.6g} on {self.rows} held-out rows: "
            f"difference {self.difference:.3g} +- {self.standard_error:.2g}"
        )


@dataclass(frozen=True, eq=False)
class NormalLaw:
    """A normal law, by its mean and the spectrum of its covariance.

    Attributes:
        mean: (d,).
        variances: Of the directions, (d,), from the least; 0 for one in which the law does not vary.
        directions: (d, d), one a column.
        shrinkage: See `Baseline`.
    """

    mean: np.ndarray
    variances: np.ndarray
    directions: np.ndarray
    shrinkage: float = 0.0
    name: ClassVar[str] = "normal law"

    @classmethod
    def of(cls, x: np.ndarray, weight: np.ndarray | None = None) -> NormalLaw:
        """The law that minimises implicit score matching on the rows x, (n, d), weights (n,) of sum 1; shrunk if they are few.

        With the covariance S = sum_i w_i (x_i - m)(x_i - m)^T its score is -S^-1 (x - m). A direction in which the rows do not
        vary has no density, and gets the score 0.
        """
        n, d = x.shape
        shares = np.full(n, 1.0 / n) if weight is None else weight
        mean = shares @ x
        away = x - mean
        variances, directions = np.linalg.eigh((away.T * shares) @ away)
        variances = np.where(variances > RANK * variances[-1], variances, 0.0)
        shrinkage = 0.0
        if d > 1 and 1.0 / (shares @ shares) < ROWS_A_COLUMN * (d + 1):
            losses = [_left_out_loss(away @ directions, shares, variances, rung) for rung in LADDER]
            shrinkage = LADDER[int(np.argmin(losses))]
        return cls(mean, _shrunk(variances, shrinkage), directions, shrinkage)

    def blurred(self, scale: np.ndarray) -> NormalLaw:
        """The law of its samples with independent normal noise of standard deviations `scale`, (d,), added."""
        covariance = (self.directions * self.variances) @ self.directions.T + np.diag(scale**2)
        return NormalLaw(self.mean, *np.linalg.eigh(covariance), self.shrinkage)

    def through(self, matrix: np.ndarray) -> NormalLaw:
        """The law of A x, with A a matrix (d, d), for x of this law."""
        root = matrix @ (self.directions * np.sqrt(self.variances))
        variances, directions = np.linalg.eigh(root @ root.T)
        variances = np.where(variances > RANK * variances[-1], variances, 0.0)
        return NormalLaw(matrix @ self.mean, variances, directions, self.shrinkage)

    @property
    def precisions(self) -> np.ndarray:
        """Inverse variances of the directions, (d,); 0 for one in which the law does not vary."""
        return np.asarray(np.divide(1.0, self.variances, out=np.zeros_like(self.variances), where=self.variances > 0.0))

    def score_params(self) -> Params:
        """The score -K (x - mean) as the parameters of an `ismcore.Affine`, float64."""
        weight = -(self.directions * self.precisions) @ self.directions.T
        return {"weight": weight, "bias": -weight @ self.mean}

    def whitened(self, x: np.ndarray) -> np.ndarray | None:
        """The rows x with mean 0 and covariance 1, (n, d); None where the law is shrunk, or does not vary in a direction."""
        if self.shrinkage or not self.variances.all():
            return None
        return np.asarray((x - self.mean) @ self.directions / np.sqrt(self.variances))

    def score(self, x: np.ndarray) -> np.ndarray:
        """Psi(x) = -K (x - mean) at each row, (m, d), with K the inverse covariance; its divergence is -sum(precisions)."""
        return np.asarray(-((x - self.mean) @ self.directions * self.precisions) @ self.directions.T)

    def terms(self, x: np.ndarray) -> np.ndarray:
        """1/2 |psi|^2 + div psi at each row, (m,), with psi(x) = -K (x - mean) and K the inverse covariance."""
        psi = (x - self.mean) @ self.directions * self.precisions
        return np.asarray(0.5 * np.sum(psi * psi, axis=1) - np.sum(self.precisions))


def _shrunk(variances: np.ndarray, shrinkage: float) -> np.ndarray:
    return np.asarray((1.0 - shrinkage) * variances + shrinkage * variances.mean())


@np.errstate(all="ignore")  # a row that alone spans a direction leaves nothing there: infinite, and never chosen
def _left_out_loss(y: np.ndarray, shares: np.ndarray, variances: np.ndarray, shrinkage: float) -> float:
    """J of each row y_i under the law of the others, in the mean; y (n, d) are the rows in S's directions, from its mean.

    Without row i the mean is off by y_i / (1 - w_i), S is S / (1 - w_i) - w_i y_i y_i^T / (1 - w_i)^2, and t is its mean
    variance t_i. With G the inverse of (1 - a) S / (1 - w_i) + a t_i I and b = (1 - a) w_i / (1 - w_i)^2, the Sherman-Morrison
    formula gives K y = G y / q and tr K = tr G + b |G y|^2 / q, where q = 1 - b y^T G y.
    """
    rest = 1.0 - shares
    level = variances.mean() / rest - shares * np.mean(y * y, axis=1) / rest**2
    inverse = 1.0 / ((1.0 - shrinkage) * variances / rest[:, None] + shrinkage * level[:, None])
    b = (1.0 - shrinkage) * shares / rest**2
    gy = inverse * y
    q = 1.0 - b * np.sum(gy * y, axis=1)
    square = np.sum(gy * gy, axis=1)
    terms = 0.5 * square / (q * rest) ** 2 - np.sum(inverse, axis=1) - b * square / q
    loss = float(shares @ terms)
    return loss if np.isfinite(loss) and bool(np.all(q > RANK)) else math.inf


def compare_with_normal(
    engine: Backend, problem: Problem, held_out: Problem | None, params: Params
) -> tuple[Baseline | None, str]:
    """The baseline of a fit, and a warning in words if the fit is no better where it should be; "" if there is none.

    The network is evaluated in float64 by closed formulas where there are some, whatever the backend; else by the backend, in
    the dtype of the fit. A fit by denoising at one noise scale learns the law of the blurred samples, so the normal law is
    blurred alike.

    There is none (None) where no rows were held out; where the score depends on a noise scale, so that no single score is
    there to compare; of more than 1024 columns; where the model cannot be differentiated in x, and the objective does not ask
    for it; and where a loss is not finite.

    Args:
        engine: Where the fit ran.
        problem: What it was trained on.
        held_out: What its validation loss was computed on.
        params: The fitted parameters, in the coordinates of training.

    Cost: that of one or two validation losses; d directional derivatives of the score for each of at most
    131,072 / d rows where there are no closed formulas; n d^2 for the covariance.
    """
    d = problem.x.shape[1]
    if held_out is None or d > MOST_COLUMNS or isinstance(problem.objective, NoiseConditionalScoreMatching):
        return None, ""
    held_out = compared_rows(held_out)
    try:
        units = Coordinates.standardizing(problem.x, problem.row_weight)
    except SamplesError:  # not standardised for training either
        return None, ""
    z = units(problem.x)
    domain, edges = problem.objective.domain, LossInputs()
    law: NormalLaw | TruncatedNormal
    normal: NormalLaw | TruncatedNormal
    if domain is None:
        normal = law = NormalLaw.of(z, problem.row_weight)
        if isinstance(problem.objective, DenoisingScoreMatching):
            normal = law.blurred(problem.objective.noise_scale / units.scale)
    else:
        if d > MOST_TRUNCATED:
            return None, ""
        domain = domain.in_coordinates(problem.coordinates).in_coordinates(units)
        normal = law = TruncatedNormal.of(z, domain, problem.row_weight)
        edges["edge_weight"], edges["edge_slope"] = domain.weights(units(held_out.x))
    derivatives = score_and_diagonal(engine, problem.model, params, held_out.x)
    if derivatives is None:
        return None, ""
    with np.errstate(all="ignore"):
        psi, diagonal = derivatives[0] * units.scale, derivatives[1] * units.scale**2
        terms = ImplicitScoreMatching.row_terms(NumpyCalculus().ops, psi, diagonal, edges)
        found = _paired(terms, normal.terms(units(held_out.x)), held_out.row_weight, law.shrinkage)
    if found is None:
        return None, ""
    departs = departure(z, law.whitened(z), problem.row_weight) if isinstance(law, NormalLaw) else None
    return found, in_words(found, departs, law.name)


def compared_rows(held_out: Problem) -> Problem:
    """The problem, or the part of its rows that is compared."""
    n, d = held_out.x.shape
    rows = max(NUMBERS // d, FEWEST_ROWS)
    if n <= rows:
        return held_out
    return held_out.take(np.sort(stream(held_out.seed, "baseline").choice(n, rows, replace=False)))


def score_and_diagonal(engine: Backend, model: Model, params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Score and Jacobian diagonal of the rows, both (m, d); None where the model cannot be differentiated in x."""
    calculus = NumpyCalculus()
    with np.errstate(all="ignore"):
        wide = {name: calculus.asarray(value) for name, value in params.items()}
        found = analytic.score_and_diagonal(calculus, model, wide, x)
    if found is not None:
        return found
    m, d = x.shape
    size = min(m, max(1, BLOCK // d))
    # The last block is filled up with rows of the first, as a compiled program is one of a shape.
    blocks = [x[np.arange(start, start + size) % m] for start in range(0, m, size)]
    try:
        parts = [[f(engine, model, params, block) for block in blocks] for f in (score_on, jacobian_diagonal)]
    except Exception:  # whatever a network of the user's own raises where training never differentiated it in x
        return None
    psi, diagonal = (np.concatenate(values)[:m].astype(np.float64) for values in parts)
    return psi, diagonal


def mean_and_error(
    values: np.ndarray, weight: np.ndarray | None = None, clusters: np.ndarray | None = None
) -> tuple[float, float]:
    """Weighted mean of the values, (m,), and its standard error.

        sqrt( sum_c (sum_{i in c} w_i (x_i - mean))^2 / (1 - sum_c W_c^2) ),   W_c = sum_{i in c} w_i

    which is sd / sqrt(m) for m rows that weigh alike and depend on no other; infinite where one cluster has all the weight.

    Args:
        values: x.
        weight: w, (m,), of sum 1; None for 1/m.
        clusters: Labels, (m,), from 0, of rows that may depend on each other; None for none.

    Source: Liang and Zeger (1986), Biometrika 73:13-22, for the mean alone.
    """
    shares = np.full(len(values), 1.0 / len(values)) if weight is None else weight
    mean = float(shares @ values)
    labels = np.arange(len(values)) if clusters is None else clusters
    away, sizes = np.bincount(labels, shares * (values - mean)), np.bincount(labels, shares)
    free = 1.0 - float(sizes @ sizes)
    return mean, math.sqrt(float(away @ away) / free) if free > RANK else math.inf


def _paired(fit: np.ndarray, normal: np.ndarray, weight: np.ndarray | None, shrinkage: float) -> Baseline | None:
    """The baseline from the terms of each row under fit and normal law, both (m,), and the rows' weights."""
    (loss, _), (fit_loss, _) = mean_and_error(normal, weight), mean_and_error(fit, weight)
    difference, error = mean_and_error(fit - normal, weight)
    if not np.isfinite([loss, fit_loss, difference, error]).all():  # or one row alone has weight
        return None
    return Baseline(loss, fit_loss, difference, error, len(fit), shrinkage)


def in_words(found: Baseline, departs: Departure | None, law: str = NormalLaw.name) -> str:
    """A warning where the fit is worse than the normal law, or no better although the samples are not normal."""
    least = found.difference - WORSE * found.standard_error
    if departs is None and least <= SHARE * abs(found.loss):
        return ""
    if departs is not None and found.difference < -BETTER * found.standard_error:
        return ""
    numbers = (
        f"held-out loss {found.fit_loss:.4g} against {found.loss:.4g}, difference {found.difference:.2g} with standard error "
        f"{found.standard_error:.2g} on {found.rows} rows"
    )
    if least > 0.0:
        what = f"the fit is worse than the {law} in closed form, the baseline: {numbers}"
    else:
        what = f"the fit is not clearly better than the {law} in closed form, the baseline: {numbers}"
    seen = "" if departs is None else f"; the samples are not normal: {departs.what} ({departs.deviate:.0f} standard errors)"
    cure = "a lower learning rate, more epochs, more rows or another model may help"
    return f"{what}{seen}; {cure}"

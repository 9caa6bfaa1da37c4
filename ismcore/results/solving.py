"""Exact minimisers, where the objective is quadratic in the parameters, and their standard errors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.coordinates import Coordinates
from ismcore.domains import Domain
from ismcore.errors import IsmWarning, ModelError
from ismcore.models import Affine, Model, Standardized
from ismcore.objectives import ImplicitScoreMatching, LossInputs, Objective, SlicedScoreMatching
from ismcore.objectives.base import on_domain
from ismcore.ops import Params
from ismcore.plugins.adoption import adopted, device_for
from ismcore.plugins.lookup import choose, load_backend
from ismcore.problem import Loss, take_rows
from ismcore.results.evaluate import check_language, check_model
from ismcore.results.families import Family, affine, in_scaled_parameters, named
from ismcore.samples.checks import as_groups, as_samples, as_weights
from ismcore.samples.diagnosis import Diagnosis, diagnosis_of
from ismcore.samples.edges import Edge, auto_domain
from ismcore.samples.splitting import HoldOut, batch_labels
from ismcore.seeds import stream

__all__ = ["Solution", "solve"]

QUADRATIC = 1e-7
"""A quadratic's gradient vanishes at the solution up to about this, relative to its size at zero."""
SINGULAR = 1e-13
"""Least eigenvalue of a Hessian with unit diagonal, relative to the largest, that still determines the parameters."""
BLOCK = 2**20
"""Rows times parameters that are differentiated at once."""
FAR = 1e3
"""A mean so many standard deviations from 0 may be why a family in the user's units is not determined."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The exact minimiser of a quadratic objective, in the samples' units.

    Attributes:
        params: The minimiser, by name.
        loss: The minimum.
        standard_errors: Of each parameter, in its shape: square roots of the covariance's diagonal.
        covariance: Of all parameters, flattened and in the order of their names, (p, p).
        model: The model: `evaluate(solution.model, solution.params, x)` works.
        notes: What was chosen, in words: the domain, where it was asked for by "auto"; and of how many independent parts the
            standard errors are, where rows depend on each other.
    """

    params: Params
    loss: float
    standard_errors: Params
    covariance: np.ndarray
    model: Model
    notes: tuple[str, ...] = ()


def solve(
    model: Any,
    x: Any,
    objective: Objective | None = None,
    *,
    domain: Domain | Literal["auto"] | None = None,
    sample_weight: Any = None,
    groups: Any = None,
    backend: str = "auto",
    device: object = "auto",
    seed: int = 0,
    allow_nonsmooth: bool = False,
) -> Solution:
    """Minimise an objective that is quadratic in the parameters, by one linear system, in float64.

    Score matching is quadratic wherever the score is linear in its parameters: `Affine`, and polynomial or other
    linear families written as `ScoreFunction`, with implicit (also penalised), sliced, denoising or explicit objectives.

        H theta = -g,   covariance = H^-1 (sum_n w_n^2 g_n g_n^T) H^-1   (sandwich, White 1982)

    with g and H gradient and Hessian at zero, g_n the row gradients at the solution, w_n = 1/n or the row weights. Rows that
    depend on each other are added before they are squared,

        covariance = G / (G - 1) H^-1 (sum_k s_k s_k^T) H^-1,   s_k = sum_{n in k} w_n g_n   (Liang & Zeger 1986)

    over G parts k: the groups given, or what `ismcore.diagnose` finds, blocks of a series, near-copies, or equal rows. The
    objective is that of the samples in their own units; what is scaled is the unknown:

    - `Affine` is closed under shift and scale. It is solved as psi(x) = (A z + c) / s, z = (x - m) / s, with m and s mean and
      standard deviation of each column; A and c, and their covariance, are then mapped to the samples' units, exactly.
    - Another family is in general not closed under a shift, so x stays as it is, and each parameter is measured in the
      unit in which its score times the columns' standard deviations has the root mean square 1: far means are then up to the
      family, and are named where they cost all digits.

    The row gradients are one derivative in parameters that each row has of its own.

    Implicit score matching takes the density to vanish at the edge of its support. For samples that end at an edge (positive,
    bounded) the answer is wrong without a `domain`, whatever its standard errors; with one, h of `ismcore.domains` weighs it:

        H = mean_n sum_i h_i phi_i phi_i^T,   g = mean_n sum_i [ h_i d_i phi_i + phi_i d_i h_i ],   psi_i = theta . phi_i

    Args:
        model: The family.
        x: Samples, (n, d) or (n,).
        objective: What to minimise; plain implicit score matching if None.
        domain: Where the samples end at edges, as for `ismcore.fit`; "auto" takes the hard edges that `ismcore.diagnose` finds.
        sample_weight: Weight of each row, (n,), from 0; divided by their sum.
        groups: Label of each row, (n,): rows of one label may depend on each other.
        backend: As for `ismcore.evaluate`.
        device: As for `ismcore.evaluate`.
        seed: Source of whatever the objective draws; the same draws enter all evaluations.
        allow_nonsmooth: As for `ismcore.evaluate`.

    Raises:
        ModelError: The objective is not quadratic in this model's parameters, or does not determine them.
        SamplesError: The samples cannot be used, or lie outside of the domain; of `Affine` also a column without spread.
        OptionError: The domain is none, or the objective has no form on one.

    Warns:
        IsmWarning: Columns end at a hard edge, and no domain says so; or which ends "auto" has taken.

    Cost: p + 2 evaluations of the loss and its gradient, p the number of parameters, and p^3; for `Affine` with an objective
    whose terms are sums over the outputs (`Objective.separable`) d + 3. The row gradients hold about n p numbers, for a
    family other than `Affine` p scores.

    Example:
        >>> found = ismcore.solve(ismcore.Affine(), [-2.0, 0.0, 2.0], backend="autograd")
        >>> round(float(found.params["weight"][0, 0]), 12)     # minus one over the variance, 8/3
        -0.375
    """
    objective = ImplicitScoreMatching() if objective is None else objective
    model = adopted(model, x, objective)
    check_model(model, objective, allow_nonsmooth=allow_nonsmooth)
    model = model.canonical()
    samples = as_samples(x)
    n, d = samples.shape
    weight = np.full(n, 1.0 / n) if sample_weight is None else as_weights(sample_weight, n)
    diagnosis = diagnosis_of(samples, weight=weight)
    labels, told = _independent(samples, diagnosis, groups)
    objective, notes = _on_domain(objective, domain, samples, weight, diagnosis)
    engine = load_backend(choose(backend, model.backend).name)(dtype="float64", device=device_for(model, device))
    check_language(model, engine.name)
    shapes = model.shapes(d)
    if isinstance(model, Affine):
        family = affine(samples, weight, objective.separable)
    else:
        family = in_scaled_parameters(engine, model, samples, objective, shapes)
    loss = Loss(family.model, objective)
    inputs = loss.inputs(samples, Coordinates.identity(d), weight) | objective.draws(stream(seed, "draws", 0), n, d)

    start, hessian = _quadratic(engine, loss, samples, inputs, shapes, family)
    theta, inverse = _solved(model, hessian, start, family, samples)
    value, rows = _row_gradients(engine, family.by_row(theta), objective, samples, inputs)
    _check_residual(model, rows.sum(axis=0), start, hessian, theta, family.output)
    spread = inverse @ (rows if labels is None else _added(rows, labels)).T
    covariance = family.to_units @ (spread @ spread.T) @ family.to_units.T
    errors = np.sqrt(np.maximum(covariance.diagonal(), 0.0))
    return Solution(named(family.to_units @ theta, shapes), value, named(errors, shapes), covariance, model, notes + told)


def _independent(x: np.ndarray, diagnosis: Diagnosis, groups: Any) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """A label for each row, (n,), from 0, of rows that depend on each other, and these in words; None where all are apart."""
    how = diagnosis.holdout if groups is None else HoldOut("groups")
    labels = batch_labels(x, how, None if groups is None else as_groups(groups, len(x)))
    parts, n = int(labels.max()) + 1, len(x)
    if parts < n:
        kinds = {"blocks": "blocks of a series", "near-copies": "sets of near-copies", "equal rows": "different rows"}
        kind = kinds.get(how.by, how.by)
        return labels, (f"rows depend on each other: the standard errors are over {parts} {kind}, and not over {n} rows",)
    if groups is None and diagnosis.repeated:
        rows = f"{diagnosis.repeated} of {n} rows equal an earlier one"
        return None, (f"{rows}, and the standard errors are as of rounded values: where they are copies, pass groups=",)
    return None, ()


def _added(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sums over the rows of each label, (G, p), times sqrt(G / (G - 1)), as they add up to 0; NaN where there is one."""
    parts = int(labels.max()) + 1
    sums = np.zeros((parts, rows.shape[1]))
    np.add.at(sums, labels, rows)
    return np.asarray(np.sqrt(parts / (parts - 1.0) if parts > 1 else np.nan) * sums)


def _on_domain(
    objective: Objective, domain: Any, x: np.ndarray, weight: np.ndarray, diagnosis: Diagnosis
) -> tuple[Objective, tuple[str, ...]]:
    """The objective on the domain, or as it is where there is none, and what was chosen, in words; see `solve`."""
    notes = tuple[str, ...]()
    if isinstance(domain, str) and domain == "auto":
        domain, said = auto_domain(diagnosis.edges, x)
        notes = (said,)
    elif domain is objective.domain is None and isinstance(objective, ImplicitScoreMatching | SlicedScoreMatching):
        for edge in diagnosis.edges[:1]:
            warnings.warn(IsmWarning(_unsaid(edge)), stacklevel=3)
    return on_domain(objective, domain, x, weight=weight), notes


def _unsaid(edge: Edge) -> str:
    side = "below" if edge.lower else "above"
    return (
        f"column {edge.column} ends at a hard edge {side}, at {edge.value:.3g}: implicit score matching integrates by parts, "
        "and the parameters are wrong by a term of that edge, whatever their standard errors; pass domain='auto', or one of "
        "ismcore.domains, such as Positive() or Box(lower, upper)"
    )


def _quadratic(
    engine: Backend,
    loss: Loss,
    x: np.ndarray,
    inputs: LossInputs,
    shapes: dict[str, tuple[int, ...]],
    family: Family,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient g, (p,), and Hessian H, (p, p), at u = 0: H u = gradient(u) - g for each column's u, one gradient a column.

    With (H u)_k for the u that is 1 at the parameters of one column, H_kl is read off where k and l enter the same output:
    where the parameters of a column are of different outputs, H is 0 between these.
    """
    program = engine.loss_and_gradient(loss)
    with engine.scope():
        points, given = engine.asarray(x), engine.asarrays(inputs)

        def gradient(u: np.ndarray) -> np.ndarray:
            slopes = program(engine.asarrays(named(family.step * u, shapes)), points, given)[1]
            return np.asarray(family.step * np.concatenate([np.ravel(engine.to_numpy(slopes[name])) for name in shapes]))

        start = gradient(np.zeros(len(family.step)))
        products = [gradient((family.column == j).astype(float)) - start for j in range(family.column.max() + 1)]
    hessian = np.where(family.output[:, None] == family.output, np.stack(products, axis=1)[:, family.column], 0.0)
    return start, np.asarray(0.5 * (hessian + hessian.T))


def _solved(
    model: Model, hessian: np.ndarray, gradient: np.ndarray, family: Family, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The solution u = -H^-1 g, (p,), and H^-1, (p, p), output by output, so that none rounds in the units of another."""
    inverse = np.zeros_like(hessian)
    for i in range(family.output.max() + 1):
        own = np.ix_(family.output == i, family.output == i)
        inverse[own] = _inverse(model, hessian[own], gradient[family.output == i], x)
    return -inverse @ gradient, inverse


def _inverse(model: Model, hessian: np.ndarray, gradient: np.ndarray, x: np.ndarray) -> np.ndarray:
    """H^-1, by the spectrum of H scaled to a unit diagonal."""
    if not np.isfinite(hessian).all() or not np.isfinite(gradient).all():
        raise ModelError(f"the gradient of the objective in the parameters of {model!r} is not finite at these samples")
    scale = np.sqrt(np.abs(hessian.diagonal()))
    scale[scale == 0.0] = 1.0
    scaled = hessian / scale / scale[:, None]
    values, vectors = np.linalg.eigh(scaled)
    least, limit = values.min(), SINGULAR * max(1.0, values.max())
    if least < -1e-8 * max(1.0, values.max()):
        raise ModelError(
            f"the objective has no minimum in the parameters of {model!r}, or is not quadratic in them: the scaled Hessian has "
            f"an eigenvalue of {least:.1e}; use ismcore.fit"
        )
    if least <= limit:
        raise ModelError(f"the samples do not determine the parameters of {model!r}: {_why_singular(model, least, x)}")
    return np.asarray((vectors / values) @ vectors.T / scale / scale[:, None])


def _why_singular(model: Model, least: float, x: np.ndarray) -> str:
    found = f"the scaled Hessian has an eigenvalue of {least:.1e}"
    if isinstance(model, Affine):
        return f"{found}, as columns that are linearly dependent, or d rows or fewer, leave it; drop columns, or use more rows"
    with np.errstate(all="ignore"):
        away = np.nan_to_num(np.abs(x.mean(axis=0)) / x.std(axis=0))
    if away.max() > FAR:
        return (
            f"{found}, and column {away.argmax()} lies {away.max():.1e} standard deviations from 0, where the terms of a "
            "family in the samples' own units grow alike up to rounding: subtract the mean, or divide by the spread, first"
        )
    return f"{found}, so some combination of them changes nothing that the objective sees; use fewer parameters"


def _row_gradients(
    engine: Backend, by_row: tuple[Model, Params], objective: Objective, x: np.ndarray, inputs: LossInputs
) -> tuple[float, np.ndarray]:
    """The loss, and each row's gradient times its weight, (n, p): derivatives in parameters that each row has of its own."""
    model, params = by_row
    loss = Loss(model, objective)
    program = engine.compiled(engine.value_and_grad(partial(loss.value, engine)))
    n, p = len(x), sum(value[0].size for value in params.values())
    size = -(-n // -(-n * p // BLOCK)) if isinstance(model, Standardized) else n
    value, found = 0.0, []
    with engine.scope():
        for start in range(0, n, size):
            rows = slice(start, start + size)
            own = engine.asarrays({name: each[rows] for name, each in params.items()})
            given = engine.asarrays(take_rows(inputs, loss.row_axes, rows))
            part, slopes = program(own, engine.asarray(x[rows]), given)
            value += float(engine.to_numpy(part))
            blocks = [engine.to_numpy(slopes[name]) for name in params]
            found.append(np.concatenate([block.reshape(len(block), -1) for block in blocks], axis=1))
    return value, np.concatenate(found)


def _check_residual(
    model: Model, gradient: np.ndarray, start: np.ndarray, hessian: np.ndarray, theta: np.ndarray, output: np.ndarray
) -> None:
    """Refuse a solution at which the gradient does not vanish, output by output.

    Raises:
        ModelError: See above.
    """
    scale = np.sqrt(np.maximum(np.abs(hessian.diagonal()), 1e-300))
    size = np.maximum(np.abs(start), np.abs(hessian * theta).max(axis=1)) / scale
    for i in range(output.max() + 1):
        own = output == i
        residual = np.abs(gradient / scale)[own].max() / max(1e-300, size[own].max())
        if not residual <= QUADRATIC:
            raise ModelError(
                f"the objective is not quadratic in the parameters of {model!r}: after the linear solve its gradient is still "
                f"{residual:.1e} of its size; use ismcore.fit"
            )

"""Scenarios, evaluated: score, Jacobian diagonal, loss and gradient against the outside answer."""

from __future__ import annotations

import numpy as np

from ismcore.analytic import score_and_diagonal
from ismcore.backend.programs import energy_on, jacobian_diagonal, jacobian_on, score_on
from ismcore.calculus import NumpyCalculus
from ismcore.coordinates import Coordinates
from ismcore.models import Combination, Energy, Standardized
from ismcore.models.combination import joined
from ismcore.testing.kit import check
from ismcore.testing.scenarios import Scenario, all_scenarios, scenario, scored_scenarios
from ismcore.testing.subject import CheckFailed, Subject, identical


@check(scored_scenarios)
def check_score(subject: Subject, case: Scenario) -> float:
    """The score is right."""
    return subject.close(subject.field(case).score, case.answer.score, subject.tolerances.value, "the score")


@check(lambda: [case for case in scored_scenarios() if case.model.portable])
def check_score_equals_numpy(subject: Subject, case: Scenario) -> float:
    """The score is what the core computes in plain NumPy, where that needs no derivative."""
    calculus = NumpyCalculus(subject.dtype)
    params = {name: calculus.asarray(value) for name, value in case.params.items()}
    context = None if case.context is None else calculus.asarray(case.context)
    plain = case.model.score(calculus, params, calculus.asarray(case.x), context)
    return subject.close(subject.field(case).score, plain, subject.tolerances.value, "the score")


@check(scored_scenarios)
def check_jacobian_diagonal(subject: Subject, case: Scenario) -> float:
    """The Jacobian's diagonal is right, and is no column sum."""
    diagonal = np.einsum("nii->ni", case.answer.jacobian)
    return subject.close(subject.field(case).jacobian_diagonal, diagonal, subject.tolerances.value, "the diagonal")


@check(all_scenarios)
def check_loss(subject: Subject, case: Scenario) -> float:
    """The objective's value is right, every term with its own factor."""
    return subject.close(subject.evaluate(case).loss, case.answer.loss, subject.tolerances.value, "the loss")


@check(all_scenarios)
def check_gradient(subject: Subject, case: Scenario) -> float:
    """The objective's gradient is right in every parameter: it holds the second derivatives."""
    return subject.close(subject.evaluate(case).gradient, case.answer.gradient, subject.tolerances.gradient, "the gradient in")


def differentiating_scenarios() -> list[Scenario]:
    """Those whose loss takes a product, of a divergence or of an energy, once each model; in one dimension that of one row."""
    found = [case for case in scored_scenarios() if case.objective.differentiates_in_x or isinstance(case.model, Energy)]
    return [case for case in found if case.x.shape[1] > 1 or len(case.x) == 1]


@check(differentiating_scenarios)
def check_gradient_by_each_product(subject: Subject, case: Scenario) -> float:
    """Loss and gradient are right by each product that the backend declares, not only by that which the core prefers."""
    usual = "vjp" if "vjp" in subject.products and (case.x.shape[1] > 1 or "jvp" not in subject.products) else "jvp"
    worst, tolerance = 0.0, subject.tolerances
    for product in subject.products:
        found = subject.evaluate(case) if product == usual else subject.by(product).compute(case)
        worst = max(
            worst,
            subject.close(found.loss, case.answer.loss, tolerance.value, f"the loss by {product}"),
            subject.close(found.gradient, case.answer.gradient, tolerance.gradient, f"the gradient by {product} in"),
        )
    return worst


@check(lambda: (scenario("mlp3-gelu"), scenario("waves")))
def check_rows_are_independent(subject: Subject, case: Scenario) -> float:
    """Moving one sample changes the score and the Jacobian diagonal of no other, and its own to those of the new place."""
    x = case.x.copy()
    x[-1] = x[-1] * 0.5 - 1.0
    psi, jacobian = case.formula(case.params, x)
    found = subject.compute_field(case, x)
    score, diagonal = found.score, found.jacobian_diagonal
    before, tolerance = subject.field(case), subject.tolerances.value
    return max(
        subject.close(score[:-1], before.score[:-1], tolerance, "the score of the rows that stayed"),
        subject.close(diagonal[:-1], before.jacobian_diagonal[:-1], tolerance, "the diagonal of the rows that stayed"),
        subject.close(score, psi.real, tolerance, "the score with one row moved"),
        subject.close(diagonal, np.einsum("nii->ni", jacobian).real, tolerance, "the diagonal with one row moved"),
    )


@check(lambda: (scenario("affine3"), scenario("mlp3-gelu")))
def check_evaluation_is_deterministic(subject: Subject, case: Scenario) -> float:
    """Evaluating twice gives the same bits."""
    found = [(subject.compute(case), subject.compute_field(case)) for _ in range(2)]
    one, other = ({"loss": of.loss, **vars(field), **of.gradient} for of, field in found)
    identical(one, other, "two equal evaluations")
    return 0.0


@check(lambda: [scenario(id) for id in ("mlp3-gelu", "conditional3-tanh", "residual3-silu", "e2_softplus-reg0.75", "waves")])
def check_programs_take_their_parameters(subject: Subject, case: Scenario) -> float:
    """What scores samples after a fit, compiled once a model, takes the parameters and samples of each call."""
    engine, context, worst = subject.engine(), () if case.context is None else (case.context,), 0.0
    for factor in (1.0, 0.5):
        params = {name: factor * value for name, value in case.params.items()}
        x = case.x * factor
        psi, jacobian = (np.real(part) for part in case.formula(params, x, *context))
        found = {
            "the score": (score_on(engine, case.model, params, x, *context), psi),
            "the diagonal": (jacobian_diagonal(engine, case.model, params, x, *context), np.einsum("nii->ni", jacobian)),
        }
        if isinstance(case.model, Energy):
            right = case.model.energy(NumpyCalculus(), params, x)
            found["the energy"] = energy_on(engine, case.model, params, x), right
        for what, (array, right) in found.items():
            worst = max(worst, subject.close(array, right, subject.tolerances.value, f"{what} at {factor:g} of the parameters"))
    return worst


@check(lambda: [scenario("waves"), scenario("e2_softplus-reg0.75")])
def check_jacobian(subject: Subject, case: Scenario) -> float:
    """The whole Jacobian, [output, input], which of a score is symmetric only by chance."""
    found = jacobian_on(subject.engine(), case.model, case.params, case.x)
    return subject.close(found, case.answer.jacobian, subject.tolerances.value, "the Jacobian")


@check()
def check_formulas_of_a_sum(subject: Subject) -> float:
    """Score and diagonal of a weighted sum of models, by the closed formulas of its members; none where one has none."""
    net, affine = scenario("mlp3-gelu"), scenario("affine3")
    model = Combination((net.model, affine.model))
    weights = np.array([0.25, -2.0])
    params = {"weights": weights, **joined([net.params, affine.params])}
    parts = [case.formula(case.params, net.x) for case in (net, affine)]
    psi, jacobian = (sum(w * np.real(part[k]) for w, part in zip(weights, parts, strict=True)) for k in range(2))
    with subject.working() as engine:
        given, x = engine.asarrays(params), engine.asarray(net.x)
        found = score_and_diagonal(engine.plain, model, given, x)
        residual = scenario("residual3-silu")
        other = {"weights": weights[:1], **joined([residual.params])}
        none = score_and_diagonal(engine.plain, Combination((residual.model,)), engine.asarrays(other), x)
        if found is None or none is not None:
            raise CheckFailed("closed formulas are there for a residual network, or not for a sum of others")
        score, diagonal = (engine.to_numpy(array) for array in found)
    return max(
        subject.close(score, psi, subject.tolerances.value, "the score"),
        subject.close(diagonal, np.einsum("nii->ni", jacobian), subject.tolerances.value, "the diagonal"),
    )


@check()
def check_standardised_score(subject: Subject) -> float:
    """The score in the user's units, psi((x - mean) / scale) / scale, also where the dtype cannot hold the mean."""
    case, mean, scale = scenario("mlp3-gelu"), np.array([0.1, -3.0, 2.0**-30 + 8.0]), np.array([0.5, 2.0, 4.0])
    x = case.x * scale + np.round(mean * 8.0) / 8.0
    psi, jacobian = case.formula(case.params, (x - mean) / scale)
    engine, worst = subject.engine(), 0.0
    for model in (
        Standardized(case.model, Coordinates(mean, scale)),
        Standardized(case.model, Coordinates(mean.copy(), scale)),
    ):
        found = score_on(engine, model, case.params, x), jacobian_diagonal(engine, model, case.params, x)
        right = psi.real / scale, np.einsum("nii->ni", jacobian.real) / scale**2
        worst = max(
            worst,
            *(subject.close(a, b, subject.tolerances.value, "score, or diagonal,") for a, b in zip(found, right, strict=True)),
        )
    return worst

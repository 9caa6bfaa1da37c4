"""Scenarios, evaluated: score, Jacobian diagonal, loss and gradient against the outside answer."""

from __future__ import annotations

import numpy as np

from ismcore.calculus import NumpyCalculus
from ismcore.testing.kit import check
from ismcore.testing.scenarios import Scenario, all_scenarios, scenario, scored_scenarios
from ismcore.testing.subject import Subject, identical


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

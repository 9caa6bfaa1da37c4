"""The kit's own answers, against answers that are not the kit's: golden vectors, the reference run, difference quotients."""

import json

import numpy as np
import pytest
from golden_selection import SHIPPED, selection
from truth import golden, read, relative_error

import ismcore
from ismcore.testing import all_scenarios, oracle
from ismcore.testing.subject import start


@pytest.mark.parametrize("case", golden("score"), ids=lambda case: case.raw["id"])
def test_recurrences_and_complex_steps_give_the_golden_vectors(case):
    formula = oracle.mlp(case.raw["activation"])
    psi, jacobian = formula(case.params, case.x)
    assert relative_error(psi.real, case.raw["psi"]) < 5e-16
    assert relative_error(np.einsum("nii->ni", jacobian).real, case.jacobian_diagonal) < 2e-15
    for loss, weight in (("ism", 0.0), ("reg0.1", 0.1), ("reg0.75", 0.75)):
        gradient = oracle.gradient(formula, case.params, case.x, weight)
        assert relative_error(oracle.loss(formula, case.params, case.x, weight).real, float(case.raw["loss"][loss])) < 1e-15
        for name, expected in case.gradient(loss).items():
            assert relative_error(gradient[name], expected) < 1e-14


@pytest.mark.parametrize("case", all_scenarios(), ids=lambda case: case.id)
def test_jacobian_of_every_scenario_is_that_of_difference_quotients(case):
    x, d = case.x, case.x.shape[1]
    moved = [[case.formula(case.params, x + s * h * unit)[0].real for s in (-1, 1)] for unit in np.eye(d) for h in (1e-5,)]
    quotients = np.stack([(ahead - behind) / 2e-5 for behind, ahead in moved], axis=2)
    assert relative_error(quotients, case.answer.jacobian) < 1e-7


def test_trajectory_gives_the_published_losses():
    run = ismcore.datasets.reference_run()
    formula = oracle.mlp("sigmoid")
    x, epochs = run.sample, run.epochs[run.epochs <= 60]

    def value_and_grad(params):
        return oracle.loss(formula, params, x, 0.0).real, oracle.gradient(formula, params, x, 0.0)

    losses, _ = oracle.train(run.optimizer, start(run.optimizer, run.initial_params), [0.01] * epochs[-1], value_and_grad)
    assert np.max(np.abs(losses[epochs - 1] - run.losses[: len(epochs)])) < 1e-6


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_no_step_leads_below_the_affine_minimum(weight):
    x = np.random.default_rng(0).normal(size=(20, 3)) @ np.triu(np.ones((3, 3)))
    best = oracle.affine_minimum(x, weight)
    assert max(np.max(np.abs(g)) for g in oracle.gradient(oracle.affine, best, x, weight).values()) < 1e-13
    if weight == 0.0:
        precision = np.linalg.inv(np.cov(x.T, bias=True))
        assert np.allclose(best["weight"], -precision, rtol=1e-10)
        assert np.allclose(best["bias"], precision @ x.mean(axis=0), rtol=1e-10)


def test_affine_minimum_is_that_of_the_closed_forms():
    sample = ismcore.datasets.reference_run().sample
    found, right = oracle.affine_minimum(sample, 0.0), read("closed_forms")["affine_seed_sample"]
    assert relative_error(found["weight"], right["A"]) < 1e-12
    assert relative_error(found["bias"], right["c"]) < 1e-12


def test_shipped_answers_are_those_of_the_golden_vectors():
    assert json.loads(SHIPPED.read_text()) == selection()

"""The kit's own answers, against answers that are not the kit's: golden vectors, the reference run, difference quotients."""

import json

import numpy as np
import pytest
from golden_selection import SHIPPED, selection
from truth import array, golden, read, relative_error

import ismcore
from ismcore.testing import all_scenarios, losses, oracle
from ismcore.testing.scenarios import scored_scenarios

FORMULAS = {"score": oracle.mlp, "energy": oracle.energy}
CASES = [
    case
    for case in (*golden("score"), *golden("energy"))
    if case.raw["kind"] == "score" or case.raw["activation"] in oracle.BENDS
]


def objectives(case):
    """The six losses of golden.json."""
    probes, noise = array(case.raw["V"])[None], array(case.raw["noise"])
    yield from (
        (name, ismcore.ImplicitScoreMatching(weight)) for name, weight in (("ism", 0.0), ("reg0.1", 0.1), ("reg0.75", 0.75))
    )
    yield "ssm", ismcore.SlicedScoreMatching(probes=probes, variance_reduced=False)
    yield "ssm_vr", ismcore.SlicedScoreMatching(probes=probes)
    yield "dsm", ismcore.DenoisingScoreMatching(float(case.raw["sigma_dsm"]), noise=noise)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.raw["id"])
def test_recurrences_and_complex_steps_give_the_golden_vectors(case):
    formula = FORMULAS[case.raw["kind"]](case.raw["activation"])
    psi, jacobian = formula(case.params, case.x)
    assert relative_error(psi.real, case.raw["psi"]) < 5e-16
    assert relative_error(jacobian.real, case.raw["jac"]) < 2e-15
    for name, objective in objectives(case):

        def loss(params, objective=objective):
            return losses.loss(objective, formula, params, case.x)

        gradient = oracle.gradient(loss, case.params)
        assert relative_error(loss(case.params).real, float(case.raw["loss"][name])) < 3e-15
        for key, expected in case.gradient(name).items():
            assert relative_error(gradient[key], expected) < 1e-14


@pytest.mark.parametrize("case", scored_scenarios(), ids=lambda case: case.id)
def test_jacobian_of_every_scenario_is_that_of_difference_quotients(case):
    context = () if case.context is None else (case.context,)

    def psi(x):
        return case.formula(case.params, x, *context)[0].real

    quotients = [(psi(case.x + 1e-5 * unit) - psi(case.x - 1e-5 * unit)) / 2e-5 for unit in np.eye(case.x.shape[1])]
    assert relative_error(np.stack(quotients, axis=2), case.answer.jacobian) < 1e-7


# Losses at the stress inputs curve too much for a difference quotient; the golden vectors hold their gradients.
GENTLE = [case for case in all_scenarios() if "stress" not in case.id]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case.x.shape[1] > 10 else ()) for case in GENTLE],
    ids=lambda case: case.id,
)
def test_gradient_of_every_gentle_scenario_is_that_of_difference_quotients(case):
    for name, expected in case.answer.gradient.items():
        for index in np.ndindex(np.shape(expected)):
            unit = np.zeros(np.shape(expected))
            unit[index] = 1e-5
            ahead, behind = (case.value_and_grad({**case.params, name: case.params[name] + s * unit})[0] for s in (1, -1))
            assert abs((ahead - behind) / 2e-5 - expected[index]) < 1e-7 * max(1.0, np.max(np.abs(expected)))


@pytest.mark.parametrize("weight", [None, np.array([0.5, 0.0, 0.125, 0.375])], ids=["alike", "weighted"])
@pytest.mark.parametrize(
    "objective",
    [
        ismcore.ImplicitScoreMatching(0.75),
        ismcore.ImplicitScoreMatching((0.5, 0.0, 2.0)),
        ismcore.ExplicitScoreMatching(lambda x: 0.5 - x**3),
        ismcore.DenoisingScoreMatching(0.5, noise=np.cos(np.arange(12.0)).reshape(4, 3)),
        ismcore.DenoisingScoreMatching(0.5, noise=np.cos(np.arange(12.0)).reshape(4, 3), variance_reduced=True),
    ],
    ids=["penalised", "by-column", "explicit", "denoising", "denoising-reduced"],
)
def test_affine_gradient_by_hand_is_that_of_complex_steps(objective, weight):
    case = next(case for case in all_scenarios() if case.id == "affine3")
    found = losses.affine_slopes(objective, case.params, case.x, {}, weight)
    right = oracle.gradient(lambda p: losses.loss(objective, oracle.affine, p, case.x, {}, weight), case.params)
    for name, slope in right.items():
        assert relative_error(found[name], slope) < 1e-14


def test_gradients_by_hand_are_for_some_objectives_alone():
    case = next(case for case in all_scenarios() if case.id == "affine3")
    assert losses.affine_slopes(ismcore.SlicedScoreMatching(probes=np.ones((1, 4, 3))), case.params, case.x) is None


def test_estimates_at_all_signs_are_exact():
    case = next(case for case in all_scenarios() if case.id == "e5_tanh-ism")
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 5)).reshape(5, -1).T[:, None] * np.ones((1, 3, 1))
    exact = losses.loss(ismcore.ImplicitScoreMatching(), case.formula, case.params, case.x)
    for objective in (
        ismcore.ImplicitScoreMatching(divergence=ismcore.Hutchinson(probes=signs)),
        ismcore.SlicedScoreMatching(probes=signs),
        ismcore.SlicedScoreMatching(probes=signs, variance_reduced=False),
    ):
        assert abs(losses.loss(objective, case.formula, case.params, case.x) - exact) < 1e-14


def test_trajectory_gives_the_published_losses():
    run = ismcore.datasets.reference_run()
    formula = oracle.mlp("sigmoid")
    x, epochs = run.sample, run.epochs[run.epochs <= 60]

    def loss(params):
        return losses.loss(ismcore.ImplicitScoreMatching(), formula, params, x)

    def value_and_grad(params, step):
        return loss(params).real, oracle.gradient(loss, params)

    found, _ = oracle.train(run.optimizer, run.optimizer.start(run.initial_params), [0.01] * epochs[-1], value_and_grad)
    assert np.max(np.abs(found[epochs - 1] - run.losses[: len(epochs)])) < 1e-6


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_no_step_leads_below_the_affine_minimum(weight):
    x = np.random.default_rng(0).normal(size=(20, 3)) @ np.triu(np.ones((3, 3)))
    best = oracle.affine_minimum(x, weight)
    objective = ismcore.ImplicitScoreMatching(weight)
    slopes = oracle.gradient(lambda params: losses.loss(objective, oracle.affine, params, x), best)
    assert max(np.max(np.abs(slope)) for slope in slopes.values()) < 1e-13
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

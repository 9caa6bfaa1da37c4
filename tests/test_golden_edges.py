"""The weighted objective on domains against 50-digit vectors that no automatic differentiation produced."""

import numpy as np
import pytest
from truth import Golden, array, read, relative_error

import ismcore
from ismcore.domains import Box, Halfspaces

CASES = [Golden(case) for case in read("golden_edges")["cases"]]


def domain_of(case):
    raw = case.raw["domain"]
    width = tuple(map(float, raw["width"]))
    if "A" in raw:
        return Halfspaces(array(raw["A"]), array(raw["b"]), width)
    lower, upper = (tuple(None if end is None else float(end) for end in raw[name]) for name in ("lower", "upper"))
    return Box(lower, upper, width)


@pytest.mark.parametrize("route", ["nested", "analytic"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.raw["id"])
def test_loss_and_gradient_in_float64(case, route, backend):
    objective = ismcore.ImplicitScoreMatching(float(case.raw["curvature_weight"]), route, domain=domain_of(case))
    weight = array(case.raw["row_weight"]) if "row_weight" in case.raw else None
    options = {"backend": backend, "sample_weight": weight}
    at = ismcore.evaluate(case.model, case.params, case.x, objective, **options)
    assert relative_error(at.loss, float(case.raw["loss"])) < 1e-12
    expected = Golden._named(case.raw["gradient"])
    assert at.gradient.keys() == expected.keys()
    assert max(relative_error(at.gradient[name], value) for name, value in expected.items()) < 1e-12


def test_estimated_divergence_is_weighted_too():
    case = next(case for case in CASES if case.raw["id"] == "orthant-energy")
    probes = np.sqrt(3.0) * np.eye(3)[:, None, :].repeat(len(case.x), axis=1)
    objective = ismcore.ImplicitScoreMatching(0.0, ismcore.Hutchinson(probes=probes), domain=domain_of(case))
    at = ismcore.evaluate(case.model, case.params, case.x, objective, backend="autograd")
    assert relative_error(at.loss, float(case.raw["loss"])) < 1e-12


def test_table_is_whole():
    assert len(CASES) == 16
    assert {type(domain_of(case)) for case in CASES} == {Box, Halfspaces}
    assert all(0.0 < domain_of(case).weights(case.x)[0].min() < 1.0 for case in CASES)
    assert all(len(case.raw["loss"].replace("-", "").replace(".", "").lstrip("0")) >= 48 for case in CASES)

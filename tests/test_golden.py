"""`evaluate` against vectors that no automatic differentiation produced."""

import pytest
from truth import array, golden, relative_error

import ismcore

CASES = [*golden("score"), *golden("energy")]


def objectives(case):
    """The six losses of golden.json, and the same with every product found another way."""
    probes, noise = array(case.raw["V"])[None], array(case.raw["noise"])
    found = {}
    for name, weight in WEIGHTS.items():
        for route in ("nested", "analytic"):
            found[name, route] = ismcore.ImplicitScoreMatching(weight, route)
    found["ssm"] = ismcore.SlicedScoreMatching(probes=probes, variance_reduced=False)
    found["ssm_vr"] = ismcore.SlicedScoreMatching(probes=probes)
    found["dsm"] = ismcore.DenoisingScoreMatching(float(case.raw["sigma_dsm"]), noise=noise)
    return found


WEIGHTS = {"ism": 0.0, "reg0.1": 0.1, "reg0.75": 0.75}


IN_OTHERS = {("ism", "nested"), ("ism", "analytic"), ("reg0.1", "nested"), ("reg0.1", "analytic"), "ssm"}
"""Not measured in float32, and by JAX, which compiles each for a quarter of a second: their terms are in the others."""


def worst_errors(case, backend, dtype):
    values, gradients = [], []
    for key, objective in objectives(case).items():
        if key in IN_OTHERS and (dtype == "float32" or backend == "jax"):
            continue
        name = key if isinstance(key, str) else key[0]
        at = ismcore.evaluate(case.model, case.params, case.x, objective, backend=backend, dtype=dtype)
        assert at.score.dtype == dtype
        assert {g.dtype.name for g in at.gradient.values()} == {dtype}
        values.append(relative_error(at.loss, case.raw["loss"][name]))
        expected = case.gradient(name)
        assert at.gradient.keys() == expected.keys()
        gradients += [relative_error(at.gradient[key], value) for key, value in expected.items()]
    values += [relative_error(at.score, case.score), relative_error(at.jacobian_diagonal, case.jacobian_diagonal)]
    return max(values), max(gradients)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.raw["id"])
def test_float64(case, backend):
    value, gradient = worst_errors(case, backend, "float64")
    assert value < 1e-12
    assert gradient < 1e-11


@pytest.mark.parametrize("case", [case for case in CASES if not case.is_stress], ids=lambda case: case.raw["id"])
def test_float32(case, backend):
    assert max(worst_errors(case, backend, "float32")) < 2e-5


def test_table_is_whole():
    assert len(CASES) == 35
    assert sum(case.is_stress for case in CASES) == 6

"""The losses for user loops, over plain functions of each framework, against vectors that no differentiation produced."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frameworks import FRAMEWORKS
from truth import array, golden, relative_error

CASES = [*golden("score"), *golden("energy")]
WEIGHTS = {"ism": 0.0, "reg0.1": 0.1, "reg0.75": 0.75}
NAMES = (*WEIGHTS, "ssm", "ssm_vr", "dsm")


def loss(framework, case, name, params, x, given):
    """One of the six losses of golden.json."""
    psi = framework.score(params, case.raw["activation"], case.raw["kind"])
    ours = framework.losses
    if name in WEIGHTS:
        return ours.implicit_score_matching(psi, x, WEIGHTS[name])
    if name == "dsm":
        return ours.denoising_score_matching(psi, x, float(case.raw["sigma_dsm"]), noise=given["noise"])
    return ours.sliced_score_matching(psi, x, probes=given["probes"], variance_reduced=name == "ssm_vr")


def diagonal(framework, case, params, x):
    psi = framework.score(params, case.raw["activation"], case.raw["kind"])
    return framework.losses.jacobian_diagonal(psi, x)


def evaluated(framework, case, params, x, given):
    """The losses, their gradients by name, and the Jacobian's diagonal."""
    if framework.name != "jax":
        at = {
            name: framework.value_and_grad(lambda p, name=name: loss(framework, case, name, p, x, given))(params)
            for name in NAMES
        }
        values = {name: framework.numpy(value) for name, (value, _) in at.items()}
        gradients = {name: {key: framework.numpy(g) for key, g in gradient.items()} for name, (_, gradient) in at.items()}
        return values, gradients, framework.numpy(diagonal(framework, case, params, x))

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def together(params, x, given):
        """One program for all: compiling is what takes the time here."""
        found, pull = jax.vjp(lambda p: jnp.stack([loss(framework, case, name, p, x, given) for name in NAMES]), params)
        rows = jax.vmap(lambda unit: pull(unit)[0])(jnp.eye(len(NAMES), dtype=x.dtype))
        return found, rows, diagonal(framework, case, params, x)

    found, rows, columns = jax.tree.map(np.asarray, together(params, x, given))
    gradients = {name: {key: rows[key][i] for key in rows} for i, name in enumerate(NAMES)}
    return {name: found[i] for i, name in enumerate(NAMES)}, gradients, columns


def worst_errors(framework, case, dtype):
    with jax.enable_x64(True) if framework.name == "jax" else contextlib.nullcontext():
        params, x = framework.arrays(case.params, dtype), framework.array(case.x, dtype)
        given = framework.arrays({"probes": array(case.raw["V"])[None], "noise": array(case.raw["noise"])}, dtype)
        values, gradients, columns = evaluated(framework, case, params, x, given)
    assert {found.dtype.name for found in (*values.values(), columns)} == {dtype}
    assert {found.dtype.name for gradient in gradients.values() for found in gradient.values()} == {dtype}
    in_value = [relative_error(values[name], case.raw["loss"][name]) for name in NAMES]
    in_gradient = [
        relative_error(gradients[name][key], expected) for name in NAMES for key, expected in case.gradient(name).items()
    ]
    return max(*in_value, relative_error(columns, case.jacobian_diagonal)), max(in_gradient)


# A case takes JAX a second, most of it tracing and compiling: it has those for d = 3, each activation among them, and these.
OTHERS = ("s2_gelu_tanh", "s1_deep_tanh", "stress1_sigmoid", "stress1_softplus", "e2_softplus", "e2_gelu", "e5_tanh")
FEW = [case for case in CASES if case.raw["id"].startswith("s3_") or case.raw["id"] in OTHERS]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=pytest.mark.slow if name == "jax" and number % 12 else ())
        for name in FRAMEWORKS
        for number, case in enumerate(FEW if name == "jax" else CASES)
    ],
    ids=lambda value: value if isinstance(value, str) else value.raw["id"],
)
def test_float64(name, case):
    value, gradient = worst_errors(FRAMEWORKS[name](), case, "float64")
    assert value < 1e-12
    assert gradient < 1e-11


TAME = [case for case in CASES if not case.is_stress]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "case"),
    # float32 changes nothing in the program's structure
    [(name, case) for name in FRAMEWORKS for case in (TAME[2::8] if name == "jax" else TAME)],
    ids=lambda value: value if isinstance(value, str) else value.raw["id"],
)
def test_float32(name, case):
    assert max(worst_errors(FRAMEWORKS[name](), case, "float32")) < 2e-5

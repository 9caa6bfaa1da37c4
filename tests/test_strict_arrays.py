"""What the core asks of arrays is what backends/README.md says: everything runs on arrays that refuse whatever it does not."""

import numpy as np
import pytest
from ismcore_autograd.backend import AutogradBackend
from shelf import PLUGIN, shelf_on_path
from strict_arrays import ForwardBackend, FrozenBackend, NotInContract, ReverseBackend, StrictBackend
from truth import relative_error

import ismcore
from ismcore.analytic import find_route
from ismcore.backend import API
from ismcore.coordinates import Coordinates
from ismcore.models import Standardized
from ismcore.problem import Loss, Problem
from ismcore.testing import check_backend, functions

MLP, ISM = ismcore.MLP, ismcore.ImplicitScoreMatching
N, D = 7, 3

NAMED = {
    "operators": lambda ops, a: 2 - (-a) / 0.5 * a + 1.0 / (a - 1),
    "product of matrices": lambda ops, a: ops.permute_dims(a, (1, 0)) @ a,
    "an index": lambda ops, a: a[1, 0],
    "slices and new axes": lambda ops, a: a[1:, None, :2] + a[0][None, :2],
    "condition": lambda ops, a: ops.where(a > 0.5, a, 0.0),
    "shape": lambda ops, a: ops.reshape(a, (a.shape[0] * len(a.shape), *tuple(a.shape)[1:], 1)[:2]) if a.shape[1] == 1 else a,
    "in place on what an operator made": lambda ops, a: updated(a * a, a),
}
REFUSED = {
    "vector @ matrix": lambda ops, a: a[0] @ ops.permute_dims(a, (1, 0)),
    "matrix @ vector": lambda ops, a: a @ a[0],
    "batched @": lambda ops, a: a[None, :, :] @ ops.permute_dims(a, (1, 0))[None, :, :],
    "truth of a shape": lambda ops, a: 1 if a.shape else 2,
    "slice of a shape": lambda ops, a: a.shape[1:],
    "last of a shape": lambda ops, a: a.shape[-1],
    "shape passed on": lambda ops, a: ops.broadcast_to(a[0], a.shape),
    "truth of an array": lambda ops, a: 1 if a[0, 0] > 0.0 else 2,
    "negative axis": lambda ops, a: ops.sum(a, axis=-1),
    "negative axis of stack": lambda ops, a: ops.stack([a, a], axis=-1),
    "reshape to what is left": lambda ops, a: ops.reshape(a, (-1,)),
    "negative index": lambda ops, a: a[-1],
    "ellipsis": lambda ops, a: a[..., 0],
    "every other row": lambda ops, a: a[::2],
    "array as index": lambda ops, a: a[np.array([0, 1])],
    "equality": lambda ops, a: a == a[0],
    "number of NumPy": lambda ops, a: np.float64(2.0) * a,
    "array of NumPy": lambda ops, a: a + np.ones(3),
    "asarray": lambda ops, a: np.asarray(a),
    "/=": lambda ops, a: divided(a * a, 2.0),
    "in place on an argument": lambda ops, a: updated(a, a),
    "in place on what a function made": lambda ops, a: updated(ops.exp(a), a),
    "in place on a view": lambda ops, a: updated((a * a)[:1], a[:1]),
    "in place on what was reshaped": lambda ops, a: updated(ops.reshape(a * a, (3, 2)), 1.0),
    "in place to another shape": lambda ops, a: updated(a[:1] * 2.0, a),
}


def updated(a, b):
    a += b
    a *= 2.0
    a -= b
    return a


def divided(a, b):
    a /= b
    return a


@pytest.fixture(params=[StrictBackend, FrozenBackend])
def engine(request):
    return request.param("float64")


@pytest.mark.parametrize("ask", NAMED.values(), ids=NAMED)
def test_what_the_contract_names_is_as_in_numpy(ask, engine):
    a = np.array([[0.25, 3.0, -1.0], [2.0, 0.5, 5.0]])
    plain = AutogradBackend("float64")
    assert np.array_equal(engine.to_numpy(ask(engine.ops, engine.asarray(a))), ask(plain.ops, a))


@pytest.mark.parametrize("ask", REFUSED.values(), ids=REFUSED)
def test_what_the_contract_does_not_name_is_refused(ask, engine):
    with pytest.raises(NotInContract):
        ask(engine.ops, engine.asarray(np.array([[0.25, 3.0, -1.0], [2.0, 0.5, 5.0]])))


def test_a_view_ends_updates_in_place_of_what_it_looks_into(engine):
    a = engine.asarray(np.ones((2, 3))) * 2.0
    engine.ops.permute_dims(a, (1, 0))
    with pytest.raises(NotInContract):
        updated(a, 1.0)


def test_nothing_is_updated_in_place_where_something_differentiates(engine):
    with pytest.raises(NotInContract, match="differentiates"):
        engine.value_and_grad(lambda params: engine.ops.sum(updated(params["p"] * 2.0, 1.0)))({"p": engine.asarray(np.ones(3))})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "dtype", "within"),
    [(StrictBackend, "float64", None), (ForwardBackend, "float32", 0.0), (ReverseBackend, "float64", 0.0)],
)
def test_the_kit_is_green_on_strict_arrays(backend, dtype, within):
    report = check_backend(backend, dtype=dtype, within=within)
    assert report.ok, str(report)


def _energy(ops, params, x):
    return ops.logaddexp(ops.sum(x * x, axis=1) * params["a"], 0.0)


MODELS = {
    "affine": (ismcore.Affine(), N, D),
    "one hidden": (MLP((4,), "silu"), N, D),
    "one hidden, d = 1": (MLP((4,), "sigmoid"), N, 1),
    "two hidden": (MLP((4, 5), "gelu"), N, D),
    "two hidden, few rows": (MLP((9, 4), "gelu_tanh"), N, D),
    "three hidden": (MLP((4, 3, 2), "tanh"), N, D),
    "three hidden, more columns than rows": (MLP((4, 3, 2), "softplus"), 2, D),
    "three hidden, more columns than units": (MLP((2, 3, 2), "silu"), 4, 9),
    "residual": (ismcore.ResidualMLP(4, 2), N, D),
    "energy": (ismcore.Energy(MLP((4,), "silu")), N, D),
    "deep energy": (ismcore.Energy(MLP((4, 3, 2), "softplus")), N, D),
    "deep energy, more columns than rows": (ismcore.Energy(MLP((4, 3), "tanh")), 2, D),
    "residual energy": (ismcore.Energy(ismcore.ResidualMLP(4, 1)), N, D),
    "function": (functions.WAVES, N, D),
    "function of columns": (functions.COLUMNS, N, 2),
    "energy of a function": (ismcore.Energy(ismcore.ScoreFunction(_energy, {"a": 0.5})), N, D),
    "standardised": (Standardized(ismcore.ResidualMLP(4, 1), Coordinates(np.arange(3.0), np.array([0.5, 1.0, 2.0]))), N, D),
}
OBJECTIVES = {
    "plain": lambda n, d: ISM(),
    "nested": lambda n, d: ISM(divergence="nested"),
    "penalised": lambda n, d: ISM(0.5),
    "penalised by dimension": lambda n, d: ISM(tuple(0.25 * k for k in range(1, d + 1))),
    "penalised, nested": lambda n, d: ISM(tuple(0.25 * k for k in range(1, d + 1)), divergence="nested"),
    "estimated": lambda n, d: ISM(divergence=ismcore.Hutchinson(2)),
    "estimated, penalised": lambda n, d: ISM(0.5, ismcore.Hutchinson(3, "gaussian")),
    "sliced": lambda n, d: ismcore.SlicedScoreMatching(2, variance_reduced=False),
    "sliced, variance reduced": lambda n, d: ismcore.SlicedScoreMatching(probes=np.ones((2, n, d))),
    "denoising": lambda n, d: ismcore.DenoisingScoreMatching(0.5),
    "explicit": lambda n, d: ismcore.ExplicitScoreMatching(lambda x: -x),
}


def problem_of(model, objective, n, d, weighted):
    x = np.random.default_rng(n).normal(size=(n, d))
    weight = np.arange(1.0, n + 1.0) / (n * (n + 1) / 2) if weighted else None
    return Problem(Loss(model, objective), ismcore.SGD(), x, Coordinates.identity(d), weight)


def found(backend, problem, block_bytes=None):
    """Loss by itself, loss and gradient: what `Backend.loss` and `loss_and_gradient` give."""
    engine = backend("float64")
    engine.block_bytes = block_bytes or engine.block_bytes
    rng = np.random.default_rng(0)
    with engine.scope():
        d = problem.x.shape[1]
        params = engine.asarrays({k: rng.uniform(0.1, 1.0, shape) for k, shape in problem.model.shapes(d).items()})
        given = engine.asarrays({**problem.inputs(), **problem.draws(0)})
        x = engine.asarray(problem.x)
        alone = engine.loss(problem.loss)(params, x, given)
        value, slopes = engine.loss_and_gradient(problem.loss)(params, x, given)
        return [engine.to_numpy(alone), engine.to_numpy(value), *(engine.to_numpy(slopes[name]) for name in params)]


def assert_agree(backends, problem, block_bytes=None):
    right = found(AutogradBackend, problem, block_bytes)
    for backend in backends:
        for one, other in zip(found(backend, problem, block_bytes), right, strict=True):
            assert relative_error(one, other) < 1e-13


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("model", MODELS)
def test_every_objective_of_every_model_asks_for_what_the_contract_names(model, objective):
    model, n, d = MODELS[model]
    for weighted in (False, True):
        assert_agree((StrictBackend, FrozenBackend), problem_of(model, OBJECTIVES[objective](n, d), n, d, weighted))


@pytest.mark.parametrize("backend", [ForwardBackend, ReverseBackend])
@pytest.mark.parametrize("model", ["residual", "residual energy", "function of columns"])
def test_each_product_alone_asks_for_what_the_contract_names(model, backend):
    model, n, d = MODELS[model]
    assert_agree((backend,), problem_of(model, ISM((0.5,) * d), n, d, weighted=True))


@pytest.mark.parametrize("weighted", [False, True])
def test_conditional_models_ask_for_what_the_contract_names(weighted):
    ladder = ismcore.NoiseConditionalScoreMatching((1.0, 0.5))
    for net in (MLP((4,), "relu"), ismcore.ResidualMLP(4, 1)):
        assert_agree((StrictBackend, FrozenBackend), problem_of(ismcore.NoiseConditional(net), ladder, N, D, weighted))


def test_the_models_cover_every_closed_formula():
    routes = {
        type(find_route(model, d, trace=trace, n=n)).__name__ for model, n, d in MODELS.values() for trace in (True, False)
    }
    scores = {"OneHidden", "TwoHiddenTrace", "TwoHiddenDiagonal", "PrecomputedTrace", "Tangents"}
    assert routes == scores | {"ShallowEnergy", "DeepEnergy", "NoneType"}


@pytest.mark.parametrize("penalty", [0.0, 0.5])
@pytest.mark.parametrize("model", [name for name, (model, *_) in MODELS.items() if find_route(model, 1, trace=True)])
def test_blocks_of_rows_ask_for_what_the_contract_names(model, penalty):
    model, _, d = MODELS[model]
    for weighted in (False, True):
        assert_agree((StrictBackend, FrozenBackend), problem_of(model, ISM(penalty), 1100, d, weighted), block_bytes=1)


@pytest.fixture
def strict(tmp_path, monkeypatch):
    """The strict backend as if it were installed."""
    with shelf_on_path(tmp_path, monkeypatch) as shelf:
        backend = "from strict_arrays import StrictBackend as Mirror"
        shelf.put("strict", PLUGIN.format(name="strict", module="strict", api=API), backend=backend)
        yield "strict"


WEIGHT = np.linspace(0.1, 1.0, 400)
FITS = {
    "default": {},
    "sample weights": {"sample_weight": WEIGHT},
    "batches": {"batch_size": 90, "recipe": "reference", "sample_weight": WEIGHT},
    "penalty by dimension": {"objective": ISM((0.1, 0.2)), "recipe": "reference"},
    "energy": {"model": ismcore.Energy(MLP((4,))), "sample_weight": WEIGHT},
    "deep": {"model": MLP((4, 4, 4), "tanh")},
    "conditional": {
        "model": ismcore.NoiseConditional(MLP((4,))),
        "objective": ismcore.NoiseConditionalScoreMatching((1.0, 0.5)),
        "recipe": "reference",
    },
    "L-BFGS": {"model": MLP((4,)), "optimizer": ismcore.LBFGS(), "recipe": "reference", "sample_weight": WEIGHT},
}


@pytest.mark.parametrize("options", FITS.values(), ids=FITS)
def test_fits_ask_for_what_the_contract_names(options, strict):
    x = np.random.default_rng(0).normal(size=(400, 2)) @ [[1.0, 0.5], [0.0, 2.0]]
    options = {"epochs": 2, "progress": False, "dtype": "float64", **options}
    one, other = (ismcore.fit(x, backend=backend, **options) for backend in (strict, "autograd"))
    assert one.backend == strict
    assert relative_error(one.history["loss"], other.history["loss"]) < 1e-9
    if "conditional" in type(options.get("model")).__name__.lower():
        drawn = [ismcore.annealed_langevin(result, 5, (1.0, 0.5), steps=2) for result in (one, other)]
        assert relative_error(*drawn) < 1e-6


def test_results_and_solutions_ask_for_what_the_contract_names(strict):
    x = np.random.default_rng(0).normal(size=(20, 2))
    for model in (ismcore.ResidualMLP(4, 1), ismcore.Energy(MLP((4, 3)))):
        one, other = (ismcore.evaluate(model, None, x, backend=backend) for backend in (strict, "autograd"))
        assert relative_error(one.jacobian_diagonal, other.jacobian_diagonal) < 1e-13
        assert relative_error(one.terms, other.terms) < 1e-13
    one, other = (ismcore.solve(ismcore.Affine(), x, backend=backend).params for backend in (strict, "autograd"))
    assert relative_error(one["weight"], other["weight"]) < 1e-9

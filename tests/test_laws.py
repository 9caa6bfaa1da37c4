"""What must hold for every objective, whatever the network: identities, bounds, units, unbiased estimates."""

import itertools

import numpy as np
import pytest
from truth import SMALL_SAMPLE, correlated

import ismcore
from ismcore.coordinates import Coordinates
from ismcore.targets import GaussianMixture

D = 3
X = correlated(n=17, d=D)
Z = (X - X.mean(axis=0)) / X.std(axis=0)
MODEL = ismcore.MLP((6, 5), "tanh")
PARAMS = MODEL.initial_params(2, D)
SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=D)))
BASIS = np.sqrt(D) * np.linalg.qr(np.random.default_rng(5).normal(size=(D, D)))[0]


def evaluate(objective, backend, model=MODEL, params=PARAMS, x=Z, **options):
    return ismcore.evaluate(model, params, x, objective, backend=backend, **options)


@pytest.mark.parametrize("probes", [SIGNS, BASIS], ids=["all signs", "orthogonal basis"])
@pytest.mark.parametrize("variance_reduced", [True, False])
def test_a_full_set_of_probes_makes_sliced_equal_exact(probes, variance_reduced, backend):
    everywhere = np.broadcast_to(probes[:, None, :], (len(probes), *Z.shape))
    exact = evaluate(ismcore.ImplicitScoreMatching(divergence="nested"), backend)
    sliced = evaluate(ismcore.SlicedScoreMatching(probes=everywhere, variance_reduced=variance_reduced), backend)
    estimated = evaluate(ismcore.ImplicitScoreMatching(divergence=ismcore.Hutchinson(probes=everywhere)), backend)
    for found in (sliced, estimated):
        assert abs(found.loss - exact.loss) < 1e-12
        for name, slope in exact.gradient.items():
            np.testing.assert_allclose(found.gradient[name], slope, rtol=0, atol=1e-11)


def test_one_rademacher_probe_is_exact_in_one_dimension(backend):
    x = Z[:, :1]
    params = MODEL.initial_params(2, 1)
    exact = evaluate(ismcore.ImplicitScoreMatching(), backend, params=params, x=x)
    for objective in (ismcore.SlicedScoreMatching(), ismcore.SlicedScoreMatching(variance_reduced=False)):
        assert abs(evaluate(objective, backend, params=params, x=x, seed=9).loss - exact.loss) < 1e-12


def test_a_sliced_term_of_each_row_is_its_quadratic_form(backend):
    probes = np.random.default_rng(1).normal(size=(2, *Z.shape))
    jacobian = brute_force_jacobian(backend)
    psi = evaluate(None, backend).score
    forms = np.einsum("mni,nij,mnj->mn", probes, jacobian, probes)
    slices = np.einsum("mni,ni->mn", probes, psi)
    plain = evaluate(ismcore.SlicedScoreMatching(probes=probes, variance_reduced=False), backend)
    np.testing.assert_allclose(plain.terms, (forms + 0.5 * slices**2).mean(axis=0), rtol=0, atol=1e-7)
    reduced = evaluate(ismcore.SlicedScoreMatching(probes=probes), backend)
    np.testing.assert_allclose(reduced.terms, forms.mean(axis=0) + 0.5 * (psi**2).sum(axis=1), rtol=0, atol=1e-7)
    assert abs(reduced.terms.mean() - reduced.loss) < 1e-12


def brute_force_jacobian(backend, h=1e-5):
    def score(x):
        return evaluate(None, backend, x=x).score

    return np.stack([(score(Z + h * e) - score(Z - h * e)) / (2 * h) for e in np.eye(D)], axis=2)


def test_the_curvature_penalty_is_bounded_and_grows_with_its_weight(backend):
    weights = [0.0, 0.05, 0.3, 2.0]
    losses = [evaluate(ismcore.ImplicitScoreMatching(w), backend).loss for w in weights]
    assert losses == sorted(losses)
    steep = {name: 4 * value for name, value in PARAMS.items()}
    for w in weights[1:]:
        assert evaluate(ismcore.ImplicitScoreMatching(w), backend, params=steep).loss >= -D / (4 * w)


def test_a_weight_for_each_dimension_weighs_each_square(backend):
    weights = np.array([0.1, 0.0, 0.7])
    plain = evaluate(ismcore.ImplicitScoreMatching(), backend)
    for divergence in ("nested", "analytic"):
        found = evaluate(ismcore.ImplicitScoreMatching(tuple(weights), divergence), backend)
        expected = plain.loss + (plain.jacobian_diagonal**2 @ weights).mean()
        assert abs(found.loss - expected) < 1e-12
    with pytest.raises(ismcore.OptionError, match=r"shape \(3,\)"):
        evaluate(ismcore.ImplicitScoreMatching((0.1, 0.2)), backend)


@pytest.mark.parametrize(
    "objective",
    [
        ismcore.ImplicitScoreMatching(0.2, "nested"),
        ismcore.ImplicitScoreMatching(0.2, "analytic"),
        ismcore.ImplicitScoreMatching(0.0, "analytic"),
        ismcore.SlicedScoreMatching(2),
        ismcore.DenoisingScoreMatching(0.4),
        ismcore.ExplicitScoreMatching(np.tanh),
    ],
    ids=repr,
)
def test_row_weights_are_repetitions(objective, backend):
    counts = np.arange(len(Z)) % 3
    rows = np.repeat(np.arange(len(Z)), counts)
    weighted = evaluate(objective, backend, sample_weight=counts)
    assert abs(weighted.loss - weighted.terms @ counts / counts.sum()) < 1e-12
    if not hasattr(objective, "n_probes") and not hasattr(objective, "noise_scale"):  # those draw anew for other rows
        repeated = evaluate(objective, backend, x=Z[rows])
        assert abs(weighted.loss - repeated.loss) < 1e-12
        for name, slope in repeated.gradient.items():
            np.testing.assert_allclose(weighted.gradient[name], slope, rtol=0, atol=1e-11)


def test_units_of_the_objectives(backend):
    # psi_c(x) = psi(x / c) / c on samples c x: J and the denoising loss are divided by c^2
    c = 3.0
    scaled_model, scaled = MODEL.in_units(PARAMS, Coordinates(np.zeros(D), np.full(D, c)))
    pairs = [
        (ismcore.ImplicitScoreMatching(0.2), ismcore.ImplicitScoreMatching(0.2 * c * c)),
        (ismcore.SlicedScoreMatching(3), ismcore.SlicedScoreMatching(3)),
        (ismcore.DenoisingScoreMatching(0.4), ismcore.DenoisingScoreMatching(0.4 * c)),
    ]
    for here, there in pairs:
        found = evaluate(there, backend, scaled_model, scaled, x=c * Z)
        assert abs(found.loss - evaluate(here, backend).loss / c**2) < 1e-12


def test_explicit_minus_implicit_is_the_same_constant_for_every_model(backend):
    # 1/2 E|psi - s|^2 = J + 1/2 E|s|^2 (Hyvarinen 2005, theorem 1), by quadrature over a mixture in one dimension
    target = GaussianMixture([0.3, 0.7], [-1.0, 1.5], [0.5, 0.8])
    grid = np.linspace(-9.0, 10.0, 4001)[:, None]
    weight = target.pdf(grid)
    constant = 0.5 * np.average(target.score(grid)[:, 0] ** 2, weights=weight)
    for seed in range(3):
        params = MODEL.initial_params(seed, 1)
        explicit = evaluate(ismcore.ExplicitScoreMatching(target.score), backend, MODEL, params, grid, sample_weight=weight)
        implicit = evaluate(ismcore.ImplicitScoreMatching(), backend, MODEL, params, grid, sample_weight=weight)
        assert abs(explicit.loss - implicit.loss - constant) < 1e-10


def test_vincent_s_identity(backend):
    # E_{x, e} 1/2 |psi(x + s e) + e / s|^2 = 1/2 E_q |psi - grad log q|^2 + 1/2 (E|e|^2 / s^2 - E_q |grad log q|^2),
    # with q the samples blurred by s: both by the trapezoid rule
    s, centres = 0.6, np.array([-1.0, 0.2, 2.0])
    nodes = np.linspace(-9.0, 9.0, 401)
    weights = np.exp(-0.5 * nodes**2)
    x, noise = (part.reshape(-1, 1) for part in np.meshgrid(centres, nodes, indexing="ij"))
    row_weight = np.tile(weights, len(centres))
    params = MODEL.initial_params(4, 1)
    denoising = ismcore.DenoisingScoreMatching(s, noise=noise)
    left = evaluate(denoising, backend, MODEL, params, x, sample_weight=row_weight).loss

    blurred = GaussianMixture(np.ones(3), centres, np.full(3, s * s))
    grid = np.linspace(-8.0, 9.0, 6001)[:, None]
    q = blurred.pdf(grid)
    explicit = evaluate(ismcore.ExplicitScoreMatching(blurred.score), backend, MODEL, params, grid, sample_weight=q)
    fisher = np.average(blurred.score(grid)[:, 0] ** 2, weights=q)
    assert abs(left - (explicit.loss + 0.5 * (1.0 / s**2 - fisher))) < 1e-8


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
def test_penalised_quadratic_energy_has_a_symmetric_minimiser_of_its_own(backend):
    # psi = -S x with S symmetric: the minimum of 1/2 tr(S C S) - tr S + lambda sum S_ii^2 over symmetric S
    weight, covariance = 0.3, Z.T @ Z / len(Z)

    def quadratic(ops, params, x):
        return 0.5 * ops.sum((x @ params["s"]) * x, axis=1)

    result = ismcore.fit(
        Z,
        model=ismcore.Energy(ismcore.ScoreFunction(quadratic, {"s": np.zeros((D, D))})),
        objective=ismcore.ImplicitScoreMatching(weight),
        optimizer=ismcore.SGD(0.2, 0.9),
        epochs=600,
        dtype="float64",
        backend=backend,
        recipe="reference",
    )
    found = 0.5 * (result.params["s"] + result.params["s"].T)
    pairs = list(itertools.combinations_with_replacement(range(D), 2))
    units = np.array([np.eye(D)[[i]].T @ np.eye(D)[[j]] for i, j in pairs])
    units = 0.5 * (units + units.transpose(0, 2, 1))
    hessian = [[np.trace(a @ covariance @ b) + 2 * weight * a.diagonal() @ b.diagonal() for b in units] for a in units]
    exact = np.tensordot(np.linalg.solve(hessian, [np.trace(a) for a in units]), units, axes=1)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-8)
    as_score = [np.linalg.solve(covariance + 2 * weight * np.outer(e, e), e) for e in np.eye(D)]
    assert np.abs(np.array(as_score) - exact).max() > 1e-3


A = np.array([[-1.0, 0.8, 0.3], [-0.5, -2.0, 0.9], [1.5, 0.2, -0.7]])
VARIANCES = {
    "rademacher": lambda s: 2 * (np.sum(s * s) - np.sum(s.diagonal() ** 2)),
    "gaussian": lambda s: 2 * np.sum(s * s),
    "sphere": lambda s: 2 * D / (D + 2) * (np.sum(s * s) - np.trace(s) ** 2 / D),
}


@pytest.mark.parametrize("law", VARIANCES)
def test_probe_estimates_have_the_known_mean_and_variance(law, backend):
    n = 40_000
    x = np.zeros((n, D))  # psi = A x is 0 there: what remains of a term is v^T A v
    at = evaluate(
        ismcore.SlicedScoreMatching(probes=law), backend, ismcore.Affine(), {"weight": A, "bias": np.zeros(D)}, x, seed=3
    )
    variance = VARIANCES[law](0.5 * (A + A.T))
    assert abs(at.terms.mean() - np.trace(A)) < 4.5 * np.sqrt(variance / n)
    assert abs(at.terms.var() / variance - 1) < 0.06


@pytest.mark.parametrize("law", VARIANCES)
def test_estimated_curvature_penalty_is_unbiased_and_may_be_negative(law, backend):
    n, weight = 40_000, 0.7
    x = np.zeros((n, D))
    objective = ismcore.ImplicitScoreMatching(weight, divergence=ismcore.Hutchinson(2, law))
    at = evaluate(objective, backend, ismcore.Affine(), {"weight": A, "bias": np.zeros(D)}, x, seed=4)
    expected = np.trace(A) + weight * np.sum(A.diagonal() ** 2)
    z = (at.terms.mean() - expected) / (at.terms.std() / np.sqrt(n))
    assert abs(z) < 4.5
    with pytest.raises(ismcore.OptionError, match="n_probes=2"):
        ismcore.ImplicitScoreMatching(weight, divergence=ismcore.Hutchinson(1))


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
def test_training_by_draws_is_the_same_on_every_backend_and_in_any_chunks():
    objective = ismcore.SlicedScoreMatching(2)
    options = {"objective": objective, "epochs": 20, "dtype": "float64", "model": MODEL, "seed": 6, "recipe": "reference"}
    found = [ismcore.fit(X, backend=name, **options).history["loss"] for name in ("autograd", "torch", "jax")]
    cut = ismcore.fit(X, backend="jax", snapshots=[3, 4, 11], **options).history["loss"]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-11)
    np.testing.assert_array_equal(cut, found[2])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ismcore.Hutchinson(0), "n_probes"),
        (lambda: ismcore.Hutchinson(probes="uniform"), "rademacher, gaussian, sphere"),
        (lambda: ismcore.Hutchinson(probes=np.ones((4, 3))), r"\(m, n, d\)"),
        (lambda: ismcore.SlicedScoreMatching(probes="cauchy"), "rademacher"),
        (lambda: ismcore.DenoisingScoreMatching(0.0), "noise_scale"),
        (lambda: ismcore.NoiseConditionalScoreMatching(()), "at least one"),
        (lambda: ismcore.NoiseConditionalScoreMatching((1.0, -1.0)), "positive"),
        (lambda: ismcore.ExplicitScoreMatching(3), "function"),
        (lambda: evaluate(ismcore.SlicedScoreMatching(probes=np.ones((1, 4, 3))), "autograd"), r"shape \(1, 17, 3\)"),
        (lambda: evaluate(ismcore.DenoisingScoreMatching(1.0, np.ones((4, 3))), "autograd"), r"shape \(17, 3\)"),
        (lambda: evaluate(ismcore.ExplicitScoreMatching(lambda x: x[:, 0]), "autograd"), r"shape \(17, 3\)"),
    ],
)
def test_unusable_objectives_are_refused(make, words):
    with pytest.raises(ismcore.OptionError, match=words):
        make()


def test_closed_formulas_are_refused_where_there_are_none():
    objective = ismcore.ImplicitScoreMatching(divergence="analytic")
    with pytest.raises(ismcore.ModelError, match="no closed formulas"):
        evaluate(objective, "autograd", ismcore.ResidualMLP(5, 1), ismcore.ResidualMLP(5, 1).initial_params(0, D))

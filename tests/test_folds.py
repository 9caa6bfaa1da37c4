"""Fits in folds that start at the normal law: the base, the members, the stack, and what every option means with several."""

import warnings
from functools import partial

import numpy as np
import pytest
from truth import BACKENDS, marked

import ismcore
from ismcore.backend.contract import Backend
from ismcore.coordinates import Coordinates
from ismcore.errors import CallbackFailed, Diverged, ModelError, OptionError
from ismcore.fitting import ensemble
from ismcore.fitting.folds import Folds
from ismcore.fitting.stacking import OutOfFold, bounded_minimum, stacked
from ismcore.models import MLP, Affine, Combination, Energy, joined, parted
from ismcore.objectives import DenoisingScoreMatching, ImplicitScoreMatching
from ismcore.plugins.lookup import load_backend
from ismcore.problem import Loss
from ismcore.samples.splitting import HoldOut, dependent_rows
from ismcore.training.baseline import NormalLaw, mean_and_error
from ismcore.training.members import pooled_loss


def bent(n: int, seed: int = 0) -> np.ndarray:
    """Rows of a law that is far from normal, (n, 2)."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    return np.stack([a, 0.8 * (a * a - 1.0) + 0.4 * rng.normal(size=n)], axis=1)


def fit(x: np.ndarray, **options: object) -> ismcore.FitResult:
    given = {"backend": "autograd", "dtype": "float64", "epochs": 24, "progress": False, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ismcore.IsmWarning)
        return ismcore.fit(x, **given)


@pytest.fixture(scope="module")
def bent_fit() -> ismcore.FitResult:
    return fit(bent(200), epochs=60)


# ---- the base


def base_inputs(rng: np.random.Generator, d: int) -> dict[str, np.ndarray]:
    weight = rng.normal(size=(d, d))
    return {"base_weight": weight, "base_bias": rng.normal(size=d), "base_diagonal": np.diagonal(weight).copy()}


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("model", [MLP((5,)), MLP((5,), output_bias=False), Energy(MLP((5,), output_bias=False)), MLP((5, 4))])
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_the_base_enters_the_loss_as_a_score_that_is_added(name: str, model: ismcore.models.Model, weight: float) -> None:
    rng, d = np.random.default_rng(1), 3
    x, base = rng.normal(size=(7, d)), base_inputs(rng, d)
    params = model.initial_params(0, d)
    engine: Backend = load_backend(name)(dtype="float64", device="cpu")
    both = Combination((Affine(), model))
    parts = joined([{"weight": base["base_weight"], "bias": base["base_bias"]}, params])
    expected = ismcore.evaluate(
        both, {"weights": np.ones(2), **parts}, x, ImplicitScoreMatching(weight, divergence="nested"), backend="autograd"
    )
    for divergence in ("auto", "nested"):
        loss = Loss(model, ImplicitScoreMatching(weight, divergence=divergence))
        inputs = {**loss.inputs(x, Coordinates.identity(d)), **base}
        with engine.scope():
            value, gradient = engine.loss_and_gradient(loss)(
                engine.asarrays(params), engine.asarray(x), engine.asarrays(inputs)
            )
            assert abs(float(engine.to_numpy(value)) - expected.loss) < 1e-12 * (1.0 + abs(expected.loss))
            for key, slope in gradient.items():
                np.testing.assert_allclose(engine.to_numpy(slope), expected.gradient[f"members.1.{key}"], rtol=0, atol=1e-11)


def test_a_base_moves_with_the_noise_of_denoising() -> None:
    rng, d = np.random.default_rng(2), 3
    x, base, noise = rng.normal(size=(7, d)), base_inputs(rng, d), rng.normal(size=(7, d))
    model, objective = MLP((5,)), DenoisingScoreMatching(0.3, noise=noise)
    params = model.initial_params(0, d)
    psi = ismcore.evaluate(model, params, x + 0.3 * noise, backend="autograd").score
    psi = psi + (x + 0.3 * noise) @ base["base_weight"].T + base["base_bias"]
    expected = 0.5 * np.mean(np.sum((psi + noise / 0.3) ** 2, axis=1))
    engine = load_backend("autograd")(dtype="float64")
    loss = Loss(model, objective)
    value, _ = engine.loss_and_gradient(loss)(params, x, {**loss.inputs(x, Coordinates.identity(d)), **base})
    assert abs(float(value) - expected) < 1e-12 * abs(expected)


@pytest.mark.parametrize("name", marked(BACKENDS))
def test_weight_0_is_the_same_as_to_be_left_out(name: str) -> None:
    rng, d = np.random.default_rng(3), 2
    x, trained = rng.normal(size=(20, d)), np.arange(20) % 5 != 0
    model = MLP((4,))
    loss, units = Loss(model, ImplicitScoreMatching()), Coordinates.identity(d)
    params, engine = model.initial_params(0, d), load_backend(name)(dtype="float64", device="cpu")
    found = []
    for rows, weight in ((x, trained / trained.sum()), (x[trained], None)):
        with engine.scope():
            inputs = engine.asarrays(loss.inputs(rows, units, weight))
            value, _ = engine.loss_and_gradient(loss)(engine.asarrays(params), engine.asarray(rows), inputs)
            found.append(float(engine.to_numpy(value)))
    assert abs(found[0] - found[1]) < 1e-15 * (1.0 + abs(found[0]))


def test_the_score_of_a_normal_law_is_that_of_its_params() -> None:
    x = np.random.default_rng(4).normal(size=(500, 3)) @ np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.3]]) + 4.0
    params = NormalLaw.of(x).score_params()
    expected = -(x - x.mean(axis=0)) @ np.linalg.inv(np.cov(x.T, bias=True))
    np.testing.assert_allclose(x @ params["weight"].T + params["bias"], expected, atol=1e-11)


# ---- combinations


@pytest.mark.slow
def test_a_combination_is_the_weighted_sum_of_its_members_on_every_backend() -> None:
    rng, d = np.random.default_rng(5), 3
    x = rng.normal(size=(6, d))
    members = (MLP((4,)), Affine(), Energy(MLP((3,))))
    parts = [{name: rng.normal(size=shape) for name, shape in member.shapes(d).items()} for member in members]
    weights = np.array([0.5, 2.0, -1.0])
    alone = [ismcore.evaluate(m, part, x, backend="autograd") for m, part in zip(members, parts, strict=True)]
    for name in BACKENDS:
        found = ismcore.evaluate(Combination(members), {"weights": weights, **joined(parts)}, x, backend=name)
        for what in ("score", "jacobian_diagonal"):
            expected = sum(w * getattr(one, what) for w, one in zip(weights, alone, strict=True))
            np.testing.assert_allclose(getattr(found, what), expected, atol=1e-12)


def test_parameters_are_joined_and_parted() -> None:
    parts = [{"a.b": np.zeros(1), "c": np.ones(2)}, {"a.b": np.ones(1), "c": np.zeros(2)}]
    again = parted(joined(parts), 2)
    assert [list(part) for part in again] == [list(part) for part in parts]
    assert parted({}, 2) == [{}, {}]


# ---- the stack


def test_the_bounded_minimum_meets_the_conditions_of_karush_kuhn_and_tucker() -> None:
    rng, met = np.random.default_rng(6), set()
    for _ in range(50):
        root, b = rng.normal(size=(4, 4)), 2.0 * rng.normal(size=4)
        a = root @ root.T + 0.1 * np.eye(4)
        w = bounded_minimum(a, b)
        slope = a @ w + b
        assert ((w >= 0.0) & (w <= 1.0)).all()
        assert np.abs(slope[(w > 0.0) & (w < 1.0)]).max(initial=0.0) < 1e-10
        assert (slope[w == 0.0] >= -1e-10).all()
        assert (slope[w == 1.0] <= 1e-10).all()
        met |= set(np.sign(w * (1.0 - w)) + w)
    assert {0.0, 1.0} < met


def test_the_stack_minimises_the_loss_over_weights() -> None:
    rng = np.random.default_rng(7)
    parts = [OutOfFold(rng.normal(size=(300, 2)), -1.0 + 0.1 * rng.normal(size=(300, 2))) for _ in range(3)]
    weight, curvature = np.full(300, 1.0 / 300), np.asarray(0.2)
    found = stacked(parts, weight, ImplicitScoreMatching(0.2))

    def loss(w: np.ndarray) -> float:
        psi, diagonal = (sum(v * getattr(p, k) for v, p in zip(w, parts, strict=True)) for k in ("psi", "diagonal"))
        return float(weight @ OutOfFold(psi, diagonal).terms(curvature))

    least = loss(found.weights)
    assert all(loss(np.clip(found.weights + 0.2 * rng.normal(size=3), 0.0, 1.0)) > least - 1e-4 for _ in range(50))
    assert abs(found.difference - (least - loss(np.eye(3)[0]))) < 1e-12


def test_a_standard_error_counts_clusters_once() -> None:
    values = np.random.default_rng(8).normal(size=50)
    mean, error = mean_and_error(values, np.full(50, 0.02))
    assert abs(mean - values.mean()) < 1e-15
    assert abs(error - values.std(ddof=1) / np.sqrt(50)) < 1e-15
    twice = np.repeat(values, 2)
    again = mean_and_error(twice, np.full(100, 0.01), np.repeat(np.arange(50), 2))
    assert abs(again[1] - error) < 1e-15
    assert mean_and_error(twice, np.full(100, 0.01))[1] < 0.75 * error


# ---- the fit


@pytest.mark.parametrize("d", [1, 4])
def test_the_fit_of_normal_samples_is_the_normal_law_in_closed_form(d: int) -> None:
    x = 3.0 + 2.0 * np.random.default_rng(9).normal(size=(200, d))
    found = fit(x)
    expected = -(x - x.mean(axis=0)) @ np.linalg.inv(np.atleast_2d(np.cov(x.T, bias=True)))
    assert found.model == Affine()
    np.testing.assert_allclose(found.score(x), expected, atol=1e-10)
    assert found.baseline is not None
    assert found.baseline.difference == 0.0
    assert any("normal law in closed form" in note for note in found.notes)
    assert not found.warnings
    assert found.candidates[0]["weight"] == 1.0


def test_a_fit_leaves_the_normal_law_for_a_gain(bent_fit: ismcore.FitResult) -> None:
    baseline = bent_fit.baseline
    assert baseline is not None
    assert baseline.difference < -2.0 * baseline.standard_error
    assert not bent_fit.notes
    assert [c["name"] for c in bent_fit.candidates] == ["normal law", "network", "energy", "denoising network"]
    assert sum(c["weight"] > 0.0 for c in bent_fit.candidates) >= 1


def test_a_fit_in_folds_shows_what_it_is_the_sum_of_and_no_candidate_s_losses(bent_fit: ismcore.FitResult) -> None:
    first, *others = bent_fit.candidates
    assert first["weight"] == 0.0
    shown = ", ".join(f"{c['weight']:.2g} of {c['name']} ({c['best_epoch']} epochs)" for c in others if c["weight"] > 0.0)
    assert repr(bent_fit).splitlines()[0] == f"FitResult: {bent_fit.status}, {shown}"
    assert shown in bent_fit._repr_html_()
    for text in (repr(bent_fit), bent_fit._repr_html_()):
        assert f"{bent_fit.history['loss'][-1]:.6g}" not in text
    law = fit(np.random.default_rng(13).normal(size=(300, 3)), epochs=4)
    assert repr(law).splitlines()[0] == f"FitResult: {law.status}, 1 of normal law"


@pytest.mark.slow
def test_the_result_is_a_result_like_any_other(bent_fit: ismcore.FitResult, tmp_path) -> None:
    x = bent(50, seed=1)
    psi = bent_fit.score(x)
    bent_fit.save(tmp_path / "fit.safetensors")
    again = ismcore.load(tmp_path / "fit.safetensors")
    assert np.array_equal(again.score(x), psi)
    assert (again.candidates, again.notes, again.baseline) == (bent_fit.candidates, bent_fit.notes, bent_fit.baseline)
    np.testing.assert_allclose(ismcore.evaluate(bent_fit.model, bent_fit.params, x).score, psi, atol=1e-10)
    np.testing.assert_allclose(bent_fit.native()(x), psi, atol=1e-10)
    step = 1e-5 * np.eye(2)
    slopes = [(bent_fit.score(x + s)[:, i] - bent_fit.score(x - s)[:, i]) / 2e-5 for i, s in enumerate(step)]
    np.testing.assert_allclose(bent_fit.jacobian_diagonal(x), np.stack(slopes, axis=1), atol=1e-4)
    further = fit(x, initial_params=bent_fit, epochs=1, validation=0)
    assert isinstance(further.model, ismcore.models.Standardized)


@pytest.mark.slow
def test_backends_choose_alike_and_end_at_the_same_score() -> None:
    x = bent(120)
    found = {name: fit(x, backend=name, epochs=10, device="cpu") for name in BACKENDS}
    choices = {name: [(c["name"], c.get("best_epoch")) for c in one.candidates] for name, one in found.items()}
    assert choices["autograd"] == choices["torch"] == choices["jax"]
    psi = {name: one.score(x) for name, one in found.items()}
    for name in ("torch", "jax"):
        np.testing.assert_allclose(psi[name], psi["autograd"], atol=1e-7)


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    x = bent(100)
    first, second, other = (fit(x, epochs=8, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(value, second.params[name]) for name, value in first.params.items())
    assert not np.array_equal(first.score(x), other.score(x))


# ---- options with several members


@pytest.mark.parametrize(("stop_in", "epoch", "folds"), [(0, 1, 5), (2, 1, 5), (2, 3, 5), (0, 3, 1)])
def test_a_run_that_stopped_goes_on_to_the_same_bits(stop_in: int, epoch: int, folds: int, tmp_path) -> None:
    x, seen = bent(300), []

    def stop(event: ismcore.FitEvent) -> object:
        if event.kind == "start":
            seen.append(event.run)
        return ismcore.STOP if len(seen) > stop_in and event.epoch >= epoch else None

    options = {"epochs": 8, "batch_size": 64, "ensemble": folds}
    whole = fit(x, **options)
    first = fit(x, **options, callbacks=[stop], checkpoint=tmp_path / "run")
    assert first.status == "interrupted"
    with pytest.raises(ModelError, match="resume"):
        ismcore.load(tmp_path / "run")
    again = ismcore.resume(tmp_path / "run", x)
    assert again.status == whole.status
    assert list(again.params) == list(whole.params)
    assert all(np.array_equal(value, again.params[name]) for name, value in whole.params.items())
    assert [c["weight"] for c in again.candidates] == [c["weight"] for c in whole.candidates]
    assert ismcore.resume(tmp_path / "run", x, timeout=1e-9).status == whole.status  # it has ended
    last = ismcore.resume(tmp_path / "run", x)
    assert all(np.array_equal(value, last.params[name]) for name, value in whole.params.items())


def test_a_run_that_stopped_while_the_normal_law_was_the_best_goes_on(tmp_path) -> None:
    x = np.random.default_rng(5).normal(size=(150, 8))
    options = {"epochs": 9, "backend": "autograd", "progress": False}
    whole = ismcore.fit(x, **options)
    first = ismcore.fit(x, **options, checkpoint=tmp_path / "run", callbacks=[lambda e: ismcore.STOP if e.epoch >= 2 else None])
    assert first.candidates[1]["best_epoch"] == 0
    again = ismcore.resume(tmp_path / "run", x, progress=False)
    assert all(np.array_equal(value, again.params[name]) for name, value in whole.params.items())


def test_more_epochs_are_given_to_every_candidate(tmp_path) -> None:
    x = bent(100)
    fit(x, epochs=4, checkpoint=tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ismcore.IsmWarning)
        found = ismcore.resume(tmp_path / "run", x, epochs=6)
    assert [c["epochs"] for c in found.candidates[1:]] == [6, 6, 6]


def test_time_runs_out_in_a_candidate_and_no_other_is_begun(tmp_path) -> None:
    found = fit(bent(100), epochs=100_000, timeout=0.3, checkpoint=tmp_path / "run")
    assert found.status == "timed_out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ismcore.IsmWarning)
        assert ismcore.resume(tmp_path / "run", bent(100), timeout=1e-9).status == "timed_out"
    assert len(found.candidates) == 2
    assert np.isfinite(found.score(bent(10))).all()


def test_snapshots_are_of_the_whole_fit(bent_fit: ismcore.FitResult) -> None:
    x = bent(150)
    found = fit(x, epochs=40, snapshots=[0, 40])
    assert set(found.snapshots) == {0, 40}
    weights = found.candidates
    assert weights[0]["weight"] < 1.0
    assert found.score(x, epoch=0).shape == x.shape
    assert not np.allclose(found.score(x, epoch=0), found.score(x, epoch=40))


def test_a_callback_that_raises_has_the_fit_so_far() -> None:
    def fail(event: ismcore.FitEvent) -> None:
        if event.epoch >= 5:
            raise RuntimeError("enough")

    with pytest.raises(CallbackFailed) as caught:
        fit(bent(100), callbacks=[fail])
    assert np.isfinite(caught.value.result.score(bent(5))).all()


def test_rows_of_a_group_are_held_out_together_and_folds_without_rows_are_left_away() -> None:
    x = bent(90)
    found = fit(x, groups=np.arange(90) % 3, epochs=6)
    members = {name.split(".")[1] for name in found.params if name.startswith("members.")} if len(found.params) > 2 else set()
    assert len(members) in (0, 4, 7, 10)  # the normal law, and three folds a candidate
    assert found.held_out == 90


def test_validation_samples_judge_members_that_are_trained_on_all_rows() -> None:
    x = bent(150)
    found = fit(x, validation=bent(80, seed=5), epochs=40)
    assert found.held_out == 80
    share = fit(x, validation=0.4, epochs=40)
    assert share.held_out == 60


def test_a_model_that_is_named_is_what_is_learned_beside_the_normal_law() -> None:
    found = fit(bent(150), model=MLP((16, 16)), ensemble=3, epochs=60)
    assert [c["name"] for c in found.candidates] == ["normal law", "model"]
    assert isinstance(found.model, ismcore.models.Standardized)
    assert found.model.inner == Combination((Affine(), *3 * (MLP((16, 16)),)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ensemble": 0}, "number of folds"),
        ({"ensemble": True}, "number of folds"),
        ({"ensemble": 5, "validation": 0.2}, "validation"),
        ({"ensemble": 1, "validation": 0}, "holds none out"),
        ({"ensemble": 5, "restarts": 2}, "restarts"),
        ({"ensemble": 5, "optimizer": ismcore.LBFGS()}, "LBFGS"),
        ({"ensemble": 5, "objective": DenoisingScoreMatching(0.3)}, "aims at something else"),
        ({"ensemble": 5, "model": MLP(), "initial_params": MLP().initial_params(0, 2)}, "normal law"),
    ],
)
def test_what_cannot_mean_something_is_refused_in_words(options: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        fit(bent(60), **options)


def test_a_candidate_that_diverges_costs_only_itself_and_all_of_them_the_fit() -> None:
    x = bent(100)
    with pytest.raises(Diverged) as caught:
        fit(x, optimizer=ismcore.SGD(1e8), dtype="float32")
    assert np.isfinite(caught.value.result.score(x)).all()
    found = fit(x, optimizer=ismcore.SGD(1e8), dtype="float32", on_nonfinite="stop")
    assert found.status == "diverged"
    assert found.model == Affine()
    assert any("diverged" in text for text in found.warnings)


def test_weights_of_rows_are_those_of_repeated_rows() -> None:
    rng = np.random.default_rng(10)
    x, counts = rng.normal(size=(60, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]]), rng.integers(1, 4, 60)
    found = fit(x, sample_weight=counts, epochs=4)
    repeated = np.repeat(x, counts, axis=0)
    expected = -(x - repeated.mean(axis=0)) @ np.linalg.inv(np.cov(repeated.T, bias=True))
    assert found.model == Affine()
    np.testing.assert_allclose(found.score(x), expected, atol=1e-10)


# ---- denoising by closed formulas


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("reduced", [True, False])
@pytest.mark.parametrize("model", [MLP((5,)), Energy(MLP((5,))), MLP((5, 4))])
@pytest.mark.parametrize("weighted", [True, False])
def test_denoising_by_closed_formulas_is_what_differentiation_finds(
    name: str, reduced: bool, model: ismcore.models.Model, weighted: bool
) -> None:
    rng, d = np.random.default_rng(11), 3
    x, base = rng.normal(size=(7, d)), base_inputs(rng, d)
    loss = Loss(model, DenoisingScoreMatching(0.3, variance_reduced=reduced))
    weight = rng.uniform(size=7) if weighted else None
    inputs = {**loss.inputs(x, Coordinates.identity(d), weight), **base, "noise": rng.normal(size=(7, d))}
    params = model.initial_params(0, d)
    engine: Backend = load_backend(name)(dtype="float64", device="cpu")
    with engine.scope():
        arguments = engine.asarrays(params), engine.asarray(x), engine.asarrays(inputs)
        value, gradient = engine.loss_and_gradient(loss)(*arguments)
        expected, slopes = engine.value_and_grad(partial(loss.value, engine))(*arguments)
        assert abs(float(engine.to_numpy(value)) - float(engine.to_numpy(expected))) < 1e-13 * (1.0 + abs(float(expected)))
        for key, slope in slopes.items():
            np.testing.assert_allclose(engine.to_numpy(gradient[key]), engine.to_numpy(slope), rtol=0, atol=1e-12)


# ---- what is fitted in folds


@pytest.mark.parametrize(
    "options",
    [
        {"recipe": "single"},
        {"recipe": "reference"},
        {"model": Affine()},
        {"validation": 0},
        {"restarts": 2},
        {"optimizer": ismcore.LBFGS()},
        {"objective": DenoisingScoreMatching(0.3)},
        {"initial_params": MLP().initial_params(0, 2)},
    ],
)
def test_one_network_where_folds_are_not_asked_for_or_mean_nothing(options: dict) -> None:
    found = fit(bent(60), epochs=2, **{key: value for key, value in options.items() if key != "epochs"})
    assert found.candidates == ()
    assert found.notes == ()


def test_many_rows_have_one_member_and_few_a_fit_in_folds() -> None:
    x = np.random.default_rng(12).normal(size=(10_001, 1)) ** 3
    found = fit(x, epochs=2, batch_size=1000)
    assert [c["name"] for c in found.candidates] == ["normal law", "network"]
    assert found.held_out == 2001
    if isinstance(found.model, ismcore.models.Standardized):
        assert found.model.inner == Combination((Affine(), MLP(output_bias=False)))
    assert fit(bent(20), epochs=2).held_out == 20


@pytest.mark.parametrize("options", [{}, {"sample_weight": np.arange(200) % 4 + 1.0}, {"validation": bent(80, seed=5)}])
def test_a_single_member_has_its_own_rows_alone_and_comes_to_the_same(options: dict, monkeypatch) -> None:
    x, seen = bent(200), []
    monkeypatch.setattr(ensemble, "pooled_loss", lambda engine, members: seen.extend(members) or pooled_loss(engine, members))
    found = fit(x, ensemble=1, **options)
    (member,) = seen
    samples = "validation" in options
    assert (member.problem.n, member.held_out.n) == ((200, 80) if samples else (160, 40))
    assert (member.problem.row_weight is not None) == ("sample_weight" in options)
    monkeypatch.setattr(Folds, "_on_its_rows", lambda self, member: member)  # all rows, some of weight 0
    other = fit(x, ensemble=1, **options)
    assert found.candidates[1]["weight"] > 0.0
    np.testing.assert_allclose(found.score(x), other.score(x), rtol=0, atol=1e-8)


def test_the_fit_stops_when_no_candidate_gains() -> None:
    found = fit(np.random.default_rng(13).normal(size=(300, 3)), epochs=None, dtype="float32")
    assert found.status == "early_stopped"
    assert all(candidate["epochs"] < 60 for candidate in found.candidates[1:])


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_in_one_dimension_two_networks_are_summed_and_none_is_left_behind() -> None:
    x = np.random.default_rng(0).normal(np.repeat([-3.0, 3.0], 100), 1.0)
    found = ismcore.fit(x, backend="autograd", epochs=40, patience=39, progress=False)
    assert [c["name"] for c in found.candidates] == ["normal law", "network", "sigmoid network"]
    assert [c["epochs"] for c in found.candidates[1:]] == [40, 40]
    assert sum(c["weight"] for c in found.candidates) > 0.5


def test_without_patience_every_candidate_runs_to_its_end() -> None:
    found = fit(np.random.default_rng(0).normal(size=(150, 2)), epochs=40, patience=0)
    assert [c["epochs"] for c in found.candidates[1:]] == [40, 40, 40]
    assert found.status == "completed"


def test_a_chain_is_dealt_into_blocks_which_count_once() -> None:
    rng = np.random.default_rng(14)
    chain = np.zeros((600, 1))
    for k in range(1, 600):
        chain[k] = 0.95 * chain[k - 1] + rng.normal()
    found = fit(chain, epochs=2)
    assert found.held_out == 600
    assert any("short blocks" in text for text in found.warnings)
    labels = dependent_rows(chain, HoldOut("blocks", time=20))
    assert np.array_equal(labels, np.arange(600) // 20)
    assert dependent_rows(chain, HoldOut()) is None
    assert np.array_equal(dependent_rows(chain, HoldOut("groups"), np.arange(600) % 7), np.arange(600) % 7)

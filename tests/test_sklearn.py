"""The estimators of scikit-learn: its own contract suite, and what `score` compares."""

import pickle
import subprocess
import sys

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data, parametrize_with_checks

import ismcore
from ismcore.sklearn import ScoreEstimator, ScoreOutlierDetector

pytestmark = pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")

QUICK = {"epochs": 3, "recipe": "single", "backend": "autograd"}
NET = ScoreEstimator(ismcore.MLP((8,)), **QUICK)
ENERGY = ScoreEstimator(ismcore.Energy(ismcore.MLP((8,))), **QUICK)
BY_ROWS = "rows are held out whole, and repeated rows are noticed: a weight of 2 is two equal rows in expectation alone"


def expected_failures(estimator):
    takes_weights = isinstance(estimator, ScoreEstimator)
    return {"check_sample_weight_equivalence_on_dense_data": BY_ROWS} if takes_weights else {}


@pytest.mark.slow
@parametrize_with_checks([NET, ScoreOutlierDetector(ENERGY)], expected_failed_checks=expected_failures)
def test_scikit_learns_contract(estimator, check):
    check(estimator)


def test_without_held_out_rows_a_weight_of_two_is_a_row_given_twice():
    options = {"validation": 0, "batch_size": "all", "standardize": True}
    estimator = ScoreEstimator(ismcore.MLP((8,)), curvature_weight=0.1, dtype="float64", fit_options=options, **QUICK)
    check_sample_weight_equivalence_on_dense_data("ScoreEstimator", estimator)


def two_columns(n=120):
    return np.random.default_rng(3).normal(size=(n, 2)) * [1.0, 40.0] + [5.0, -200.0]


def test_score_is_minus_plain_j_in_the_units_of_the_samples():
    x = two_columns()
    fitted = [ScoreEstimator(ismcore.Affine(), **QUICK | {"epochs": 300}, curvature_weight=w).fit(x) for w in (0.0, 5.0)]
    for estimator in fitted:
        weight, bias = (estimator.result_.params[name] for name in ("weight", "bias"))
        psi = x @ weight.T + bias
        assert estimator.score(x) == pytest.approx(-(0.5 * (psi**2).sum(axis=1).mean() + np.trace(weight)), rel=1e-6)
    best, penalised = fitted
    assert best.score(x) > penalised.score(x)


def test_grid_search_over_curvature_weights_in_a_pipeline():
    x = np.random.default_rng(0).normal(size=(90, 2)) * [1.0, 1000.0]
    pipeline = make_pipeline(StandardScaler(), clone(NET).set_params(epochs=40))
    weights = [0.0, 0.05, 50.0]
    search = GridSearchCV(pipeline, {"scoreestimator__curvature_weight": weights}, cv=2, error_score="raise").fit(x)
    assert search.best_params_["scoreestimator__curvature_weight"] < 50.0  # which leaves no curvature, and so no score
    assert search.transform(x).shape == (90, 2)
    assert search.best_estimator_[-1].result_.objective.curvature_weight in weights


def test_pickled_with_the_same_scores():
    fitted = clone(NET).fit(two_columns())
    other = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - our own bytes
    assert np.array_equal(other.transform(two_columns()), fitted.transform(two_columns()))


def test_log_density_of_an_energy_integrates_to_one():
    x = np.random.default_rng(1).normal(size=(300, 2)) * [1.0, 2.0] + [3.0, 0.0]
    fitted = clone(ENERGY).set_params(epochs=200).fit(x)
    one, two = np.meshgrid(np.linspace(-4, 10, 120), np.linspace(-14, 14, 120), indexing="ij")
    p = np.exp(fitted.score_samples(np.column_stack([one.ravel(), two.ravel()])))
    assert p.sum() * (14 / 119) * (28 / 119) == pytest.approx(1.0, abs=0.02)


def test_the_log_density_of_modes_far_apart_is_that_of_the_result():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 2)) + 12.0 * (rng.random((600, 1)) < 0.3)
    fitted = clone(ENERGY).set_params(epochs=100).fit(x)
    assert len(fitted.result_.modes) == 2
    np.testing.assert_allclose(fitted.score_samples(x[:20]), fitted.result_.log_density(x[:20]), atol=1e-12)


def test_a_free_network_has_a_log_density_in_one_dimension_alone():
    x = np.random.default_rng(2).normal(size=(100, 1))
    estimator = clone(NET).set_params(model=ismcore.Affine(), epochs=100)
    assert not hasattr(estimator, "score_samples")
    assert estimator.fit(x).score_samples(x).shape == (100,)
    assert not hasattr(clone(NET).fit(two_columns()), "score_samples")


def test_curvature_weight_beside_an_objective_is_refused():
    estimator = clone(NET).set_params(curvature_weight=0.1, objective=ismcore.SlicedScoreMatching())
    with pytest.raises(ismcore.OptionError, match="curvature_weight, or an objective"):
        estimator.fit(two_columns())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ScoreEstimator(fit_options={"seed": 1, "epochs": 2}, **QUICK), "fit_options cannot hold epochs, seed: the"),
        (lambda: ScoreOutlierDetector(contamination="auto"), r"contamination must be in \(0, 0.5\], not 'auto'"),
        (lambda: ScoreOutlierDetector(StandardScaler()), r"estimator must be a ScoreEstimator, not StandardScaler\(\)"),
    ],
)
def test_what_other_estimators_take_and_these_do_not_is_named(make, said):
    with pytest.raises(ismcore.OptionError, match=said):
        make().fit(np.random.default_rng(0).normal(size=(60, 2)))


def test_outliers_where_the_norm_of_the_score_is_small():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(-4.0, 1.0, size=(200, 1)), rng.normal(4.0, 1.0, size=(200, 1))])
    estimator = ScoreEstimator(ismcore.Energy(ismcore.MLP((32,))), recipe="single", backend="autograd", epochs=300)
    detector = ScoreOutlierDetector(estimator, contamination=0.05).fit(x)
    saddle, mode, far = detector.score_samples([[0.0], [4.0], [12.0]])
    assert max(saddle, far) < mode
    norms = np.abs(detector.estimator_.transform([[0.0], [5.0]]))
    assert norms[0] < norms[1]  # yet 5 is among the samples, and 0 between them
    assert detector.predict([[0.0], [5.0]]).tolist() == [-1, 1]


def test_names_of_columns_are_kept_and_checked():
    frame = pandas.DataFrame(two_columns(), columns=["height", "age"])
    fitted = clone(NET).fit(frame)
    assert fitted.result_.feature_names == ("height", "age")
    assert fitted.set_output(transform="pandas").transform(frame).columns.tolist() == ["score_height", "score_age"]
    with pytest.raises(ValueError, match="same order"):
        fitted.score(frame[["age", "height"]])


def test_equal_numbers_give_equal_draws():
    fitted = clone(ENERGY).fit(two_columns())
    assert np.array_equal(fitted.sample(4, random_state=1), fitted.sample(4, random_state=1))
    assert fitted.sample(4, random_state=1).shape == (4, 2)


def test_without_scikit_learn_the_message_says_how_to_install_it():
    code = "import sys; sys.modules['sklearn'] = None\nimport ismcore.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("pip install 'ismcore[sklearn]'")
    assert done.stderr.splitlines()[-1].startswith("ismcore.errors.BackendMissing: ")

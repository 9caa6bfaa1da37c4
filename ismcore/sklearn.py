"""Estimators by scikit-learn's conventions; needs `pip install 'ismcore[sklearn]'`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ismcore.errors import BackendMissing, DensityUnavailable, OptionError
from ismcore.fitting.fit import fit
from ismcore.models import MLP, Energy, Model
from ismcore.objectives import ImplicitScoreMatching, Objective
from ismcore.optimizers.rules import Optimizer
from ismcore.results.density import with_constant
from ismcore.results.evaluate import evaluate
from ismcore.results.normaliser import Normaliser
from ismcore.results.result import FitResult

try:
    from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin, clone
    from sklearn.utils import check_random_state
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data
except ImportError as error:
    raise BackendMissing(
        f"ismcore.sklearn needs scikit-learn 1.6, which cannot be imported ({error}): pip install 'ismcore[sklearn]'"
    ) from error

if TYPE_CHECKING:
    from numpy.random import RandomState

    from ismcore.fitting.recipes import RecipeName

__all__ = ["ScoreEstimator", "ScoreOutlierDetector"]


def _has_log_density(estimator: ScoreEstimator) -> bool:
    """Whether the fitted score is the slope of a log-density; before the fit, whether the model says so."""
    result: FitResult | None = getattr(estimator, "result_", None)
    if result is None:
        return isinstance(estimator.model, Energy)
    if result.d == 1:
        return True
    try:
        result.energy(result.coordinates.inverse(np.zeros((1, result.d))))
    except DensityUnavailable:
        return False
    return True


class ScoreEstimator(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The score of a law, psi(x) = grad log p(x), from samples, as an estimator of scikit-learn; see `ismcore.fit`.

    Beware of the word: `score` is what scikit-learn calls so, a number that says how good the fit is, for `GridSearchCV` and
    `cross_val_score`. The score function itself is `transform`; all else is asked of `result_`.

    Args:
        model: As for `ismcore.fit`; an `ismcore.Energy` has a log-density too.
        curvature_weight: lambda of regularised implicit score matching, on the samples as trained on; None for what the recipe
            does. Not beside an `objective`.
        objective: As for `ismcore.fit`.
        optimizer: As for `ismcore.fit`.
        epochs: As for `ismcore.fit`.
        recipe: As for `ismcore.fit`; "single" trains one network, in a third to a tenth of the time.
        backend: As for `ismcore.fit`.
        dtype: As for `ismcore.fit`.
        random_state: Source of all randomness: a number, None for another fit each time, or a `numpy.random.RandomState`.
        fit_options: Further arguments of `ismcore.fit`, by name, such as {"validation": 0.2}.

    Attributes:
        result_: The `ismcore.FitResult`.
        n_features_in_: Number of columns d.
        feature_names_in_: Their names, where X was a table that has them.

    Example:
        >>> from ismcore.sklearn import ScoreEstimator
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> ScoreEstimator(ismcore.Affine(), backend="autograd", epochs=50).fit(X).transform(X[:3]).shape
        (3, 2)
    """

    def __init__(
        self,
        model: Any = None,
        *,
        curvature_weight: float | None = None,
        objective: Objective | None = None,
        optimizer: Optimizer | None = None,
        epochs: int | None = None,
        recipe: RecipeName = "default",
        backend: str = "auto",
        dtype: object = "float32",
        random_state: int | RandomState | None = 0,
        fit_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.curvature_weight = curvature_weight
        self.objective = objective
        self.optimizer = optimizer
        self.epochs = epochs
        self.recipe = recipe
        self.backend = backend
        self.dtype = dtype
        self.random_state = random_state
        self.fit_options = fit_options

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> Self:
        """Fit the score function.

        Args:
            X: Samples, (n, d).
            y: Ignored.
            sample_weight: Weight of each row, (n,), from 0. A row of weight 2 is one row: it is held out or trained on as a
                whole, and no repeated value; so the fit is that of two equal rows in expectation, and to rounding where no rows
                are held out and `curvature_weight` and `standardize` are given.

        Raises:
            OptionError: `curvature_weight` beside an `objective`, or an argument given twice; or see `ismcore.fit`.
            SamplesError, ValueError: X cannot be used.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        given: dict[str, Any] = {
            "x": X,
            "model": self.model,
            "objective": self._objective(),
            "optimizer": self.optimizer,
            "epochs": self.epochs,
            "recipe": self.recipe,
            "backend": self.backend,
            "dtype": self.dtype,
            "seed": _seed(self.random_state),
            "sample_weight": sample_weight,
        }
        more = self.fit_options or {}
        if own := sorted(given.keys() & more.keys()):
            raise OptionError(f"fit_options cannot hold {', '.join(own)}: the estimator, or its fit, has arguments for them")
        self.result_ = fit(**given, **more)
        if hasattr(self, "feature_names_in_"):
            self.result_ = replace(self.result_, feature_names=tuple(self.feature_names_in_.tolist()))
        self._log_normaliser: Normaliser | None = None
        return self

    def _objective(self) -> Objective | None:
        if self.curvature_weight is None:
            return self.objective
        if self.objective is not None:
            raise OptionError(f"give curvature_weight, or an objective that has its own, not {self.objective!r} beside it")
        return ImplicitScoreMatching(self.curvature_weight)

    def _validated(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "result_")
        return np.asarray(validate_data(self, X, dtype=[np.float64, np.float32], reset=False))

    def score(self, X: Any, y: object = None, sample_weight: Any = None) -> float:
        """How good the fit is, greater is better: minus J = mean_n 1/2 |psi(x_n)|^2 + div psi(x_n), in 1/[x]^2.

        It is plain J of the samples in their own units, without the curvature penalty, so that fits of any curvature weight,
        objective and standardising compare; on rows that were not fitted. E J is E|psi - grad log p|^2 / 2 up to a constant
        of the law. The column of the smallest unit weighs most: a `StandardScaler` before, in a Pipeline, makes all alike.

        Args:
            X: Samples, (n, d).
            y: Ignored.
            sample_weight: Weight of each row, (n,), from 0.

        Source: Hyvarinen (2005), JMLR 6:695-709, theorem 1.
        """
        x, result = self._validated(X), self.result_
        options: dict[str, Any] = {"backend": result.backend, "device": result.device, "allow_nonsmooth": True}
        return -evaluate(result.model, result.params, x, sample_weight=sample_weight, **options).loss

    def transform(self, X: Any) -> np.ndarray:
        """The fitted score function psi at rows of X, (n, d), float64, in 1/[x]."""
        x = self._validated(X)
        return self.result_.score(x)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`: "score_" and the column's name, or x0, x1, ..."""
        check_is_fitted(self, "result_")
        names = _check_feature_names_in(self, input_features)
        return np.asarray([f"score_{name}" for name in names], dtype=object)

    @available_if(_has_log_density)  # type: ignore[untyped-decorator]
    def score_samples(self, X: Any) -> np.ndarray:
        """The log-density log p(x) at rows of X, (n,), normalised by the fit, as `sklearn.neighbors.KernelDensity` has it.

        It is there where the fitted score has one: in one dimension, and of an `ismcore.Energy`. A free network in more is in
        general the gradient of nothing, and has no such method. Modes far apart have the shares that the samples have, see
        `FitResult.log_density`.

        Raises:
            DensityUnavailable: Nothing normalises the fitted law; see `FitResult.log_normaliser`.

        Cost: that of the normaliser once a fit, and an energy a row.
        """
        x = self._validated(X)
        if self.result_.d == 1:
            return self.result_.log_density(x)
        if self._log_normaliser is None:
            self._log_normaliser = self.result_.log_normaliser()
        return with_constant(self.result_, x, self._log_normaliser)

    def sample(self, n_samples: int = 1, random_state: int | RandomState | None = None) -> np.ndarray:
        """Draws of the fitted law, (n_samples, d), float64; `result_.sample` has options and tells how well chains mixed."""
        check_is_fitted(self, "result_")
        seed = _seed(self.random_state if random_state is None else random_state)
        return np.asarray(self.result_.sample(n_samples, seed=seed))


class ScoreOutlierDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Outliers by the fitted energy U(x), with psi = -grad U: rows where the density exp(-U) is least.

    The norm of the score alone does not tell them: |psi| is 0 at a mode, and also at each saddle and minimum of the density,
    where few samples are, and far out a score that has levelled off is no larger than near the data. The energy, which is the
    score's integral along a path from the data, does. Its constant cancels in `decision_function`, so nothing is normalised.
    Between parts of the law far apart, where no samples were, the energy is what the network made of it.

    Args:
        estimator: A `ScoreEstimator` whose score has an energy: of an `ismcore.Energy`, or in one dimension. That of
            `Energy(MLP())` if None.
        contamination: Share of the rows fitted that are called outliers, in (0, 0.5].

    Attributes:
        estimator_: The fitted one.
        offset_: The energy, negated, below which a row is an outlier.
        n_features_in_: Number of columns d.
        feature_names_in_: Their names, where X was a table that has them.

    Example:
        >>> from ismcore.sklearn import ScoreEstimator, ScoreOutlierDetector
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> energy = ScoreEstimator(ismcore.Energy(ismcore.MLP((16,))), backend="autograd", epochs=50)
        >>> ScoreOutlierDetector(energy, contamination=0.05).fit(X).predict([[0.0, 0.0], [9.0, 9.0]])
        array([ 1, -1])
    """

    def __init__(self, estimator: ScoreEstimator | None = None, *, contamination: float = 0.1) -> None:
        self.estimator = estimator
        self.contamination = contamination

    def fit(self, X: Any, y: object = None) -> Self:
        """Fit the energy to samples X, (n, d), and put the offset at the share `contamination` of theirs.

        Raises:
            OptionError: `contamination` is not in (0, 0.5], or the estimator no `ScoreEstimator`.
            DensityUnavailable: The estimator's score has no energy.
        """
        share: object = self.contamination  # scikit-learn leaves what is given as it is
        if not isinstance(share, int | float | np.floating) or not 0.0 < share <= 0.5:
            raise OptionError(f"contamination must be in (0, 0.5], not {self.contamination!r}")
        x = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        model: Model = Energy(MLP())
        given: object = self.estimator
        if not (given is None or isinstance(given, ScoreEstimator)):
            raise OptionError(f"estimator must be a ScoreEstimator, not {given!r:.80}")
        self.estimator_ = clone(ScoreEstimator(model) if self.estimator is None else self.estimator).fit(x)
        self.offset_ = float(np.quantile(-self.estimator_.result_.energy(x), self.contamination))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """-U(x), the log-density up to a constant, (n,): low where a row is an outlier."""
        check_is_fitted(self, "estimator_")
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(-self.estimator_.result_.energy(x))

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` less `offset_`, (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for outliers, 1 for others, (n,)."""
        return np.where(self.decision_function(X) < 0.0, -1, 1)


def _seed(random_state: int | RandomState | None) -> int:
    """A seed of `ismcore.fit`."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))

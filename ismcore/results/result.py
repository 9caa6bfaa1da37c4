"""What `fit` returns: parameters, how they came about, and what can be asked of the fitted score."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ismcore.backend.contract import Backend, Dtype
from ismcore.backend.programs import energy_on, jacobian_diagonal, jacobian_on, score_on
from ismcore.calculus import NumpyCalculus
from ismcore.coordinates import Coordinates
from ismcore.domains import Domain
from ismcore.errors import DensityUnavailable, IsmWarning, OptionError
from ismcore.files import results as files
from ismcore.models import Affine, Energy, Model, Standardized
from ismcore.objectives import NoiseConditionalScoreMatching, Objective
from ismcore.ops import Params
from ismcore.plugins.lookup import load_backend
from ismcore.plugins.registry import installed_version
from ismcore.results.density import log_density, log_normaliser
from ismcore.results.evaluate import context_for, evaluate
from ismcore.results.langevin import Draws, langevin
from ismcore.results.native import native
from ismcore.results.normaliser import Normaliser
from ismcore.results.shown import Shown
from ismcore.samples.checks import as_samples
from ismcore.samples.gaps import NOT_COUNTED, Modes
from ismcore.samples.tables.frames import frame_like
from ismcore.training.baseline import Baseline
from ismcore.training.resample import Resample
from ismcore.training.run_state import RunState, Status
from ismcore.training.set_aside import SetAside
from ismcore.training.settings import Settings

if TYPE_CHECKING:
    from ismcore.judging.table import Check

__all__ = ["FitResult", "load", "versions"]


@dataclass(frozen=True, eq=False, repr=False)
class FitResult(Shown):
    """A fitted score function. `score` and all that follows from it are in the units [x] of the samples.

    Attributes:
        params: Fitted parameters by name, of `model`. A network's are those that were trained, in the result's dtype; where the
            samples were standardised, they are of standardised samples, and shift and scale stand beside them in the model.
            Those of an `Affine` are in the samples' units, in float64.
        model: The model that they belong to, which takes x in the samples' units: `evaluate(result.model, result.params, x)`,
            and `fit(x, initial_params=result)`. `Standardized` where the samples were standardised.
        history: One entry an epoch: "epoch", 1, 2, ...; "loss", before the updates and on the samples as trained on
            (standardised unless `standardize=False`), the mean over the epoch's batches; "learning_rate", of its first step;
            "validation_loss", after it, NaN where it was not computed, absent where none were held out.
        status: "completed", "early_stopped", "diverged", "interrupted" or "timed_out".
        objective: What was minimised.
        backend: The backend that did it.
        backend_reason: Why that one.
        device: Where.
        dtype: In which dtype.
        seed: The seed.
        coordinates: Those that the model was trained in: shift, scale and transform of the samples.
        snapshots: Parameters by the number of epochs that led to them, for those asked for.
        best_epoch: The epoch whose parameters came back: that with the lowest held-out loss, or the last one.
        held_out: Number of rows, of those given or beside them, that the validation loss was computed on.
        baseline: Held-out loss of the fit beside that of the normal law in closed form, see `ismcore.baseline.Baseline`; None
            where no rows were held out, of a conditional score, in what `load` makes of a checkpoint, and where
            `ismcore.baseline.compare_with_normal` says.
        restarts: What became of each start, where there were several: "start", "status", "epochs", "loss", "validation_loss".
        resamples: Fits of bootstrap resamples of the rows, if `ismcore.bootstrap` made the result; see `standard_error`.
        test: Rows that were set aside before the fit, where `fit(test=...)` asked for some; `check()` judges by them.
        kept: At most 1,000 rows of the fit, (k, d), in [x], drawn by their weight from the seed, or all of fewer; chains of
            `sample` start at them. Where rows have weights, 1,000 are drawn of any number, and a row of large weight stands
            more than once. None of `ismcore.Refit`, in files that were written without rows, or before rows were kept, and in
            what `load` makes of a checkpoint.
        modes: Modes of the samples that lie apart, as `ismcore.diagnose` finds them, and the share of the rows in each, which
            no score tells; see `log_density`. None where there is one. Of a source they are counted in the rows that are
            diagnosed, of which `kept` is a part too. Nobody has counted them in a result of `ismcore.Refit`, in files that
            were written before modes were counted, and in what `load` makes of such a checkpoint: it is None, and `notes`
            says so.
        candidates: What a fit in folds was made of, the normal law first: "name", "weight" in the sum, "status", "epochs",
            "best_epoch", "seconds", and "difference" of its out-of-fold loss from the normal law's with "standard_error".
        warnings: What makes the result unreliable, and the cure, in words.
        notes: What was chosen, and cures that arguments of the fit have applied, in words; nothing to worry about.
        timings: Seconds: "prepare", "run", "total".
        versions: Versions of Python, ismcore, NumPy and the framework.
        feature_names: Names of the columns, (d,), where the samples were a table that has them.
        run_id: 32 hexadecimal digits, drawn once a fit, not from the seed; those of its checkpoints, and of what `resume` makes
            of them.
    """

    params: Params
    model: Model
    history: dict[str, np.ndarray]
    status: Status
    objective: Objective
    backend: str
    backend_reason: str
    device: str
    dtype: Dtype
    seed: int
    coordinates: Coordinates
    snapshots: dict[int, Params] = field(default_factory=dict)
    best_epoch: int = 0
    held_out: int = 0
    baseline: Baseline | None = None
    restarts: tuple[dict[str, Any], ...] = ()
    resamples: tuple[Resample, ...] = ()
    test: SetAside | None = None
    kept: np.ndarray | None = None
    modes: Modes | None = None
    candidates: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    feature_names: tuple[str, ...] | None = None
    run_id: str = ""

    @classmethod
    def of(
        cls,
        settings: Settings,
        coordinates: Coordinates,
        run_state: RunState,
        held_out: int,
        *,
        timings: Mapping[str, float],
        versions: Mapping[str, str],
    ) -> FitResult:
        """What a run with these settings has come to, in the samples' units."""
        trained = settings.model.canonical()

        def in_units(params: Params) -> tuple[Model, Params]:
            return (trained, dict(params)) if coordinates.is_identity else trained.in_units(params, coordinates)

        model, params = in_units(run_state.params)
        return cls(
            model=model,
            params=params,
            history=_history(run_state),
            status=run_state.status or "interrupted",
            objective=settings.objective,
            backend=settings.backend,
            backend_reason=settings.backend_reason,
            device=settings.device,
            dtype=settings.dtype,
            seed=settings.seed,
            coordinates=coordinates,
            snapshots={epoch: in_units(kept)[1] for epoch, kept in run_state.snapshots.items()},
            best_epoch=_last_epoch(run_state) if run_state.best is None else run_state.best.epoch,
            held_out=held_out,
            warnings=settings.warnings + run_state.warnings,
            notes=settings.notes,
            timings={**run_state.timings, **timings},
            versions=dict(versions),
            feature_names=settings.feature_names,
            run_id=settings.run_id,
        )

    @property
    def d(self) -> int:
        """Dimension of the samples."""
        return self.coordinates.d

    @property
    def domain(self) -> Domain | None:
        """Where the samples end at edges, in [x], as `fit(domain=...)` has it; None for nowhere."""
        return self.objective.domain

    @property
    def _domain_there(self) -> Domain | None:
        """The domain in the coordinates that the model was trained in."""
        return None if self.domain is None else self.domain.in_coordinates(self.coordinates)

    @property
    def _is_of_one_mode(self) -> bool:
        """Of a linear score, which is of a normal law; and of a noise-conditional one, at whose large scales modes meet."""
        inner = self.model.inner if isinstance(self.model, Standardized) else self.model
        return isinstance(inner, Affine) or isinstance(self.objective, NoiseConditionalScoreMatching)

    @property
    def _modes_are_known(self) -> bool:
        """Whether `modes` is as the samples have them; where it is not, `notes` says so."""
        return self._is_of_one_mode or NOT_COUNTED not in self.notes

    def _with_modes(self, modes: Modes | None, *, counted: bool = True) -> FitResult:
        """The result with these modes in the place of its own, and a note of them, or that nobody has counted them."""
        if self._is_of_one_mode:
            modes, counted = None, True
        old = (NOT_COUNTED, "" if self.modes is None else self.modes.in_words)
        note = NOT_COUNTED if not counted else "" if modes is None else modes.in_words
        notes = tuple(text for text in self.notes if text not in old)
        return replace(self, modes=modes, notes=(*notes, note) if note else notes)

    @property
    def score_names(self) -> tuple[str, ...]:
        """What the columns of the score are called where they have names, (d,): "score_" and the column's name or number."""
        return tuple(f"score_{name}" for name in self.feature_names or range(self.d))

    @overload
    def score(self, x: Any, *, epoch: int | None = None, context: Any = None) -> np.ndarray: ...
    @overload
    def score(self, x: Any, *, epoch: int | None = None, context: Any = None, as_frame: bool) -> Any: ...
    def score(self, x: Any, *, epoch: int | None = None, context: Any = None, as_frame: bool = False) -> Any:
        """Fitted score psi(x) at points x of shape (n, d) or (n,): (n, d), float64, in 1/[x].

        Shift and scale are applied in float64, the model runs in the result's dtype.

        Args:
            x: Where.
            epoch: Use the snapshot kept after this many epochs, not the final parameters.
            context: What a conditional score depends on: one number for all points, one for each, (n,), or (n, c); the noise
                scale of an `ismcore.NoiseConditional`, in the units of its objective's `noise_scales`.
            as_frame: Give a frame of the library that x is a frame of, with the columns `score_names` and the index of x.

        Raises:
            SamplesError: x is a frame with other columns than the samples had; in another order they are put right.
            OptionError: `as_frame`, and x is no frame; no snapshot was kept then; the context has another shape, is not
                finite, or is a noise scale that is not positive.
        """
        points = as_samples(x, d=self.d, names=self.feature_names)
        found = self.coordinates.score(points, self._score_at(self._standardised(points), epoch, context))
        return frame_like(x, found, self.score_names) if as_frame else found

    def jacobian_diagonal(self, x: Any, *, context: Any = None) -> np.ndarray:
        """D psi_i / d x_i of the fitted score at points x, (n, d), float64, in 1/[x_i]^2, by the backend's differentiation.

        Of a conditional score at the context, see `score`. Cost: about 3 d scores.
        """
        points, coordinates = as_samples(x, d=self.d, names=self.feature_names), self.coordinates.before_matrix
        model, params = self._as_trained()
        y = as_samples(coordinates(points), dtype=self.dtype)
        if self.coordinates.matrix is not None:
            model = Standardized(model, self.coordinates.matrix_alone)
        given = self._context(context, len(y))
        diagonal = jacobian_diagonal(self._engine(), model, params, y, given)
        psi = np.zeros_like(y) if coordinates.transform is None else score_on(self._engine(), model, params, y, given)
        return coordinates.jacobian_diagonal(points, psi, diagonal.astype(np.float64))

    def jacobian(self, x: Any) -> np.ndarray:
        """D psi_i / d x_j of the fitted score at points x, (n, d, d), float64, [output, input], in 1/[x_i] 1/[x_j].

        It is symmetric where the score is a gradient, as that of an `Energy`. Computed in float64, by the backend's
        differentiation; cost: about 3 d scores.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(200, 3))
            >>> result = ismcore.fit(x, model=ismcore.Affine(), backend="autograd", epochs=2)
            >>> bool(np.allclose(result.jacobian(x[:1])[0], result.params["weight"]))
            True
        """
        engine = load_backend(self.backend)(dtype="float64", device=self.device)
        points = as_samples(x, d=self.d, names=self.feature_names)
        self.coordinates.check_range(points)
        return np.asarray(jacobian_on(engine, self.model, self.params, points), dtype=np.float64)

    def asymmetry(self, x: Any) -> float:
        """How much of the fitted score's Jacobian no gradient has: E|J - J^T|^2 / 2 E|J|^2 over points x, without a unit.

        0 for an `Energy` and in one dimension, as for every true score, and 2 where J = -J^T. Where it is large, `as_energy`
        loses much. Columns count in units of their standard deviations over x.

        Args:
            x: Where, (n, d), in [x]; a few hundred points will do.

        Cost: see `jacobian`.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(200, 2))
            >>> ismcore.fit(x, model=ismcore.Affine(), backend="autograd", epochs=2).asymmetry(x) < 1e-3
            True
        """
        from ismcore.judging.energy import asymmetry

        return asymmetry(self, x)

    def check(
        self, x: Any = None, *, train: Any = None, groups: Any = None, competitors: Mapping[str, FitResult] | None = None
    ) -> Check:
        """Is this fit wrong, by how much at least, and how is that known; a table.

        With rows x that the fit has not seen, and that no choice was made by, and with a competitor phi from other rows,

            2 (mean g - q sd(g) / sqrt m),    g = 1/2 |psi|^2 + div psi - 1/2 |phi|^2 - div phi,

        is a lower bound of the unknown Fisher divergence E|psi - score|^2, with 95 % confidence, whatever phi is. Competitors
        are the normal law in closed form and a Gaussian mixture by BIC; q is corrected for their number. A bound is as strong
        as its competitor: where all are as wrong as the fit, the verdict is "cannot tell". How often each verdict is right:
        docs/check.md.

        Args:
            x: Rows of the same law that the fit has not seen, (m, d) or (m,), in [x], in the order in which they came; all
                count alike. Without any, those that `fit(test=...)` has set aside, with their weights, and competitors fitted
                to the rows of the fit. Without these too, what the result knows of itself: its held-out rows have chosen its
                epoch, so they give no bound.
            train: The rows of the fit, (n, d), to fit the competitors to, so that all of x judges. Without them, x is parted in
                two: competitors are fitted to one half, and the other half judges.
            groups: Label of each row of x, (m,): rows of one label may depend on each other. Where x is a series, standard
                errors are by blocks of it.
            competitors: Further fits by name, to rows other than x.

        Raises:
            SamplesError: The rows cannot be used.
            OptionError: Most rows of x are among those of `train`, or of the fit as far as it keeps them (`kept`), or the other
                way round; a competitor has the name of one of the check's own; or the score depends on a noise scale.

        Source: Hyvarinen (2005), JMLR 6:695-709, theorem 1, for E g = (E|psi - score|^2 - E|phi - score|^2) / 2.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(1200, 1))
            >>> wrong = ismcore.fit(3.0 * x[:200], model=ismcore.Affine(), backend="autograd", epochs=300)
            >>> wrong.check(x[200:]).verdict
            'fault found'
        """
        from ismcore.judging.check import check

        return check(self, x, train=train, groups=groups, competitors=competitors)

    def standard_error(self, x: Any) -> np.ndarray:
        """Standard error of the fitted score at points x, (n, d), float64, in 1/[x], over the fits of bootstrap resamples.

            sqrt( 1 / (B - 1) sum_b (psi_b(x) - mean)^2 ),    psi_1 ... psi_B the fits of `result.resamples`.

        It is of the variance of the fit, from the sample and from the seed, and not of its bias: psi +- 2.26 standard errors
        (Student's t for 10 resamples) covers the score where the fit is not too stiff for it; docs/check.md says how
        often.

        Raises:
            OptionError: The fit has no resamples; make it by `ismcore.bootstrap(x, ...)`.

        Source: Efron (1979), Ann. Stat. 7:1-26.
        """
        if len(self.resamples) < 2:
            raise OptionError("standard errors are over bootstrap fits, and this result has none: ismcore.bootstrap(x, ...)")
        points = as_samples(x, d=self.d, names=self.feature_names)
        scores = [self._score_of(member, points) for member in self.resamples]
        return np.asarray(np.std(scores, axis=0, ddof=1))

    def _score_of(self, member: Resample, points: np.ndarray) -> np.ndarray:
        """The score of a bootstrap fit at points (n, d), in [x], in float64."""
        if member.model.portable:
            return np.asarray(member.model.score(*_in_numpy("float64", member.params, points)))
        engine = load_backend(self.backend)(dtype="float64", device=self.device)
        return np.asarray(score_on(engine, member.model, member.params, points), dtype=np.float64)

    def divergence(self, x: Any, *, context: Any = None) -> np.ndarray:
        """Divergence of the fitted score at points x, sum_i d psi_i / d x_i, (n,), in 1/[x]^2; see `jacobian_diagonal`."""
        return np.asarray(self.jacobian_diagonal(x, context=context).sum(axis=1))

    def loss(self, x: Any, *, context: Any = None) -> float:
        """The objective at samples x, on the samples as trained on: comparable with `history["loss"]`, in float64.

        Args:
            x: Samples, (n, d) or (n,), in [x].
            context: See `score`. A noise-conditional fit needs none, as its objective draws the noise scales; with one, the
                loss is that at this noise scale.
        """
        model, params = self._as_trained()
        z = self._standardised(x)
        options: dict[str, Any] = {"backend": self.backend, "device": self.device, "allow_nonsmooth": True}
        given = self._context(context, len(z))
        objective = self.objective.standardized(self.coordinates)
        return evaluate(model, params, z, objective, context=given, **options).loss

    def energy(self, x: Any, *, epoch: int | None = None) -> np.ndarray:
        """U(x) at points x, (n,), float64, without a unit: psi = -grad U, so that exp(-U) is the density up to a factor.

        Of an `Energy`, its value, whose constant is arbitrary. Of any other model in one dimension, -`log_density`. Outside of
        the domain, or of the range of a transform, it is infinite.

        Args:
            x: Where, (n, d) or (n,), in [x].
            epoch: See `score`.

        Raises:
            DensityUnavailable: A free score in d > 1 dimensions is in general the gradient of nothing; fit an `Energy`.
        """
        model, _ = self._as_trained(epoch)
        if isinstance(model, Energy):
            return self._inside(
                x,
                lambda points: self.coordinates.energy_of(
                    NumpyCalculus(), points, self._energy_at(self._standardised(points), epoch).astype(np.float64)
                ),
                np.inf,
            )
        if self.d != 1:
            raise DensityUnavailable(
                f"{model!r} in d = {self.d} dimensions is a free vector field, in general the gradient of nothing, so it has "
                "no energy and no density: fit ismcore.Energy(...) of such a network"
            )
        return -self.log_density(x, epoch=epoch)

    def log_density(self, x: Any, *, epoch: int | None = None) -> np.ndarray:
        """The log-density log p(x) at any points x, (n,): its slope is the fitted score.

        It is normalised by the fit, whatever the points are: in one dimension by quadrature of the score of any model, see
        `ismcore.targets.density.integrate_score`; in more, of an `Energy`, by `log_normaliser`.

        Where modes of the samples lie far apart, see `modes`, no score tells how much of the law is in each. Each then has the
        share w_r of the rows in it, that is of their weights,

            log p(x) = log w_r - U(x) - log Z_r,    Z_r = int_r exp(-U(x)) dx    over the region r that x lies in.

        Regions end in the middle of the gap between modes, where there are no samples; only there the log-density has a jump.

        Args:
            x: Where, (n, d), or (n,) and one number for d = 1, in [x].
            epoch: See `score`.

        Raises:
            DensityUnavailable: d > 1 and the model is no energy; or nothing normalises the fitted law, as it does not fall off
                far away; or see `log_normaliser`.
        """
        if self.d > 1:
            self.energy(self.coordinates.inverse(np.zeros((1, self.d))), epoch=epoch)  # or why there is no density
        points = x if np.ndim(x) or self.d > 1 else np.reshape(x, 1)
        return self._inside(points, lambda inside: log_density(self, inside, epoch), -np.inf)

    def log_normaliser(self, *, epoch: int | None = None, seed: int = 0) -> Normaliser:
        """Log Z = log int exp(-U(x)) dx of the fitted energy U(x) of `energy`, in log [x]^d: log p(x) = -U(x) - log Z.

        In one and two dimensions by quadrature; in more, and in a polytope, by importance sampling from a Gaussian mixture that
        is fitted to draws of the fitted law, see `sample`. Over the domain, where the samples end at edges. Where modes lie
        apart this is not the constant of `log_density`, which has one for each: see `Normaliser.parts`.

        Args:
            epoch: See `score`.
            seed: Of the draws.

        Returns:
            log Z with its standard error, the effective number of draws, and log Z_r of each of `modes`.

        Raises:
            DensityUnavailable: d > 1 and the model is no energy; the fitted law does not fall off, or is too narrow for the
                finest grid; or fewer than 1,000 of 20,000 draws are effective. Of several modes, each is to be known by itself:
                its density to 0.01 of its peak in one dimension, log Z_r to 0.01 in two, by at least 100 effective draws in it
                in more, and in a polytope in two.

        Cost: up to 2^20 energies on the finest grid for d = 2, and more where modes meet; for d > 2 those of 2,000 draws, a
            mixture for each mode, and 20,000 energies.
        """
        return log_normaliser(self, epoch, seed)

    def density(self, x: Any, *, epoch: int | None = None) -> np.ndarray:
        """The fitted density p(x), (m,), in 1/[x], normalised by the fit and not over the points; see `log_density`.

        For the rule of the reference tutorial, which normalises on a grid, see `ismcore.density_from_score`.

        Args:
            x: Where, (m,), (m, 1) or one number, in [x].
            epoch: See `score`.

        Raises:
            DensityUnavailable: See `log_density`.
        """
        return np.asarray(np.exp(self.log_density(x, epoch=epoch)))

    def sample(
        self,
        n: int,
        *,
        start: Any = None,
        steps: int | None = None,
        thin: int = 10,
        step_size: float | None = None,
        context: Any = None,
        seed: int = 0,
    ) -> Draws:
        """Draw samples of the fitted law by Langevin dynamics, on the backend: z += a/2 psi(z) + sqrt(a) e, e standard normal.

        A hundred chains run side by side in the coordinates that the model was trained in. Steps are accepted by the ratio of
        densities: of an `Energy` it is known, and the draws are exact in the limit; of a free score it is the integral along
        the step, right as far as the score is a gradient. In a domain steps are reflected at the ends of columns, and not taken
        over the faces of a polytope; the draws stay exact. Of a noise-conditional fit each draw is the end of a chain of its
        own, by `ismcore.annealed_langevin` down the ladder of the fit. Equal seeds give equal draws on every backend, up to
        rounding.

        Args:
            n: How many.
            start: Samples to begin at, (m, d), in [x]; the rows that the result keeps if None, `kept`. A result without those
                starts at the centres of `modes`, or at a wide normal law, and annealed chains from noise. Chains do not move
                between parts of a law that lie far apart, so that these parts keep the shares of the start. Where `modes` are
                known each chain stays in its own, and their shares in the start are kept to a hundredth.
            steps: Steps of each chain before the first draw, 500 if None. The step size is tuned in them, to 57 % of accepted
                steps. Of a noise-conditional fit, steps at each noise scale, 100 if None.
            thin: Steps from a draw of a chain to the next.
            step_size: a, in the coordinates of training, if it is not to be tuned; of a noise-conditional fit a / s^2 at noise
                scale s, 0.1 if None.
            context: See `score`; the law at this noise scale, of a noise-conditional fit.
            seed: Source of the draws.

        Returns:
            The draws, with R-hat and effective number; `numpy.asarray` of them is (n, d), float64, in [x].

        Raises:
            OptionError: An option is none of the above.
            Diverged: A step left the finite numbers, or all reason.

        Warns:
            IsmWarning: The chains disagree, or keep the shares of their start.

        Cost: two scores, or a score and an energy, of 100 points for each of steps + thin n / 100 steps; annealed, a score of n
            points for each of steps times noise scales.

        Source: Roberts & Tweedie (1996), Bernoulli 2:341-363; Song & Ermon (2019) for annealed dynamics.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(500, 1))
            >>> result = ismcore.fit(x, model=ismcore.Affine(), backend="autograd", epochs=300)
            >>> result.sample(1000, start=x).x.shape
            (1000, 1)
        """
        found = langevin(self, n, start, steps=steps, thin=thin, step_size=step_size, context=context, seed=seed)
        for text in found.warnings:
            warnings.warn(IsmWarning(text), stacklevel=2)
        return found

    def as_energy(self, x: Any, *, model: Any = None, **options: Any) -> FitResult:
        """The energy nearest to the fitted score, which then has a density, a normaliser and exact draws.

        A network is fitted to the score itself, by explicit score matching, 1/2 E |psi(x) + grad U(x)|^2 over the rows of x. Of
        a free network this is the part that is a gradient; how much of the score's square is lost is in `result.notes`, or in
        `result.warnings` where it is more than a tenth. See `asymmetry` for how much of the Jacobian is of no energy.

        It has `modes` and `kept` of the fit and not of the points, except where nobody has counted the modes, as of
        `ismcore.Refit` or of a file from before they were counted, which `notes` says: then they are those of x.

        Args:
            x: Rows to fit at, (n, d), in [x], such as the samples.
            model: The energy; `Energy(MLP((64, 64), "softplus"))` if None.
            options: As of `fit`.

        Raises:
            And what `fit` raises.

        Cost: that of a fit without a divergence.
        """
        from ismcore.judging.energy import nearest_energy

        found: FitResult = nearest_energy(self, x, model, **options)
        return found

    def report(
        self, path: str | PathLike[str], x: Any = None, *, test: Any = None, saved_as: str | PathLike[str] | None = None
    ) -> None:
        """Write one HTML page about the fit, that needs no other file and no network, whole or not at all.

        It says what was fitted and how, what `ismcore.diagnose` finds in the samples, what `check` says; it has pictures of the
        fit and of its losses, draws of the fitted law beside the samples, and how to load the fit again. A part that cannot be,
        such as draws of a score that leads nowhere, is a sentence that says why.

        Args:
            path: The page.
            x: Rows to diagnose and to draw, (n, d) or (n,), in [x], such as the samples.
            test: Rows that the fit has not seen, to check it by; competitors are fitted to x. May be x itself, if x is new:
                then one half judges. Without any, those that `fit(test=...)` has set aside.
            saved_as: Where the fit was saved to, to say how it is loaded.

        Raises:
            SamplesError: The rows cannot be used.
            OptionError: Most rows of `test` are among those of x; or it is given of a fit that `check` cannot judge.
            PlottingMissing: Matplotlib is not installed.
            FileNotWritten: There is no such folder.

        Cost: that of `check`, and of 2,000 draws of `sample`.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(300, 2))
            >>> result = ismcore.fit(x, backend="autograd", recipe="single", epochs=5, progress=False)
            >>> result.report("fit.html", x)  # doctest: +SKIP
        """
        from ismcore.judging.report import write_report

        write_report(self, path, x, test=test, saved_as=saved_as)

    def native(self, into: Any = None, *, energy: bool = False) -> Any:
        """The fitted score in its framework: differentiable, on the result's device and in its dtype, in the samples' units.

        A network that was passed to `fit` comes back in kind: a `torch.nn.Module`, a bound Flax module or the pair (module,
        params) that it came as, a Flax NNX or Equinox module, or for a `ScoreFunction` the pair (function, params). One that
        was trained on standardised samples is wrapped in a module of the same framework, `inner((x - mean) / scale) / scale`,
        whose `inner` is it; `fit(standardize=False)` gives the bare one. An energy comes back as an energy.

        The library's own models come as a `torch.nn.Module`, or as a function of x in the other frameworks.

        Args:
            into: A torch or Flax NNX module of your own, like the one passed to `fit`, to write the parameters into; it is then
                the one returned, or the inner one.
            energy: Of an `Energy` of the library's own networks, the energy U as a function, (n, d) -> (n,), in the place of
                the score: for samplers that ask for a log-density, which is -U up to a constant.

        Raises:
            ModelError: `into` is not such a module; or there is no energy to give.
        """
        return native(self, into, energy=energy)

    def save(self, path: str | PathLike[str], *, rows: bool = True) -> None:
        """Write the result as one safetensors file, whole or not at all; read it back with `ismcore.load`.

        Args:
            path: The file; one that is already there is replaced.
            rows: Whether the file is to hold rows of the samples: those that chains start at, `kept`, and those set aside,
                `test`. Without them it tells of the samples what shift, scale, `modes` and parameters tell, and what `warnings`
                and `notes` quote: single values, such as those that repeat, edges and numbers of rows. A pickle of the result,
                as joblib and `ismcore.sweep` over processes make one, holds the rows.
        """
        files.save(self, path, rows=rows)

    def _score_at(self, z: np.ndarray, epoch: int | None = None, context: Any = None) -> np.ndarray:
        """The score of points as trained on, both (n, d), in the result's dtype."""
        model, params = self._as_trained(epoch)
        given = self._context(context, len(z))
        if model.portable:
            context = None if given is None else given.astype(self.dtype)
            return np.asarray(model.score(*_in_numpy(self.dtype, params, z), context))
        return score_on(self._engine(), model, params, z, given)

    def _energy_at(self, z: np.ndarray, epoch: int | None = None) -> np.ndarray:
        """The energy of points as trained on, (n,), in the result's dtype; of an `Energy` alone."""
        model: Any
        model, params = self._as_trained(epoch)
        if model.net.portable:
            return np.asarray(model.energy(*_in_numpy(self.dtype, params, z)))
        return energy_on(self._engine(), model, params, z)

    def _at(self, epoch: int | None) -> Params:
        if epoch is None:
            return self.params
        if epoch not in self.snapshots:
            kept = ", ".join(map(str, self.snapshots)) or "none"
            raise OptionError(
                f"no parameters were kept after epoch {epoch!r}; kept: {kept}; ask for them by fit(snapshots=...)"
            )
        return self.snapshots[epoch]

    def _as_trained(self, epoch: int | None = None) -> tuple[Model, Params]:
        """The model of the samples as trained on, and its parameters."""
        params = self._at(epoch)
        identity = self.coordinates.is_identity
        return (self.model, params) if identity else self.model.from_units(params, self.coordinates)

    def _inside(self, x: Any, f: Callable[[np.ndarray], np.ndarray], beyond: float) -> np.ndarray:
        """F of the points x, (n,), that lie in the domain and in the range of the transform; `beyond` of the others."""
        points = as_samples(x, d=self.d, names=self.feature_names)
        inside, found = self.coordinates.contains(points), np.full(len(points), beyond)
        if self.domain is not None:
            inside &= self.domain.contains(points)
        if inside.any():
            found[inside] = f(points[inside])
        return found

    def _standardised(self, x: Any) -> np.ndarray:
        """Points as trained on, z, (n, d), float64, which the dtype of the result can hold."""
        return as_samples(self.coordinates(as_samples(x, d=self.d, names=self.feature_names)), dtype=self.dtype)

    def _context(self, context: Any, n: int) -> np.ndarray | None:
        """A context for n points, (n, c), noise scales in the units of the samples as trained on; see `score`."""
        if context is None:
            return None
        given = context_for(self.model, self.objective, context, n, self.dtype)
        if isinstance(self.objective, NoiseConditionalScoreMatching):
            given = given / self.objective.unit(self.coordinates)
        return given

    def _engine(self) -> Backend:
        return load_backend(self.backend)(dtype=self.dtype, device=self.device)


def _in_numpy(dtype: str, params: Params, z: np.ndarray) -> tuple[NumpyCalculus, Params, np.ndarray]:
    calculus = NumpyCalculus(dtype)
    return calculus, {name: calculus.asarray(value) for name, value in params.items()}, calculus.asarray(z)


def _last_epoch(run_state: RunState) -> int:
    """The epoch that the state comes from: one that failed is in the history, and not in the state."""
    return run_state.epoch - (run_state.status == "diverged")


def _history(run_state: RunState) -> dict[str, np.ndarray]:
    history = {"epoch": np.arange(1, run_state.epoch + 1), "loss": run_state.losses, "learning_rate": run_state.rates}
    if run_state.validation:
        validation_loss = np.full(run_state.epoch, np.nan)
        validation_loss[np.array(list(run_state.validation)) - 1] = list(run_state.validation.values())
        history["validation_loss"] = validation_loss
    return history


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python, ismcore, NumPy and those of the packages named that are installed: some stand for each other."""
    own = {"python": platform.python_version(), "ismcore": installed_version("ismcore") or "unknown"}
    return own | {package: number for package in ("numpy", *packages) if (number := installed_version(package))}


def load(path: str | PathLike[str], model: Any = None) -> FitResult:
    """See `ismcore.files.results.load`."""
    found: FitResult = files.load(FitResult, path, model)
    return found

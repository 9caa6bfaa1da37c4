"""What `fit` returns: parameters, how they came about, and what can be asked of the fitted score."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ismcore.backend.contract import Backend, Dtype
from ismcore.backend.programs import energy_on, jacobian_diagonal, score_on
from ismcore.calculus import NumpyCalculus
from ismcore.coordinates import Coordinates
from ismcore.density import integrate_score
from ismcore.errors import DensityUnavailable, OptionError
from ismcore.files import results as files
from ismcore.models import Energy, Model, Standardized
from ismcore.objectives import NoiseConditionalScoreMatching, Objective
from ismcore.ops import Params
from ismcore.plugins.lookup import load_backend
from ismcore.plugins.registry import installed_version
from ismcore.results.evaluate import context_for, evaluate
from ismcore.results.native import native
from ismcore.samples.checks import as_samples
from ismcore.training.baseline import Baseline
from ismcore.training.run_state import RunState, Status
from ismcore.training.settings import Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FitResult", "load", "versions"]


@dataclass(frozen=True, eq=False)
class FitResult:
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

    def score(self, x: Any, *, epoch: int | None = None, context: Any = None) -> np.ndarray:
        """Fitted score psi(x) at points x of shape (n, d) or (n,): (n, d), float64, in 1/[x].

        Shift and scale are applied in float64, the model runs in the result's dtype.

        Args:
            x: Where.
            epoch: Use the snapshot kept after this many epochs, not the final parameters.
            context: What a conditional score depends on: one number for all points, one for each, (n,), or (n, c); the noise
                scale of an `ismcore.NoiseConditional`, in the units of its objective's `noise_scales`.

        Raises:
            OptionError: No snapshot was kept then; the context has another shape, is not finite, or is a noise scale that is
                not positive.
        """
        points = as_samples(x, d=self.d)
        return self.coordinates.score(points, self._score_at(self._standardised(points), epoch, context))

    def jacobian_diagonal(self, x: Any, *, context: Any = None) -> np.ndarray:
        """D psi_i / d x_i of the fitted score at points x, (n, d), float64, in 1/[x_i]^2, by the backend's differentiation.

        Of a conditional score at the context, see `score`. Cost: about 3 d scores.
        """
        points, coordinates = as_samples(x, d=self.d), self.coordinates.before_matrix
        model, params = self._as_trained()
        y = as_samples(coordinates(points), dtype=self.dtype)
        if self.coordinates.matrix is not None:
            model = Standardized(model, self.coordinates.matrix_alone)
        given = self._context(context, len(y))
        diagonal = jacobian_diagonal(self._engine(), model, params, y, given)
        psi = np.zeros_like(y) if coordinates.transform is None else score_on(self._engine(), model, params, y, given)
        return coordinates.jacobian_diagonal(points, psi, diagonal.astype(np.float64))

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

        Of an `Energy`, its value, whose constant is arbitrary. Of any other model in one dimension, -`log_density`.

        Args:
            x: Where, (n, d) or (n,), in [x].
            epoch: See `score`.

        Raises:
            DensityUnavailable: A free score in d > 1 dimensions is in general the gradient of nothing; fit an `Energy`.
        """
        model, params = self._as_trained(epoch)
        if isinstance(model, Energy):
            points = as_samples(x, d=self.d)
            z = self._standardised(points)
            if model.net.portable:
                found = np.asarray(model.energy(*_in_numpy(self.dtype, params, z)), dtype=np.float64)
            else:
                found = energy_on(self._engine(), model, params, z).astype(np.float64)
            return np.asarray(self.coordinates.energy_of(NumpyCalculus(), points, found))
        if self.d != 1:
            raise DensityUnavailable(
                f"{model!r} in d = {self.d} dimensions is a free vector field, in general the gradient of nothing, so it has "
                "no energy and no density: fit ismcore.Energy(...) of such a network"
            )
        return -self.log_density(x, epoch=epoch)

    def log_density(self, x: Any, *, epoch: int | None = None) -> np.ndarray:
        """The log-density log p(x) at any points x of one dimension, (m,): its slope is the fitted score.

        It is normalised over the real line, whatever the points are, by quadrature of the score; see
        `ismcore.density.integrate_score`.

        Args:
            x: Where, (m,), (m, 1) or one number, in [x].
            epoch: See `score`.

        Raises:
            DensityUnavailable: d > 1; or the fitted score does not fall off in its tails, so that nothing normalises it.
        """
        model, _ = self._as_trained(epoch)
        if self.d != 1:
            why = (
                f"an energy in d = {self.d} dimensions is known up to its normaliser; `result.energy(x)` is -log p(x) up to it"
                if isinstance(model, Energy)
                else f"{model!r} in d = {self.d} dimensions is a free vector field, in general the gradient of nothing; fit "
                "ismcore.Energy(...) of such a network for an energy"
            )
            raise DensityUnavailable(f"a normalised density is for one dimension so far: {why}")
        points = as_samples(np.atleast_1d(np.asarray(x)), d=self.d)
        log_p = integrate_score(lambda z: self._score_at(z[:, None], epoch)[:, 0].astype(np.float64))
        return self.coordinates.log_density(points, log_p(self._standardised(points)[:, 0]))

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

    def native(self, into: Any = None) -> Any:
        """The fitted score in its framework: differentiable, on the result's device and in its dtype, in the samples' units.

        A network that was passed to `fit` comes back in kind: a `torch.nn.Module`, a bound Flax module or the pair (module,
        params) that it came as, a Flax NNX or Equinox module, or for a `ScoreFunction` the pair (function, params). One that
        was trained on standardised samples is wrapped in a module of the same framework, `inner((x - mean) / scale) / scale`,
        whose `inner` is it; `fit(standardize=False)` gives the bare one. An energy comes back as an energy.

        The library's own models come as a `torch.nn.Module`, or as a function of x in the other frameworks.

        Args:
            into: A torch or Flax NNX module of your own, like the one passed to `fit`, to write the parameters into; it is then
                the one returned, or the inner one.

        Raises:
            ModelError: `into` is not such a module.
        """
        return native(self, into)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the result as one safetensors file, whole or not at all; read it back with `ismcore.load`."""
        files.save(self, path)

    def plot_score(
        self,
        *,
        ax: Axes | None = None,
        target: Any = None,
        sample: Any = None,
        epoch: int | None = None,
        grid: Any = None,
    ) -> Axes:
        """Draw the fitted score in one dimension, in 1/[x]; Jupyter shows it as a cell's last line.

        Args:
            ax: Where to draw; a new figure if None.
            target: Has `score`, in 1/[x], to compare with.
            sample: Samples to show at the foot, as a histogram that has no scale, (n,) or (n, 1), in [x].
            epoch: Draw the snapshot kept after this many epochs, not the parameters of `best_epoch`.
            grid: Points of the horizontal axis, (m,), increasing, in [x].

        Raises:
            OptionError: d > 1, or nothing says where to draw; see `ismcore.plotting.plot_score`.
        """
        from ismcore import plotting

        return plotting.plot_score(self, ax=ax, target=target, sample=sample, epoch=epoch, grid=grid)

    def plot_density(
        self,
        *,
        ax: Axes | None = None,
        target: Any = None,
        sample: Any = None,
        epoch: int | None = None,
        grid: Any = None,
    ) -> Axes:
        """Draw the density recovered from the fitted score in one dimension, in 1/[x]; Jupyter shows it as a cell's last line.

        Args:
            ax: Where to draw; a new figure if None.
            target: Has `pdf`, in 1/[x], to compare with.
            sample: Samples to show as a histogram on the density's own scale, (n,) or (n, 1), in [x].
            epoch: See `plot_score`.
            grid: Points of the horizontal axis, (m,), increasing, in [x].

        Raises:
            OptionError: d > 1, or nothing says where to draw; see `ismcore.plotting.plot_density`.
        """
        from ismcore import plotting

        return plotting.plot_density(self, ax=ax, target=target, sample=sample, epoch=epoch, grid=grid)

    def plot_loss(self, *, ax: Axes | None = None, published: tuple[Sequence[int], Sequence[float]] | None = None) -> Axes:
        """Draw training and held-out loss by epoch, in any dimension; Jupyter shows it as a cell's last line.

        Args:
            ax: Where to draw; a new figure if None.
            published: Epochs and losses to compare with, drawn as points.

        Raises:
            OptionError: No epoch was finished; see `ismcore.plotting.plot_loss`.
        """
        from ismcore import plotting

        return plotting.plot_loss(self, ax=ax, published=published)

    def _score_at(self, z: np.ndarray, epoch: int | None = None, context: Any = None) -> np.ndarray:
        """The score of points as trained on, both (n, d), in the result's dtype."""
        model, params = self._as_trained(epoch)
        given = self._context(context, len(z))
        if model.portable:
            context = None if given is None else given.astype(self.dtype)
            return np.asarray(model.score(*_in_numpy(self.dtype, params, z), context))
        return score_on(self._engine(), model, params, z, given)

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

    def _standardised(self, x: Any) -> np.ndarray:
        """Points as trained on, z, (n, d), float64, which the dtype of the result can hold."""
        return as_samples(self.coordinates(as_samples(x, d=self.d)), dtype=self.dtype)

    def _context(self, context: Any, n: int) -> np.ndarray | None:
        """A context for n points, (n, c), noise scales in the units of the samples as trained on; see `score`."""
        if context is None:
            return None
        given = context_for(self.model, self.objective, context, n)
        if isinstance(self.objective, NoiseConditionalScoreMatching):
            given = given / self.objective.unit(self.coordinates)
        return given

    def _engine(self) -> Backend:
        return load_backend(self.backend)(dtype=self.dtype, device=self.device)

    def __repr__(self) -> str:
        loss = f"{self.history['loss'][-1]:.6g}" if len(self.history["loss"]) else "-"
        losses = self.history.get("validation_loss", np.empty(0))
        best = f", held-out loss {np.nanmin(losses):.6g} after {self.best_epoch}" if np.isfinite(losses).any() else ""
        lines = [
            f"FitResult: {self.status} after {len(self.history['loss'])} epochs, loss {loss}{best}",
            f"  model      {self.model!r}, d = {self.d}",
            f"  objective  {self.objective!r}",
            f"  backend    {self.backend} ({self.backend_reason}), {self.dtype} on {self.device}",
            *([] if self.baseline is None else [f"  baseline   {self.baseline}"]),
            *(f"  warning    {text}" for text in self.warnings),
            *(f"  note       {text}" for text in self.notes),
        ]
        return "\n".join(lines)


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
    """Versions of Python, ismcore, NumPy and the packages named."""
    found = {"python": platform.python_version()}
    for package in ("ismcore", "numpy", *packages):
        found[package] = installed_version(package) or "unknown"
    return found


def load(path: str | PathLike[str], model: Any = None) -> FitResult:
    """See `ismcore.files.results.load`."""
    found: FitResult = files.load(FitResult, path, model)
    return found

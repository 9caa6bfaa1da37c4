"""What `fit` returns: parameters, how they came about, and what can be asked of the fitted score."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from ismcore.adoption import native
from ismcore.backend import Backend
from ismcore.baseline import Baseline
from ismcore.calculus import NumpyCalculus
from ismcore.density import density_from_score
from ismcore.errors import DensityUnavailable, OptionError
from ismcore.evaluate import evaluate, jacobian_diagonal, score_on
from ismcore.ledger import Ledger
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.plugins import load_backend
from ismcore.problem import Params
from ismcore.registry import installed_version
from ismcore.samples import Standardizer, as_samples
from ismcore.settings import Settings

__all__ = ["FitResult", "versions"]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted score function. Parameters, `score` and `divergence` are in the units [x] of the samples.

    Attributes:
        params: Fitted parameters by name.
        model: The model that they belong to: `evaluate(result.model, result.params, x)` works.
        history: One entry an epoch: "epoch", 1, 2, ...; "loss", before the updates and on the samples as trained on
            (standardised unless `standardize=False`), the mean over the epoch's batches; "learning_rate", of its first step;
            "validation_loss", after it, NaN where the held-out rows were not asked, absent where none were held out.
        status: "completed", "early_stopped", "diverged", "interrupted" or "timed_out".
        objective: What was minimised.
        backend: The backend that did it.
        backend_reason: Why that one.
        device: Where.
        dtype: In which dtype.
        seed: The seed.
        mean: Shift of each column in training, (d,), in [x].
        scale: Scale of each column in training, (d,), in [x].
        snapshots: Parameters by the number of epochs that led to them, for those asked for.
        best_epoch: The epoch whose parameters came back: that with the lowest held-out loss, or the last one.
        held_out: Number of rows, of those given or beside them, that judged.
        baseline: Held-out loss of the fit beside that of the normal law in closed form, see `ismcore.baseline.Baseline`; None
            where no rows were held out, of a conditional score, in what `load` makes of a checkpoint, and where
            `ismcore.baseline.compare_with_normal` says.
        restarts: What became of each start, where there were several: "start", "status", "epochs", "loss", "validation_loss".
        warnings: What a reader of the result should know, in words.
        timings: Seconds: "prepare", "run", "total".
        versions: Versions of Python, ismcore, NumPy and the framework.
    """

    params: Params
    model: Model
    history: dict[str, np.ndarray]
    status: str
    objective: Objective
    backend: str
    backend_reason: str
    device: str
    dtype: str
    seed: int
    mean: np.ndarray
    scale: np.ndarray
    snapshots: dict[int, Params] = field(default_factory=dict)
    best_epoch: int = 0
    held_out: int = 0
    baseline: Baseline | None = None
    restarts: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        settings: Settings,
        standardizer: Standardizer,
        ledger: Ledger,
        held_out: int,
        *,
        timings: Mapping[str, float],
        versions: Mapping[str, str],
    ) -> FitResult:
        """What a run with these settings has come to, in the samples' units."""
        trained = settings.model.canonical()

        def in_units(params: Params) -> tuple[Model, Params]:
            if standardizer.is_identity:
                return trained, dict(params)
            wide = {name: np.asarray(value, dtype=np.float64) for name, value in params.items()}
            folded, moved = trained.fold(wide, standardizer.mean, standardizer.scale)
            return folded, {name: np.asarray(value, dtype=settings.dtype) for name, value in moved.items()}

        model, params = in_units(ledger.params)
        return cls(
            model=model,
            params=params,
            history=_history(ledger),
            status=ledger.status or "interrupted",
            objective=settings.objective,
            backend=settings.backend,
            backend_reason=settings.backend_reason,
            device=settings.device,
            dtype=settings.dtype,
            seed=settings.seed,
            mean=standardizer.mean,
            scale=standardizer.scale,
            snapshots={epoch: in_units(kept)[1] for epoch, kept in ledger.snapshots.items()},
            best_epoch=_last_epoch(ledger) if ledger.best is None else ledger.best.epoch,
            held_out=held_out,
            warnings=settings.warnings + ledger.warnings,
            timings={**ledger.timings, **timings},
            versions=dict(versions),
        )

    @property
    def d(self) -> int:
        """Dimension of the samples."""
        return len(self.mean)

    def score(self, x: Any, *, epoch: int | None = None, context: Any = None) -> np.ndarray:
        """Fitted score psi(x) at points x of shape (n, d) or (n,): (n, d), in 1/[x].

        Args:
            x: Where.
            epoch: Use the snapshot kept after this many epochs, not the final parameters.
            context: What a conditional score depends on, (n, c), or one number for all points: the noise scale of an
                `ismcore.NoiseConditional`, in the units of the samples as trained on.

        Raises:
            OptionError: No snapshot was kept then.
        """
        points = as_samples(x, dtype=self.dtype, d=self.d)
        params = self._at(epoch)
        if context is not None:
            context = np.array(context, dtype=self.dtype)
            context = context if context.ndim == 2 else np.broadcast_to(context, (len(points), 1))
        if self.model.portable:
            calculus = NumpyCalculus(self.dtype)
            return np.asarray(self.model.score(calculus, params, calculus.asarray(points), context))
        return score_on(self._engine(), self.model, params, points, context)

    def divergence(self, x: Any) -> np.ndarray:
        """Divergence of the fitted score at points x, (n,), in 1/[x]^2, by the backend's differentiation."""
        points = as_samples(x, dtype=self.dtype, d=self.d)
        return np.asarray(jacobian_diagonal(self._engine(), self.model, self.params, points).sum(axis=1))

    def loss(self, x: Any) -> float:
        """The objective at samples x, on the samples as trained on: comparable with `history["loss"]`, in float64."""
        standardizer = Standardizer(self.mean, self.scale)
        points = as_samples(x, dtype=self.dtype, d=self.d)
        model, params = self.model, self.params
        if not standardizer.is_identity:
            wide = {name: np.asarray(value, dtype=np.float64) for name, value in self.params.items()}
            model, params = model.unfold(wide, self.mean, self.scale)
        return evaluate(
            model,
            params,
            standardizer(points),
            self.objective,
            backend=self.backend,
            device=self.device,
            allow_nonsmooth=True,
        ).loss

    def density(self, grid: Any, *, method: str = "trapezoid", epoch: int | None = None) -> np.ndarray:
        """The fitted density on a one-dimensional grid that covers it, (m,), in 1/[x]; see `density_from_score`.

        Raises:
            DensityUnavailable: d > 1, where a free vector field need not be the gradient of anything.
        """
        if self.d != 1:
            raise DensityUnavailable(
                f"a score network in d = {self.d} dimensions is in general no gradient, so it has no density; fit one "
                "dimension at a time, or use the score itself"
            )
        return density_from_score(self.score(grid, epoch=epoch)[:, 0], grid, method=method)

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
        from ismcore.persistence import save

        save(self, path)

    def plot_score(self, **options: Any) -> Any:
        """See `ismcore.plotting.plot_score`."""
        return self._plot("plot_score", options)

    def plot_density(self, **options: Any) -> Any:
        """See `ismcore.plotting.plot_density`."""
        return self._plot("plot_density", options)

    def plot_loss(self, **options: Any) -> Any:
        """See `ismcore.plotting.plot_loss`."""
        return self._plot("plot_loss", options)

    def _plot(self, name: str, options: dict[str, Any]) -> Any:
        from ismcore import plotting

        plot: Callable[..., Any] = getattr(plotting, name)
        return plot(self, **options)

    def _at(self, epoch: int | None) -> Params:
        if epoch is None:
            return self.params
        if epoch not in self.snapshots:
            kept = ", ".join(map(str, self.snapshots)) or "none"
            raise OptionError(
                f"no parameters were kept after epoch {epoch!r}; kept: {kept}; ask for them by fit(snapshots=...)"
            )
        return self.snapshots[epoch]

    def _engine(self) -> Backend:
        return load_backend(self.backend)(dtype=self.dtype, device=self.device)

    def __repr__(self) -> str:
        loss = f"{self.history['loss'][-1]:.6g}" if len(self.history["loss"]) else "-"
        judged = self.history.get("validation_loss", np.empty(0))
        best = f", held-out loss {np.nanmin(judged):.6g} after {self.best_epoch}" if np.isfinite(judged).any() else ""
        lines = [
            f"FitResult: {self.status} after {len(self.history['loss'])} epochs, loss {loss}{best}",
            f"  model      {self.model!r}, d = {self.d}",
            f"  objective  {self.objective!r}",
            f"  backend    {self.backend} ({self.backend_reason}), {self.dtype} on {self.device}",
            *([] if self.baseline is None else [f"  baseline   {self.baseline}"]),
            *(f"  warning    {text}" for text in self.warnings),
        ]
        return "\n".join(lines)


def _last_epoch(ledger: Ledger) -> int:
    """The epoch that the state comes from: one that failed is in the history, and not in the state."""
    return ledger.epoch - (ledger.status == "diverged")


def _history(ledger: Ledger) -> dict[str, np.ndarray]:
    history = {"epoch": np.arange(1, ledger.epoch + 1), "loss": ledger.losses, "learning_rate": ledger.rates}
    if ledger.validation:
        judged = np.full(ledger.epoch, np.nan)
        judged[np.array(list(ledger.validation)) - 1] = list(ledger.validation.values())
        history["validation_loss"] = judged
    return history


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python, ismcore, NumPy and the packages named."""
    found = {"python": platform.python_version()}
    for package in ("ismcore", "numpy", *packages):
        found[package] = installed_version(package) or "unknown"
    return found

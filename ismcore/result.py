"""What `fit` returns: parameters, how they came about, and what can be asked of the fitted score."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from typing import Any

import numpy as np

from ismcore.backend import Backend
from ismcore.calculus import NumpyCalculus
from ismcore.density import density_from_score
from ismcore.errors import DensityUnavailable, OptionError
from ismcore.evaluate import evaluate, jacobian_diagonal, score_on
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.plugins import load_backend
from ismcore.problem import Params
from ismcore.samples import Standardizer, as_samples

__all__ = ["FitResult", "versions"]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted score function. Parameters, `score` and `divergence` are in the units [x] of the samples.

    Attributes:
        params: Fitted parameters by name.
        model: The model that they belong to: `evaluate(result.model, result.params, x)` works.
        history: "epoch", 1, 2, ..., and "loss", before that epoch's update and on the samples as trained on (standardised
            unless `standardize=False`); one entry an epoch.
        status: "completed" or "diverged".
        objective: What was minimised.
        backend: The backend that did it.
        backend_reason: Why that one.
        device: Where.
        dtype: In which dtype.
        seed: The seed.
        mean: Shift of each column in training, (d,), in [x].
        scale: Scale of each column in training, (d,), in [x].
        snapshots: Parameters by the number of epochs that led to them, for those asked for.
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
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

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
        lines = [
            f"FitResult: {self.status} after {len(self.history['loss'])} epochs, loss {loss}",
            f"  model      {self.model!r}, d = {self.d}",
            f"  objective  {self.objective!r}",
            f"  backend    {self.backend} ({self.backend_reason}), {self.dtype} on {self.device}",
            *(f"  warning    {text}" for text in self.warnings),
        ]
        return "\n".join(lines)


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python, ismcore, NumPy and the packages named."""
    found = {"python": platform.python_version()}
    for package in ("ismcore", "numpy", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found

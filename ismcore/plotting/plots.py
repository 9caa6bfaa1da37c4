"""Pictures of samples, targets and fits in one dimension, and of losses.

Figures are made on the Agg canvas, never through pyplot: no display is needed, and no global list keeps them alive. Every
`plot_*` draws into the Axes given, or into a new figure, and returns the Axes. In Jupyter a new figure is shown where its Axes
are the last line of a cell, and by `display(ax)`; `ax.figure.savefig(path)` writes a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ismcore.coordinates import Coordinates
from ismcore.errors import DensityUnavailable, OptionError
from ismcore.objectives import ImplicitScoreMatching, Objective
from ismcore.ops import Params
from ismcore.plotting.scenes import (
    DASHES,
    FITTED,
    HELD_OUT,
    INK,
    PICTURE_DPI,
    TARGET,
    FittedCurve,
    Scene,
    finish,
    new_axes,
    png,
)
from ismcore.samples.checks import as_samples
from ismcore.targets.density import density_from_score
from ismcore.training.baseline import Baseline

__all__ = [
    "plot_density",
    "plot_loss",
    "plot_sample",
    "plot_score",
    "plot_target_score",
    "to_png",
]


class Fit(Protocol):
    """What a picture asks of a fit: an `ismcore.FitResult` has it."""

    @property
    def d(self) -> int: ...
    @property
    def history(self) -> dict[str, np.ndarray]: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def coordinates(self) -> Coordinates: ...
    @property
    def snapshots(self) -> dict[int, Params]: ...
    @property
    def best_epoch(self) -> int: ...
    @property
    def baseline(self) -> Baseline | None: ...
    @property
    def candidates(self) -> tuple[dict[str, Any], ...]: ...
    @property
    def feature_names(self) -> tuple[str, ...] | None: ...
    def score(self, x: Any, *, epoch: int | None = None, context: Any = None) -> np.ndarray: ...
    def density(self, x: Any, *, epoch: int | None = None) -> np.ndarray: ...
    def log_density(self, x: Any, *, epoch: int | None = None) -> np.ndarray: ...


DENSITY_LABEL = r"density  $p(x)$   $[1/x]$"
SCORE_LABEL = r"score  $\mathrm{d}\,\log p\,/\,\mathrm{d}x$   $[1/x]$"
LOSS_LABEL = r"loss  $J$   $[1/x^2]$"
STANDARDISED_LOSS_LABEL = r"loss  $J$   (learning units)"


def plot_sample(x: Any, target: Any = None, *, ax: Axes | None = None, grid: Any = None) -> Axes:
    """Histogram of samples, with the density that they came from where it is known.

    Args:
        x: Samples, (n,) or (n, 1), in [x].
        target: Has `pdf`, in 1/[x], such as `ismcore.targets.GaussianMixture`.
        ax: Where to draw; a new figure if None.
        grid: Points of the horizontal axis, (m,), increasing, in [x]. If None: the range of the samples and a quarter more
            on each side.

    Raises:
        OptionError: The samples have more than one dimension.
    """
    sample = _column(x)
    points = _axis(sample) if grid is None else np.asarray(grid, dtype=np.float64)
    return _density_scene("Sample" if target is None else "Sample and target", points, sample, target).draw(ax)


def plot_target_score(target: Any, x: Any, *, ax: Axes | None = None, grid: Any = None) -> Axes:
    """The score of a known density, above the histogram of samples from it.

    Args:
        target: Has `score`, in 1/[x], such as `ismcore.targets.GaussianMixture`.
        x: Samples, (n,) or (n, 1), in [x].
        ax: See `plot_sample`.
        grid: See `plot_sample`.

    Raises:
        OptionError: The samples have more than one dimension.
    """
    sample = _column(x)
    points = _axis(sample) if grid is None else np.asarray(grid, dtype=np.float64)
    return _score_scene("Score of the target", points, sample, target).draw(ax)


def plot_score(
    result: Fit,
    *,
    ax: Axes | None = None,
    target: Any = None,
    sample: Any = None,
    epoch: int | None = None,
    grid: Any = None,
) -> Axes:
    """The fitted score psi(x) of a fit in one dimension, in 1/[x], against the target's where it is known.

    Args:
        result: The fit.
        ax: Where to draw; a new figure if None.
        target: Has `score`, in 1/[x], such as `ismcore.targets.GaussianMixture`.
        sample: Samples to show at the foot, as a histogram that has no scale, (n,) or (n, 1), in [x].
        epoch: Draw the snapshot kept after this many epochs, not the fit's own parameters, which are of `result.best_epoch`.
            The title names the epoch.
        grid: Points of the horizontal axis, (m,), increasing, in [x]. If None: the range of the sample and a quarter more
            on each side; without a sample, four standard deviations around the mean by which the fit was standardised.

    Raises:
        OptionError: The fit has more than one dimension, or nothing says where to draw.
    """
    return score_fit(result, target, sample, grid).draw(ax, epoch).ax


def plot_density(
    result: Fit,
    *,
    ax: Axes | None = None,
    target: Any = None,
    sample: Any = None,
    epoch: int | None = None,
    grid: Any = None,
) -> Axes:
    """The density recovered from the fitted score in one dimension, in 1/[x], against the target's where it is known.

    It is `FitResult.density`; where no constant normalises that over the real line, it is normalised over the picture's axis.

    Args:
        result: The fit.
        ax: See `plot_score`.
        target: Has `pdf`, in 1/[x].
        sample: Samples to show as a histogram on the density's own scale, (n,) or (n, 1), in [x].
        epoch: See `plot_score`.
        grid: See `plot_score`.

    Raises:
        OptionError: See `plot_score`.
    """
    return density_fit(result, target, sample, grid).draw(ax, epoch).ax


def plot_loss(result: Fit, *, ax: Axes | None = None, published: tuple[Sequence[int], Sequence[float]] | None = None) -> Axes:
    """The loss of every epoch, before its update, of a fit in any dimension, and the held-out loss, after it.

    A point marks `result.best_epoch` on the held-out curve, which joins the epochs at which it was computed. Both
    losses are in learning units, those of the samples as trained on: standardised, or 1/[x]^2 with `standardize=False`. Of a
    fit in folds both are those of its first candidate, summed over the folds.

    A dotted line is the held-out loss of the normal law in closed form: the best one, less by how much the fit is better. Where
    the objective or the units are not those of that comparison, see `ismcore.training.baseline.Baseline`, the legend has the
    difference alone.

    Args:
        result: The fit.
        ax: Where to draw; a new figure if None.
        published: Epochs and losses to compare with, drawn as points.

    Raises:
        OptionError: No epoch was finished.
    """
    epochs, losses = result.history["epoch"], result.history["loss"]
    if not np.isfinite(losses).any():
        raise OptionError("there is no loss to draw: the fit ended before its first epoch did, or that was not finite")
    ax = new_axes() if ax is None else ax
    validation = result.history.get("validation_loss", np.full(len(epochs), np.nan))
    asked = np.isfinite(validation)
    heights = [losses, validation]
    name = "training" if asked.any() else "this fit"
    ax.plot(epochs, losses, color=FITTED, linewidth=2.2, label=f"{name}, {_number(losses[-1])} at the end")
    if asked.any():
        ax.plot(epochs[asked], validation[asked], color=HELD_OUT, linewidth=2.2, linestyle=DASHES, label="held out")
    best = asked & (epochs == result.best_epoch)
    if best.any():
        label = f"best, {_number(validation[best][0])} at epoch {result.best_epoch}"
        ax.plot(epochs[best], validation[best], "o", color=HELD_OUT, markersize=8, clip_on=False, zorder=4, label=label)
    heights += _draw_normal_law(ax, result, float(validation[best][0]) if best.any() else np.nan)
    if published is not None:
        heights.append(np.asarray(published[1]))
        ax.plot(*published, "o", color=TARGET, markersize=5, clip_on=False, zorder=3, label="published")
    ax.set_xlim(0, epochs[-1])
    standardised = not result.coordinates.is_identity
    label = STANDARDISED_LOSS_LABEL if standardised else LOSS_LABEL
    lead = result.candidates[1]["name"] if len(result.candidates) > 1 else ""
    stamp = f"candidate {lead!r}, 1 of {len(result.candidates) - 1}" if lead else ""
    finish(ax, result.objective.title, "epoch", label, heights, stamp=stamp)
    return ax


def _draw_normal_law(ax: Axes, result: Fit, best: float) -> list[np.ndarray]:
    """The level of the normal law beside the best held-out loss; returns the heights that the vertical axis must hold."""
    found = result.baseline
    if found is None:
        return []
    better, error = -found.difference, found.standard_error
    same_units = type(result.objective) is ImplicitScoreMatching and result.objective.least_curvature_weight == 0.0
    if result.candidates:  # in their coordinates, which may be whitened
        better = -result.candidates[1].get("difference", np.nan)
    else:
        same_units = same_units and bool(np.isclose(found.fit_loss, best, rtol=1e-3))
    if same_units and np.isfinite(better):
        level = best + better
        ax.axhline(level, color=INK, linewidth=1.4, linestyle=":", label=f"normal law, {_number(level)}")
        return [np.array([level])]
    how = "higher" if found.difference < 0.0 else "lower"
    label = f"normal law: {how} by {abs(found.difference):.2g} \N{PLUS-MINUS SIGN} {error:.1g}"
    ax.plot([], [], " ", label=label)
    return []


def to_png(picture: Axes | Figure, *, dpi: int = PICTURE_DPI) -> bytes:
    """A figure, or that which holds the Axes, as the bytes of a PNG file."""
    return png(picture.figure.canvas.figure, dpi)


def _score_scene(title: str, grid: np.ndarray, sample: np.ndarray | None, target: Any) -> Scene:
    truth = None if target is None else np.asarray(target.score(grid))[:, 0]
    return Scene(title, SCORE_LABEL, grid, sample, False, truth, "target score", None)


def _density_scene(title: str, grid: np.ndarray, sample: np.ndarray | None, target: Any) -> Scene:
    truth = None if target is None else np.asarray(target.pdf(grid))
    return Scene(title, DENSITY_LABEL, grid, sample, True, truth, "target density", 0.0)


def score_fit(result: Fit, target: Any, sample: Any, grid: Any, context: Any = None) -> FittedCurve:
    """The fitted score in its scene; see `plot_score`."""
    points, column = _where(result, sample, grid)
    scene = replace(_score_scene(result.objective.title, points, column, target), names=result.feature_names)

    def curve(epoch: int | None) -> np.ndarray:
        return result.score(points, epoch=epoch, context=context)[:, 0]

    beside = f", noise scale {context:.3g}" if isinstance(context, float | int) else ""
    return FittedCurve(scene, curve, r"fitted score $\psi$", best_stamp(result), beside)


def density_fit(result: Fit, target: Any, sample: Any, grid: Any) -> FittedCurve:
    """The recovered density in its scene; see `plot_density`."""
    points, column = _where(result, sample, grid)
    scene = replace(_density_scene(result.objective.title, points, column, target), names=result.feature_names)

    def curve(epoch: int | None) -> np.ndarray:
        try:
            return np.asarray(result.density(points, epoch=epoch))
        except DensityUnavailable:  # as of an early snapshot, which does not yet lead back to the samples
            return density_from_score(result.score(points, epoch=epoch)[:, 0], points)

    return FittedCurve(scene, curve, "fitted density", best_stamp(result))


def best_stamp(result: Fit) -> str:
    """Which epoch the fit's own parameters are of, as a title says it; those of several candidates are of an epoch each."""
    best, epochs = result.best_epoch, len(result.history["loss"])
    if result.candidates:
        used = [row for row in result.candidates[1:] if row["weight"] > 0.0]
        if not used:
            return "the normal law in closed form"
        if len(used) > 1:
            return f"each of {len(used)} candidates at its best epoch"
        best, epochs = used[0]["best_epoch"], used[0]["epochs"]
    return f"epoch {best}, best of {epochs}" if best < epochs else f"epoch {best}"


def _number(loss: float) -> str:
    """A loss as a legend writes it."""
    return f"{loss:.4f}".replace("-", "\N{MINUS SIGN}")


def _where(result: Fit, sample: Any, grid: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """The horizontal axis of a fit's picture, (m,), and the sample, (n,), if there is one."""
    _check_one_dimension(result.d, "the fit has")
    column = None if sample is None else _column(sample, result.feature_names)
    if grid is not None:
        return np.asarray(grid, dtype=np.float64), column
    if column is not None:
        return _axis(column), column
    if result.coordinates.is_identity:
        raise OptionError("say where to draw, by sample=x or grid=numpy.linspace(low, high, 400)")
    return result.coordinates.inverse(np.linspace(-4.0, 4.0, 400)[:, None])[:, 0], None


def _axis(sample: np.ndarray) -> np.ndarray:
    low, high = sample.min(), sample.max()
    margin = 0.25 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, 400)


def _column(x: Any, names: tuple[str, ...] | None = None) -> np.ndarray:
    """Samples of one dimension as (n,), of the name of the fit's column where both have one."""
    points = as_samples(x, names=names)
    _check_one_dimension(points.shape[1], "the samples have")
    return points[:, 0]


def _check_one_dimension(d: int, who: str) -> None:
    if d != 1:
        raise OptionError(
            f"this picture is for one dimension, and {who} d = {d}: draw single columns of samples or of `result.score`; "
            "`plot_loss` is for every d"
        )

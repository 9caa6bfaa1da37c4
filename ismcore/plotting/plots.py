"""Pictures of samples, targets and fits in one dimension, and of how fits came about.

Figures are made on the Agg canvas, never through pyplot: no display is needed, and no global list keeps them alive. Every
`plot_*` draws into the Axes given, or into a new figure, and returns the Axes. In Jupyter a new figure is shown where its Axes
are the last line of a cell, and by `display(ax)`; `ax.figure.savefig(path)` writes a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Protocol

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.errors import DensityUnavailable, OptionError, PlottingMissing
from ismcore.files.atomic import check_target, write_whole
from ismcore.objectives import Objective
from ismcore.ops import Params
from ismcore.samples.checks import as_samples
from ismcore.targets.density import density_from_score

try:
    from matplotlib.axes import Axes

    from ismcore.plotting.gif import gif_bytes
    from ismcore.plotting.scenes import (
        DASHES,
        FITTED,
        HELD_OUT,
        PICTURE_DPI,
        TARGET,
        FittedCurve,
        Scene,
        finish,
        frames,
        new_axes,
        png,
    )
except ImportError as error:
    raise PlottingMissing(
        f"pictures need matplotlib and pillow, which cannot be imported ({error}): pip install 'ismcore[plot]'"
    ) from error


__all__ = [
    "animate_density",
    "animate_score",
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
    def score(self, x: Any, *, epoch: int | None = None) -> np.ndarray: ...
    def density(self, x: Any, *, epoch: int | None = None) -> np.ndarray: ...


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
    """The fitted score psi(x) of a fit in one dimension, against the target's where it is known.

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
    return _score_fit(result, target, sample, grid).draw(ax, epoch).ax


def plot_density(
    result: Fit,
    *,
    ax: Axes | None = None,
    target: Any = None,
    sample: Any = None,
    epoch: int | None = None,
    grid: Any = None,
) -> Axes:
    """The density recovered from the fitted score in one dimension, against the target's where it is known.

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
    return _density_fit(result, target, sample, grid).draw(ax, epoch).ax


def plot_loss(result: Fit, *, ax: Axes | None = None, published: tuple[Sequence[int], Sequence[float]] | None = None) -> Axes:
    """The loss of every epoch, before its update, of a fit in any dimension, and the held-out loss, after it.

    A point marks `result.best_epoch` on the held-out curve, which joins the epochs at which it was computed. Both
    losses are in learning units, those of the samples as trained on: standardised, or 1/[x]^2 with `standardize=False`.

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
    if published is not None:
        heights.append(np.asarray(published[1]))
        ax.plot(*published, "o", color=TARGET, markersize=5, clip_on=False, zorder=3, label="published")
    ax.set_xlim(0, epochs[-1])
    standardised = not result.coordinates.is_identity
    finish(ax, result.objective.title, "epoch", STANDARDISED_LOSS_LABEL if standardised else LOSS_LABEL, heights)
    return ax


def animate_score(result: Fit, path: str | PathLike[str], *, target: Any = None, sample: Any = None, grid: Any = None) -> None:
    """Write how the fitted score came about as a GIF: a frame for every snapshot, on the same axes.

    Args:
        result: A fit in one dimension with snapshots: `ismcore.fit(..., snapshots=101)`.
        path: The file, written whole or not at all.
        target: See `plot_score`.
        sample: See `plot_score`.
        grid: See `plot_score`.

    Raises:
        OptionError: See `plot_score`; or there are fewer than two snapshots.
        OSError: The file cannot be written; known before the first frame is drawn.

    Cost: about a second for 101 frames.
    """
    _animate(_score_fit(result, target, sample, grid), sorted(result.snapshots), path)


def animate_density(
    result: Fit,
    path: str | PathLike[str],
    *,
    target: Any = None,
    sample: Any = None,
    grid: Any = None,
) -> None:
    """Write how the recovered density came about as a GIF; see `animate_score` and `plot_density`.

    Args:
        result: See `animate_score`.
        path: See `animate_score`.
        target: See `plot_density`.
        sample: See `plot_density`.
        grid: See `plot_density`.

    Raises:
        OptionError: See `animate_score`.
    """
    _animate(_density_fit(result, target, sample, grid), sorted(result.snapshots), path)


def to_png(ax: Axes, *, dpi: int = PICTURE_DPI) -> bytes:
    """The figure that holds the Axes, as the bytes of a PNG file."""
    return png(ax, dpi)


def _score_scene(title: str, grid: np.ndarray, sample: np.ndarray | None, target: Any) -> Scene:
    truth = None if target is None else np.asarray(target.score(grid))[:, 0]
    return Scene(title, SCORE_LABEL, grid, sample, False, truth, "target score", None)


def _density_scene(title: str, grid: np.ndarray, sample: np.ndarray | None, target: Any) -> Scene:
    truth = None if target is None else np.asarray(target.pdf(grid))
    return Scene(title, DENSITY_LABEL, grid, sample, True, truth, "target density", 0.0)


def _score_fit(result: Fit, target: Any, sample: Any, grid: Any) -> FittedCurve:
    points, column = _where(result, sample, grid)
    scene = _score_scene(result.objective.title, points, column, target)

    def curve(epoch: int | None) -> np.ndarray:
        return result.score(points, epoch=epoch)[:, 0]

    return FittedCurve(scene, curve, r"fitted score $\psi$", result.best_epoch, len(result.history["loss"]))


def _density_fit(result: Fit, target: Any, sample: Any, grid: Any) -> FittedCurve:
    points, column = _where(result, sample, grid)
    scene = _density_scene(result.objective.title, points, column, target)

    def curve(epoch: int | None) -> np.ndarray:
        try:
            return np.asarray(result.density(points, epoch=epoch))
        except DensityUnavailable:  # as of an early snapshot, which does not yet lead back to the samples
            return density_from_score(result.score(points, epoch=epoch)[:, 0], points)

    return FittedCurve(scene, curve, "fitted density", result.best_epoch, len(result.history["loss"]))


def _animate(fit: FittedCurve, epochs: Sequence[int], path: str | PathLike[str]) -> None:
    if len(epochs) < 2:
        raise OptionError(
            f"an animation needs a fit with two snapshots or more, and this one kept {len(epochs)}: fit(..., snapshots=101)"
        )
    check_target(path)
    write_whole(path, gif_bytes(list(frames(fit, epochs))))


def _number(loss: float) -> str:
    """A loss as a legend writes it."""
    return f"{loss:.4f}".replace("-", "\N{MINUS SIGN}")


def _where(result: Fit, sample: Any, grid: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """The horizontal axis of a fit's picture, (m,), and the sample, (n,), if there is one."""
    _check_one_dimension(result.d, "the fit has")
    column = None if sample is None else _column(sample)
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


def _column(x: Any) -> np.ndarray:
    """Samples of one dimension as (n,)."""
    points = as_samples(x)
    _check_one_dimension(points.shape[1], "the samples have")
    return points[:, 0]


def _check_one_dimension(d: int, who: str) -> None:
    if d != 1:
        raise OptionError(
            f"this picture is for one dimension, and {who} d = {d}: draw single columns of samples or of `result.score`; "
            "`plot_loss` is for every d"
        )

"""How fits in one dimension came about: a picture of each snapshot, as a GIF."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from ismcore.errors import OptionError
from ismcore.files.atomic import check_target, write_whole
from ismcore.plotting.gif import Animation
from ismcore.plotting.plots import Fit, density_fit, score_fit
from ismcore.plotting.scenes import FittedCurve, frames

__all__ = ["animate_density", "animate_score"]


def animate_score(
    result: Fit,
    path: str | PathLike[str] | None = None,
    *,
    target: Any = None,
    sample: Any = None,
    grid: Any = None,
) -> Animation:
    """How the fitted score came about as a GIF: a frame for every snapshot, on the same axes.

    Args:
        result: A fit in one dimension with snapshots: `ismcore.fit(..., snapshots=101)`.
        path: A file to write, whole or not at all; none if None.
        target: See `plot_score`.
        sample: See `plot_score`.
        grid: See `plot_score`.

    Returns:
        The animation, which Jupyter shows as the last line of a cell.

    Raises:
        OptionError: See `plot_score`; or there are fewer than two snapshots.
        OSError: The file cannot be written; known before the first frame is drawn.

    Cost: about a second for 101 frames.
    """
    return _animate(score_fit(result, target, sample, grid), sorted(result.snapshots), path)


def animate_density(
    result: Fit,
    path: str | PathLike[str] | None = None,
    *,
    target: Any = None,
    sample: Any = None,
    grid: Any = None,
) -> Animation:
    """How the recovered density came about as a GIF; see `animate_score` and `plot_density`.

    Args:
        result: See `animate_score`.
        path: See `animate_score`.
        target: See `plot_density`.
        sample: See `plot_density`.
        grid: See `plot_density`.

    Returns:
        See `animate_score`.

    Raises:
        OptionError: See `animate_score`.
    """
    return _animate(density_fit(result, target, sample, grid), sorted(result.snapshots), path)


def _animate(fit: FittedCurve, epochs: Sequence[int], path: str | PathLike[str] | None) -> Animation:
    if len(epochs) < 2:
        raise OptionError(
            f"an animation needs a fit with two snapshots or more, and this one kept {len(epochs)}: fit(..., snapshots=101)"
        )
    if path is not None:
        check_target(path)
    found = Animation.of(list(frames(fit, epochs)))
    if path is not None:
        write_whole(path, found.gif)
    return found

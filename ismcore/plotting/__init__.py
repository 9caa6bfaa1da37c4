"""Pictures of fits, if matplotlib is installed: `plot` chooses what to draw; see `ismcore.plotting.plots` and `animations`."""

from ismcore.errors import PlottingMissing

try:
    from ismcore.plotting.animations import animate_density, animate_score
    from ismcore.plotting.beside import plot_beside
    from ismcore.plotting.overview import plot
    from ismcore.plotting.plots import (
        plot_density,
        plot_loss,
        plot_sample,
        plot_score,
        plot_target_score,
        to_png,
    )
except ImportError as error:
    raise PlottingMissing(
        f"pictures need matplotlib and pillow, which cannot be imported ({error}): pip install 'ismcore[plot]'"
    ) from error

__all__ = [
    "animate_density",
    "animate_score",
    "plot",
    "plot_beside",
    "plot_density",
    "plot_loss",
    "plot_sample",
    "plot_score",
    "plot_target_score",
    "to_png",
]

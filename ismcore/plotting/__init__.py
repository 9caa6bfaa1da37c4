"""Pictures of fits, if matplotlib is installed: see `ismcore.plotting.plots`."""

from ismcore.plotting.plots import (
    animate_density,
    animate_score,
    plot_density,
    plot_loss,
    plot_sample,
    plot_score,
    plot_target_score,
    to_png,
)

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

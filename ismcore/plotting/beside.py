"""Draws of a fitted law beside the samples that it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ismcore.plotting.scenes import FITTED, INK, SAMPLE, new_figure, styled

__all__ = ["plot_beside"]

COLUMNS, DOTS, BINS = 5, 1000, 30
"""Columns and rows that are drawn where there are more; bins of a histogram."""


def plot_beside(x: np.ndarray, draws: np.ndarray, names: Sequence[str] | None = None) -> Figure:
    """Histograms of each column of the samples and of the draws; for d > 1 also the two strongest components of both.

    The components are those of the samples, in units of each column's standard deviation, and the same for the draws.

    Args:
        x: Samples, (n, d), in [x].
        draws: Draws of the fitted law, (m, d), in [x].
        names: Of the columns, (d,); x_1, x_2, ... if None.
    """
    d = x.shape[1]
    k = min(d, COLUMNS)
    figure = new_figure(size=(6.0, 3.8) if d == 1 else (9.0, 6.6))
    rows: list[Any] = [[f"column {j}" for j in range(k)]]
    if d == 1:
        axes = figure.subplot_mosaic(rows)
    else:  # both planes share the width of all histograms
        rows = [[name for name in ("sample", "draws") for _ in range(k)], [name for name in rows[0] for _ in range(2)]]
        axes = figure.subplot_mosaic(rows, height_ratios=[1.9, 1.0])
        _planes(axes["sample"], axes["draws"], x, draws)
    shown = names or [f"$x_{{{j + 1}}}$" for j in range(d)]
    for j in range(k):
        _histograms(styled(axes[f"column {j}"]), x[:, j], draws[:, j], shown[j].replace("$", r"\$") if names else shown[j])
    handles, labels = axes["column 0"].get_legend_handles_labels()
    others = "" if k == d else f"; {k} of {d} columns"
    figure.legend(handles, [*labels[:-1], labels[-1] + others], loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    return figure


def _histograms(ax: Axes, x: np.ndarray, draws: np.ndarray, name: str) -> None:
    """Both on one scale, over the range of all but far outliers of the samples."""
    low, high = np.quantile(x, [0.001, 0.999])
    margin = 0.15 * (high - low) or 1.0
    bins = np.linspace(low - margin, high + margin, BINS + 1)
    width = bins[1] - bins[0]
    ax.stairs(np.histogram(x, bins)[0] / len(x) / width, bins, fill=True, color=SAMPLE, label=f"sample, n = {len(x)}")
    heights = np.histogram(draws, bins)[0] / len(draws) / width
    ax.stairs(heights, bins, color=FITTED, linewidth=1.8, label=f"{len(draws)} draws of the fit")
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=4)
    ax.tick_params(labelsize=9)
    ax.set_xlabel(name if len(name) <= 18 else f"{name[:17]}…", fontsize=10, color=INK)


def _planes(left: Axes, right: Axes, x: np.ndarray, draws: np.ndarray) -> None:
    """Rows of both in the plane of the samples' two strongest components, on the same axes."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0.0, scale, 1.0)
    z = (x - mean) / scale
    plane = np.linalg.svd(z, full_matrices=False)[2][:2].T if x.shape[1] > 2 else np.eye(2)
    u, v = z @ plane, (draws - mean) / scale @ plane
    low, high = np.quantile(u, [0.001, 0.999], axis=0)
    margin = 0.1 * (high - low)
    what = "standardised columns" if x.shape[1] == 2 else "two strongest components"
    for ax, rows, title, color in ((left, u, "sample", INK), (right, v, "draws of the fit", FITTED)):
        every = rows[:: -(-len(rows) // DOTS)]
        styled(ax).plot(*every.T, ".", color=color, markersize=3, alpha=0.6, rasterized=True)
        ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]), box_aspect=1.0)
        ax.set_title(f"{title}, {what}", fontsize=11, color=INK)
        ax.locator_params(nbins=5)
        ax.tick_params(labelsize=9)

"""How the pictures of `ismcore.plotting` are drawn: a scene, a fitted curve in it, the frames of an animation, and the look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

__all__ = ["FITTED", "PICTURE_DPI", "TARGET", "FittedCurve", "Scene", "entitle", "finish", "frames", "new_figure", "styled"]

# Okabe and Ito's palette: told apart with any colour vision, and in grey.
TARGET, FITTED, SAMPLE, INK, FAINT = "#0072B2", "#D55E00", "#C3CAD3", "#333333", "#E6E9ED"

SIZE, FRAME_DPI, PICTURE_DPI = (6.0, 4.0), 100, 200
"""Inches; dots to the inch of a frame and of a picture."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What a picture shows beside a fit: a sample, a truth, or both.

    Attributes:
        title: What it is about.
        ylabel: What the curves are, with their unit.
        grid: Horizontal positions, (m,), in [x].
        sample: Samples, (n,), in [x].
        to_scale: Whether the sample's histogram is on the vertical axis's scale, not just a shape at its foot.
        truth: The known curve on the grid, (m,).
        truth_label: Its name.
        floor: Lower end of the vertical axis, where that is known.
    """

    title: str
    ylabel: str
    grid: np.ndarray
    sample: np.ndarray | None
    to_scale: bool
    truth: np.ndarray | None
    truth_label: str
    floor: float | None

    def draw(self, ax: Axes | None) -> Axes:
        """The picture without a fit."""
        ax, heights = self.start(ax)
        self.finish(ax, heights)
        return ax

    def start(self, ax: Axes | None) -> tuple[Axes, list[np.ndarray]]:
        """Draw what lies below a fit; returns the Axes and all heights that its vertical axis must hold."""
        ax = styled(new_figure().add_subplot()) if ax is None else ax
        heights: list[np.ndarray] = []
        if self.sample is not None:
            heights += histogram(ax, self.sample, to_scale=self.to_scale)
        if self.truth is not None:
            heights.append(self.truth)
            dashes = (0, (4, 1.4))
            ax.plot(self.grid, self.truth, color=TARGET, linewidth=2.2, linestyle=dashes, label=self.truth_label)
        return ax, heights

    def finish(self, ax: Axes, heights: Iterable[np.ndarray]) -> None:
        """Title, labels, limits and legend, once every curve is drawn."""
        entitle(ax, self.title)
        finish(ax, r"$x$", self.ylabel, heights, self.floor)
        ax.set_xlim(self.grid[0], self.grid[-1])


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture of a fit, and what changes in it from frame to frame."""

    ax: Axes
    line: Line2D
    stamp: Text


@dataclass(frozen=True, eq=False)
class FittedCurve:
    """A fitted curve in its scene.

    Attributes:
        scene: What else there is to see.
        curve: From an epoch, or None for the end of the fit, to the curve on the grid, (m,).
        label: Its name.
        last_epoch: The epoch that None stands for.
    """

    scene: Scene
    curve: Callable[[int | None], np.ndarray]
    label: str
    last_epoch: int

    def draw(self, ax: Axes | None, epoch: int | None, epochs: Iterable[int] = ()) -> Drawn:
        """Draw the fit as it was after an epoch, on axes that also hold it as it was after the other epochs."""
        ax, heights = self.scene.start(ax)
        curve = self.curve(epoch)
        (line,) = ax.plot(self.scene.grid, curve, color=FITTED, linewidth=2.2, label=self.label)
        self.scene.finish(ax, [*heights, curve, *map(self.curve, epochs)])
        stamp = ax.set_title(self.stamp(epoch), loc="right", fontsize=12, color=INK)
        return Drawn(ax, line, stamp)

    def stamp(self, epoch: int | None) -> str:
        """The epoch, as the title says it."""
        return f"epoch {self.last_epoch if epoch is None else epoch}"


def frames(fit: FittedCurve, epochs: Sequence[int]) -> Iterator[np.ndarray]:
    """The fit after each epoch, (height, width, 3) of uint8; what stays the same is drawn once."""
    figure = new_figure(FRAME_DPI)
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib's own annotations leave these methods untyped
    drawn = fit.draw(styled(figure.add_subplot()), epochs[0], epochs)
    for artist in (drawn.line, drawn.stamp):
        artist.set_animated(True)
    canvas.draw()
    backdrop = canvas.copy_from_bbox(figure.bbox)
    for epoch in epochs:
        canvas.restore_region(backdrop)
        drawn.line.set_ydata(fit.curve(epoch))
        drawn.stamp.set_text(fit.stamp(epoch))
        drawn.ax.draw_artist(drawn.line)
        drawn.ax.draw_artist(drawn.stamp)
        yield np.array(canvas.buffer_rgba())[..., :3]


def new_figure(dpi: int = PICTURE_DPI) -> Figure:
    """An empty figure of our size, which no global list knows of."""
    figure = Figure(figsize=SIZE, dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def styled(ax: Axes) -> Axes:
    """Our own Axes to our taste; one that the caller hands in keeps its own."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=11, colors=INK)
    ax.grid(color=FAINT, linewidth=0.8)
    ax.set_axisbelow(True)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(fontsize=12, color=INK)
        axis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10]))
    return ax


def histogram(ax: Axes, sample: np.ndarray, *, to_scale: bool) -> list[np.ndarray]:
    """Draw the sample, on the density's scale or in the lowest fifth of the Axes; returns heights on the vertical axis."""
    heights, edges = np.histogram(sample, bins=40, density=True)
    look: dict[str, Any] = {"fill": True, "color": SAMPLE, "label": f"sample, n = {len(sample)}"}
    if to_scale:
        ax.stairs(heights, edges, **look)
        return [heights]
    ax.stairs(0.2 * heights / heights.max(), edges, transform=ax.get_xaxis_transform(), **look)
    return []


def entitle(ax: Axes, text: str) -> None:
    """Write the title at the left."""
    ax.set_title(text, loc="left", fontsize=12, fontweight="bold", color=INK)


def finish(ax: Axes, xlabel: str, ylabel: str, heights: Iterable[np.ndarray], floor: float | None = None) -> None:
    """Labels, and a vertical axis that holds all curves and, above them, a strip for the legend."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    values = np.concatenate([np.ravel(h) for h in heights])
    values = values[np.isfinite(values)]
    low, high = values.min(), values.max()
    span = (high - low) or 1.0
    ax.set_ylim(low - 0.06 * span if floor is None else floor, high + 0.18 * span)
    ax.legend(
        loc="upper center",
        ncols=len(ax.get_legend_handles_labels()[1]),
        fontsize=10,
        handlelength=2.05,
        handletextpad=0.6,
        columnspacing=1.3,
        borderpad=0.2,
        facecolor="white",
        edgecolor="none",
        framealpha=1.0,
    )

"""How the pictures of `ismcore.plotting` are drawn: a scene, a fitted curve in it, the frames of an animation, and the look."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

__all__ = [
    "DASHES",
    "FAINT",
    "FITTED",
    "HELD_OUT",
    "INK",
    "PICTURE_DPI",
    "SAMPLE",
    "TARGET",
    "FittedCurve",
    "Scene",
    "finish",
    "frames",
    "new_axes",
    "new_figure",
    "png",
    "styled",
]

# Okabe and Ito's palette: told apart with any colour vision and, by the dashes of one of two curves, in grey.
TARGET, FITTED, HELD_OUT, SAMPLE, INK, FAINT = "#0072B2", "#D55E00", "#009E73", "#C3CAD3", "#333333", "#E6E9ED"
DASHES = (0, (4, 1.4))

SIZE, FRAME_DPI, PICTURE_DPI = (6.0, 4.0), 100, 200
"""Inches; dots to the inch of a frame and of a picture."""

TITLE_SIZE, LEGEND_SIZE, SMALLEST = 12.0, 10.0, 6.0
"""Points; what does not fit into narrow Axes is written smaller, down to the smallest."""


class PictureFigure(Figure):
    """A figure that Jupyter shows as the last line of a cell, or by `display(figure)`.

    IPython asks an object for `_repr_png_`. pyplot, which shows its own figures when a cell ends, knows nothing of ours: a
    picture comes once. The figure, of 200 dots to the inch, is shown at half its pixels, sharp on any screen.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The PNG file, and its width and height on the page in pixels."""
        return _on_a_page(self)


class Picture(Axes):
    """Axes that Jupyter shows as the figure that holds them."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """See `PictureFigure`."""
        return _on_a_page(self.figure.canvas.figure)


def _on_a_page(figure: Figure) -> tuple[bytes, dict[str, int]]:
    width, height = (round(FRAME_DPI * inches) for inches in figure.get_size_inches())
    return png(figure), {"width": width, "height": height}


def png(figure: Figure, dpi: int = PICTURE_DPI) -> bytes:
    """A figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.canvas.print_figure(stream, format="png", dpi=dpi)
    return stream.getvalue()


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
        names: The name of the column, (1,), where it has one.
    """

    title: str
    ylabel: str
    grid: np.ndarray
    sample: np.ndarray | None
    to_scale: bool
    truth: np.ndarray | None
    truth_label: str
    floor: float | None
    names: tuple[str, ...] | None = None

    def draw(self, ax: Axes | None) -> Axes:
        """The picture without a fit."""
        ax, heights = self.start(ax)
        self.finish(ax, heights)
        return ax

    def start(self, ax: Axes | None) -> tuple[Axes, list[np.ndarray]]:
        """Draw what lies below a fit; returns the Axes and all heights that its vertical axis must hold."""
        ax = new_axes() if ax is None else ax
        heights: list[np.ndarray] = []
        if self.sample is not None:
            heights += histogram(ax, self.sample, to_scale=self.to_scale)
        if self.truth is not None:
            heights.append(self.truth)
            ax.plot(self.grid, self.truth, color=TARGET, linewidth=2.2, linestyle=DASHES, label=self.truth_label)
        return ax, heights

    def finish(self, ax: Axes, heights: Iterable[np.ndarray], stamp: str = "") -> Text:
        """Titles, labels, limits and legend, once every curve is drawn; returns the title at the right, the stamp."""
        ax.set_xlim(self.grid[0], self.grid[-1])
        xlabel = r"$x$" if self.names is None else self.names[0].replace("$", r"\$")
        return finish(ax, self.title, xlabel, self.ylabel, heights, floor=self.floor, stamp=stamp)


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
        curve: From the epoch of a snapshot, or None for the fit's own parameters, to the curve on the grid, (m,).
        label: Its name.
        best: Which epoch the fit's own parameters are of, as the title says it.
        beside: What the title says beside the epoch.
    """

    scene: Scene
    curve: Callable[[int | None], np.ndarray]
    label: str
    best: str
    beside: str = ""

    def draw(self, ax: Axes | None, epoch: int | None, epochs: Iterable[int] = ()) -> Drawn:
        """Draw the fit as it was after an epoch, on axes that also hold it as it was after the other epochs."""
        ax, heights = self.scene.start(ax)
        curve = self.curve(epoch)
        (line,) = ax.plot(self.scene.grid, curve, color=FITTED, linewidth=2.2, label=self.label)
        stamp = self.scene.finish(ax, [*heights, curve, *map(self.curve, epochs)], self.stamp(epoch))
        return Drawn(ax, line, stamp)

    def stamp(self, epoch: int | None) -> str:
        """The epoch whose parameters are drawn, as the title says it."""
        return (self.best if epoch is None else f"epoch {epoch}") + self.beside


def frames(fit: FittedCurve, epochs: Sequence[int]) -> Iterator[np.ndarray]:
    """The fit after each epoch, (height, width, 3) of uint8; what stays the same is drawn once."""
    curves: dict[int | None, np.ndarray] = {epoch: fit.curve(epoch) for epoch in epochs}
    fit = replace(fit, curve=curves.__getitem__)
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


def new_axes() -> Axes:
    """Axes in a new figure of our size, which a notebook shows."""
    return styled(new_figure().add_subplot(axes_class=Picture))


def new_figure(dpi: int = PICTURE_DPI, size: tuple[float, float] = SIZE) -> Figure:
    """An empty figure, of our size unless said, which no global list knows of."""
    figure = PictureFigure(figsize=size, dpi=dpi, layout="constrained")
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


def finish(
    ax: Axes,
    title: str,
    xlabel: str,
    ylabel: str,
    heights: Iterable[np.ndarray],
    *,
    floor: float | None = None,
    stamp: str = "",
) -> Text:
    """Titles and labels, a vertical axis that holds all curves, and a legend above them; returns the title at the right."""
    values = np.concatenate([np.ravel(h) for h in heights])
    values = values[np.isfinite(values)]
    low, high = values.min(), values.max()
    span = (high - low) or 1.0
    bottom, top = low - 0.06 * span if floor is None else floor, high + 0.18 * span
    ax.set_ylim(bottom, top)
    ax.set_xlabel(xlabel)
    label = ax.yaxis.label
    wanted = float(label.get_fontsize())
    ax.set_ylabel(ylabel, fontsize=SMALLEST)
    name = ax.set_title(title, loc="left", fontsize=SMALLEST, fontweight="bold", color=INK)
    beside = ax.set_title(stamp, loc="right", fontsize=SMALLEST, color=INK)

    frame = room(ax)
    share = min(legend(ax, frame), 0.5)
    ax.set_ylim(bottom, max(top, high + (high - bottom) * share / (1.0 - share)))
    small = name.get_window_extent().height
    widths = [text.get_window_extent().width for text in (name, beside)]
    if stamp and sum(widths) * TITLE_SIZE / SMALLEST > frame.width:
        name.set_text(f"{title}\n")  # the stamp then has a line of its own
    grow([name, beside], TITLE_SIZE, max(widths), frame.width)
    taken = name.get_window_extent().height - small  # by titles that have grown, where a layout makes room for them
    grow([label], wanted, label.get_window_extent().height, frame.height - taken)
    return beside


def room(ax: Axes) -> Bbox:
    """Where the Axes lie, in pixels, once the figure's layout, if it has one, has placed them.

    Texts should be small by then: a layout makes Axes smaller than their titles and labels reach beyond them.
    """
    figure = ax.figure.canvas.figure  # the whole, where the Axes are in a part of it
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
    return ax.get_window_extent()


def legend(ax: Axes, frame: Bbox) -> float:
    """Write the legend in as few lines as the width has room for; returns the share of the height that it takes."""
    names = len(ax.get_legend_handles_labels()[1])
    sizes = [(ncols, LEGEND_SIZE) for ncols in range(names, 0, -1)]
    for ncols, size in [*sizes, (1, 8.0), (1, SMALLEST)]:
        written = ax.legend(
            loc="upper center",
            ncols=ncols,
            fontsize=size,
            handlelength=2.05 if size > SMALLEST else 1.4,  # the last room that there is
            handletextpad=0.6,
            columnspacing=1.3,
            borderpad=0.2,
            facecolor="white",
            edgecolor="none",
            framealpha=1.0,
        )
        box = written.get_window_extent()
        if box.width <= frame.width:
            break
    margins = ax.figure.dpi / 72.0 * size  # matplotlib leaves half a letter's size above, and we one below
    return float((box.height + margins) / frame.height)


def grow(texts: Sequence[Text], size: float, length: float, available: float) -> None:
    """Write texts of the smallest size, so many pixels long, in the size wanted, or as large as there is room for."""
    for text in texts:
        text.set_fontsize(max(SMALLEST, min(size, 0.96 * SMALLEST * available / length)))

"""A fit in one figure, of as many panels as its number of columns asks for: what `FitResult.plot` draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ismcore.errors import DensityUnavailable, OptionError
from ismcore.objectives import NoiseConditionalScoreMatching
from ismcore.plotting.plots import Fit, best_stamp, density_fit, score_fit
from ismcore.plotting.scenes import FAINT, FITTED, INK, SAMPLE, TARGET, new_figure, styled
from ismcore.samples.checks import as_samples
from ismcore.seeds import stream

__all__ = ["plot"]

DOT = "#98A2AE"
DOTS, ROWS = 1500, 4000
"""Rows drawn as dots; rows that the score is averaged over. Of more, so many are drawn by a fixed seed."""
COLUMNS = 5
"""Columns that are drawn where there are more and none are named."""
SHARES = (0.95, 0.8, 0.5)
"""Shares of the fitted law inside of the contours, from the outermost."""
ARROWS, CONTOUR_POINTS, BINS = 17, 90, 16
"""Arrows of a field and points of its contours, along each axis; bins of a column."""
FEWEST = 4
"""A mean score is drawn of so many rows or more."""


def plot(
    result: Fit,
    x: Any = None,
    *,
    columns: Sequence[int | str] | None = None,
    epoch: int | None = None,
    context: Any = None,
) -> Figure:
    """A fit in one figure, whatever its number of columns d; Jupyter shows it as a cell's last line.

    - d = 1: the score and the density, each over the histogram of the rows.
    - d = 2: the score as a field of arrows over the rows, and contours that hold 50, 80 and 95 % of the fitted law where it has
      a density, see `FitResult.log_density`.
    - d > 2: each pair of columns, the two strongest principal components of the standardised columns, and each column's score
      along it. Arrows and lines are means of psi over the rows of a cell or of a bin: E[psi_i | x_i, x_j] is the score of the
      pair's own law, and E[psi_i | x_i] that of the column's.

    Without rows the same is drawn for d = 1 and 2, over the range of the coordinates that the fit was made in; for d > 2 only
    each column's score along the line through their centre. The length of an arrow is |u| / (|u| + median |u|) of a cell, with
    u the score in units of the axes.

    Args:
        result: The fit.
        x: Rows, (n, d) or (n,), in [x], such as the samples; those that a fit keeps are not drawn.
        columns: Numbers or names of two to six columns to draw, for d > 2; the first five if None.
        epoch: Draw the snapshot kept after this many epochs, not the fit's own parameters.
        context: What a conditional score depends on, see `FitResult.score`; of a noise-conditional fit the smallest noise scale
            if None.

    Raises:
        OptionError: There are no such columns; or nothing says where to draw, as the fit is not standardised and x is None.
        SamplesError: The rows cannot be used.

    Source: Vincent (2011), Neural Comput. 23:1661-1674, for the conditional mean of a score.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> result = ismcore.fit(x, backend="autograd", recipe="single", epochs=5, progress=False)
        >>> result.plot(x).savefig("fit.png")  # doctest: +SKIP
    """
    if context is None and isinstance(result.objective, NoiseConditionalScoreMatching):
        context = min(result.objective.noise_scales)
    view = View(result, None if x is None else as_samples(x, d=result.d, names=result.feature_names), epoch, context)
    if result.d <= 2 and columns is not None:
        raise OptionError(f"columns are for d > 2, and the fit has d = {result.d}, which are all drawn")
    if result.d == 1:
        return _one_column(view)
    if result.d == 2:
        return _two_columns(view)
    chosen = _chosen(view, columns)
    return _lines(view, chosen) if x is None else _many_columns(view, chosen)


@dataclass(frozen=True, eq=False)
class View:
    """What is drawn of a fit.

    Attributes:
        fit: The fit.
        rows: Rows to draw it over, (n, d), in [x], or None.
        epoch: The snapshot that is drawn; None for the fit's own parameters.
        context: What a conditional score depends on.
    """

    fit: Fit
    rows: np.ndarray | None
    epoch: int | None
    context: Any

    def score(self, x: np.ndarray) -> np.ndarray:
        """Score at points x, both (m, d), in 1/[x]."""
        return self.fit.score(x, epoch=self.epoch, context=self.context)

    @cached_property
    def inside(self) -> np.ndarray:
        """Rows, (m, d), or points in the place of them, whose range is drawn."""
        if self.rows is not None:
            return _some(self.rows, ROWS)
        if self.fit.coordinates.is_identity:
            raise OptionError("the fit is not standardised, so nothing says where to draw: result.plot(x)")
        return self.fit.coordinates.inverse(stream(0, "picture").normal(size=(ROWS, self.fit.d)))

    @cached_property
    def psi(self) -> np.ndarray:
        """Score of the rows `inside`, (m, d)."""
        return self.score(self.inside)

    @property
    def dots(self) -> np.ndarray:
        """Rows to be drawn as dots, (m, d)."""
        return np.empty((0, self.fit.d)) if self.rows is None else self.inside[:DOTS]

    def title(self, drawn: str = "") -> str:
        """Objective, epoch, and what else there is to say of what is drawn."""
        stamp = best_stamp(self.fit) if self.epoch is None else f"epoch {self.epoch}"
        scale = f"noise scale {self.context:.3g}" if isinstance(self.context, float | int) else ""
        return f"{self.fit.objective.title}\n" + ", ".join(part for part in (stamp, scale, drawn) if part)

    def names(self, most: int = 18) -> list[str]:
        """Names of all columns as labels: those of a table, or x_1, x_2, ..."""
        if self.fit.feature_names is None:
            return [f"$x_{{{j + 1}}}$" for j in range(self.fit.d)]
        short = (name if len(name) <= most else f"{name[: most - 1]}…" for name in self.fit.feature_names)
        return [name.replace("$", r"\$") for name in short]


def _one_column(view: View) -> Figure:
    """Score and density; of a conditional score no density is known."""
    fit, context = view.fit, view.context
    figure = new_figure(size=(10.0, 4.2) if context is None else (6.0, 4.2))
    axes = figure.subplots(1, 2 if context is None else 1, squeeze=False)[0]
    curves = [score_fit(fit, None, view.rows, None, context)]
    if context is None:
        curves.append(density_fit(fit, None, view.rows, None))
    for ax, curve in zip(axes, curves, strict=True):
        curve.draw(styled(ax), view.epoch)
    return figure


def _two_columns(view: View) -> Figure:
    figure = new_figure(size=(6.4, 6.9))
    ax = styled(figure.add_subplot())
    box = _box(view.inside)
    _dots(ax, view.dots, view)
    held = _contours(ax, view, box)
    centres = _grid(box, ARROWS)
    _arrows(ax, centres, view.score(centres), box, ARROWS, r"fitted score $\psi$")
    _frame(ax, box, *view.names())
    figure.suptitle(view.title("" if held else "no density: a free field"), x=0.01, ha="left", fontsize=12, color=INK)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def _many_columns(view: View, chosen: Sequence[int]) -> Figure:
    k = len(chosen)
    figure = new_figure(size=(12.0, 9.6))
    parts: Any = figure.subfigures(2, 1, height_ratios=[6.6, 3.0])
    upper, lower = parts
    pairs, plane = upper.subfigures(1, 2, width_ratios=[1.25, 1.0])
    _pairs(pairs, view, chosen)
    _components(styled(plane.add_subplot()), view)
    for ax, column in zip(lower.subplots(1, k, squeeze=False)[0], chosen, strict=True):
        _along(styled(ax), view, column)
    lower.supylabel(r"score $\psi_i$  $[1/x_i]$", fontsize=11, color=INK)
    others = "" if k == view.fit.d else f"{k} of {view.fit.d} columns"
    figure.suptitle(view.title(others), x=0.01, ha="left", fontsize=12, color=INK)
    handles, labels = lower.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def _lines(view: View, chosen: Sequence[int]) -> Figure:
    """Without rows: each column's score along the line through the centre of the coordinates."""
    figure = new_figure(size=(2.4 * len(chosen), 3.4))
    low, high = _box(view.inside).T
    centre = view.fit.coordinates.inverse(np.zeros((1, view.fit.d)))[0]
    names = view.names()
    for ax, column in zip(figure.subplots(1, len(chosen), squeeze=False)[0], chosen, strict=True):
        points = np.tile(centre, (200, 1))
        points[:, column] = np.linspace(low[column], high[column], 200)
        styled(ax).plot(points[:, column], view.score(points)[:, column], color=FITTED, linewidth=2.0)
        _few_ticks(ax, names[column])
    figure.supylabel(r"score $\psi_i$  $[1/x_i]$", fontsize=11, color=INK)
    title = view.title("along lines through the centre; result.plot(x) draws the rows too")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    return figure


def _pairs(figure: Any, view: View, chosen: Sequence[int]) -> None:
    """Histograms of the columns, and below them the rows of every pair with the mean score of each cell."""
    k, names, box = len(chosen), view.names(10), _box(view.inside)
    axes = figure.subplots(k, k, squeeze=False)
    for i, j in np.ndindex(k, k):
        ax, across, up = axes[i, j], chosen[j], chosen[i]
        if j > i:
            ax.remove()
            continue
        styled(ax)
        if i == j:
            ax.hist(view.inside[:, up], bins=30, range=tuple(box[up]), color=SAMPLE)
            ax.set_xlim(*box[up])
            ax.set_yticks([])
        else:
            _dots(ax, view.dots[:, [across, up]], view, 1.5)
            _mean_arrows(ax, view.inside[:, [across, up]], view.psi[:, [across, up]], box[[across, up]], 6)
            ax.set(xlim=box[across], ylim=box[up])
        ax.grid(visible=False)
        ax.tick_params(labelsize=7, labelleft=0 == j < i, labelbottom=i == k - 1)
        ax.locator_params(nbins=3)
        ax.set_xlabel(names[across] if i == k - 1 else "", fontsize=9, color=INK)
        ax.set_ylabel(names[up] if j == 0 else "", fontsize=9, color=INK)
    figure.suptitle("pairs of columns, and their mean score", fontsize=11, color=INK)


def _components(ax: Axes, view: View) -> None:
    """The two strongest principal components u = W^T (x - mean) / scale, with E[W^T (scale psi) | u], the score of u's law."""
    mean, scale = view.inside.mean(axis=0), view.inside.std(axis=0)
    scale = np.where(scale > 0.0, scale, 1.0)
    z = (view.inside - mean) / scale
    _, sizes, directions = np.linalg.svd(z, full_matrices=False)
    shares, w = sizes**2 / np.sum(sizes**2), directions[:2].T
    u, psi = z @ w, (view.psi * scale) @ w
    box = _box(u)
    _dots(ax, u[: len(view.dots)], view)
    _mean_arrows(ax, u, psi, box, 11)
    _frame(ax, box, f"component 1, {shares[0]:.0%} of the variance", f"component 2, {shares[1]:.0%}")
    ax.set_title("the two strongest components, and their mean score", fontsize=11, color=INK)


def _along(ax: Axes, view: View, column: int) -> None:
    """A column's score at the rows, and its mean in bins of as many rows each."""
    at, psi = view.inside[:, column], view.psi[:, column]
    ax.plot(at[:DOTS], psi[:DOTS], ".", color=DOT, markersize=3, label="score at a row", rasterized=True)
    groups = [rows for rows in np.array_split(np.argsort(at, kind="stable"), BINS) if len(rows)]
    means = [(at[rows].mean(), psi[rows].mean()) for rows in groups]
    label = "its mean over rows of like $x_i$: the score of the column's own law"
    ax.plot(*np.transpose(means), ".-", color=FITTED, linewidth=2.0, markersize=6, label=label)
    ax.axhline(0.0, color=INK, linewidth=0.8)
    low, high = np.quantile(psi, [0.01, 0.99])
    ax.set(xlim=_box(at[:, None])[0], ylim=(low - 0.15 * (high - low), high + 0.15 * (high - low) or 1.0))
    _few_ticks(ax, view.names()[column])


def _few_ticks(ax: Axes, name: str) -> None:
    ax.locator_params(nbins=4)
    ax.tick_params(labelsize=9)
    ax.set_xlabel(name, fontsize=11, color=INK)


def _dots(ax: Axes, x: np.ndarray, view: View, size: float = 3.0) -> None:
    if view.rows is not None:
        n = len(view.rows)
        label = f"sample, n = {n}" if n <= DOTS else f"{DOTS} of {n} rows"
        ax.plot(x[:, 0], x[:, 1], ".", color=DOT, markersize=size, label=label, rasterized=True)


def _mean_arrows(ax: Axes, x: np.ndarray, psi: np.ndarray, box: np.ndarray, cells: int) -> None:
    """The mean of psi over the rows x, both (n, 2), of each cell of the box that holds `FEWEST` or more."""
    low, high = box.T
    place = np.floor((x - low) / (high - low) * cells).astype(np.int64)
    within = np.all((place >= 0) & (place < cells), axis=1)
    cell = place[within] @ [cells, 1]
    counts = np.bincount(cell, minlength=cells**2)
    full = counts >= FEWEST
    means = np.stack([np.bincount(cell, psi[within, k], cells**2)[full] / counts[full] for k in range(2)], axis=1)
    _arrows(ax, _grid(box, cells)[full], means, box, cells)


def _arrows(ax: Axes, at: np.ndarray, psi: np.ndarray, box: np.ndarray, cells: int, label: str = "") -> None:
    """Scores psi at points of a box as arrows that are no longer than a cell; all (m, 2). See `plot`."""
    span = box[:, 1] - box[:, 0]
    uphill = psi * span
    length = np.linalg.norm(uphill, axis=1, keepdims=True)
    usual = float(np.median(length)) if len(length) else 1.0
    step = 1.1 * span / cells * uphill / np.maximum(length + usual, np.finfo(float).tiny)
    look: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "pivot": "mid", "units": "width", "zorder": 3}
    ax.quiver(*at.T, *step.T, color=FITTED, width=0.045 / cells, headwidth=4.5, label=label, **look)


def _contours(ax: Axes, view: View, box: np.ndarray) -> bool:
    """Lines around `SHARES` of the fitted law, if it has a density."""
    if view.context is not None:
        return False
    points = _grid(box, CONTOUR_POINTS)
    try:
        log_p = view.fit.log_density(points, epoch=view.epoch)
    except DensityUnavailable:
        return False
    falling = np.sort(log_p)[::-1]
    held = np.cumsum(np.exp(falling)) * np.prod((box[:, 1] - box[:, 0]) / CONTOUR_POINTS)
    levels = sorted({float(falling[np.searchsorted(held, share)]) for share in SHARES if held[-1] > share})
    if levels:
        at = points.reshape(CONTOUR_POINTS, CONTOUR_POINTS, 2).transpose(2, 0, 1)
        widths = [0.8, 1.2, 1.7][-len(levels) :]
        ax.contour(*at, log_p.reshape(at[0].shape), levels, colors=TARGET, linewidths=widths, linestyles="solid")
        inside = ", ".join(f"{share:.0%}" for share in reversed(SHARES[-len(levels) :]))
        ax.plot([], [], color=TARGET, label=f"hold {inside} of the fit")
    return True


def _frame(ax: Axes, box: np.ndarray, across: str, up: str) -> None:
    ax.set(xlim=box[0], ylim=box[1], box_aspect=1.0)
    ax.grid(color=FAINT, linewidth=0.6)
    ax.set_xlabel(across, fontsize=11, color=INK)
    ax.set_ylabel(up, fontsize=11, color=INK)


def _box(x: np.ndarray) -> np.ndarray:
    """What of each column of x, (n, d), is drawn, (d, 2): all but far outliers, and a margin."""
    low, middle, high = np.quantile(x, [0.005, 0.5, 0.995], axis=0)
    far = 1.5 * np.maximum(high - low, np.finfo(float).tiny)
    low, high = np.maximum(x.min(axis=0), middle - far), np.minimum(x.max(axis=0), middle + far)
    margin = 0.08 * np.where(high > low, high - low, 1.0)
    return np.stack([low - margin, high + margin], axis=1)


def _grid(box: np.ndarray, count: int) -> np.ndarray:
    """Centres of count x count cells of a box, (count^2, 2), the second column the faster."""
    low, high = box.T
    middles = (np.arange(count) + 0.5) / count
    return np.asarray(low + (high - low) * np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2))


def _some(x: np.ndarray, most: int) -> np.ndarray:
    """Rows in an order that says nothing, (min(n, most), d)."""
    return x[stream(0, "picture").permutation(len(x))[:most]]


def _chosen(view: View, columns: Sequence[int | str] | None) -> list[int]:
    """Numbers of the columns to draw."""
    d, names = view.fit.d, view.fit.feature_names or ()
    if columns is None:
        return list(range(min(d, COLUMNS)))
    found = [names.index(column) if column in names else column for column in columns]
    known = all(isinstance(j, int | np.integer) and -d <= j < d for j in found)
    if isinstance(columns, str) or not known or not 2 <= len(set(found)) == len(found) <= 6:
        among = f", or names among {', '.join(names)}" if names else ""
        raise OptionError(f"columns must be two to six different numbers below {d}{among}, not {columns!r}")
    return [int(j) % d for j in found]

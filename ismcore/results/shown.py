"""How a result shows itself: as text, as HTML, and in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ismcore.backend.contract import Dtype
from ismcore.coordinates import Coordinates
from ismcore.models import Model
from ismcore.objectives import Objective
from ismcore.samples import html
from ismcore.samples.tables.parsed import some
from ismcore.training.baseline import Baseline
from ismcore.training.run_state import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ismcore.plotting.plots import Fit

__all__ = ["Shown"]

CANDIDATE = ("name", "weight", "status", "epochs", "best_epoch", "difference", "standard_error")
"""Columns of the table of candidates, see `ismcore.FitResult.candidates`."""


class Shown:
    """What `ismcore.FitResult` is shown by; its attributes are described there."""

    model: Model
    history: dict[str, np.ndarray]
    status: Status
    objective: Objective
    backend: str
    backend_reason: str
    device: str
    dtype: Dtype
    coordinates: Coordinates
    best_epoch: int
    baseline: Baseline | None
    candidates: tuple[dict[str, Any], ...]
    feature_names: tuple[str, ...] | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def plot(
        self: Fit,
        x: Any = None,
        *,
        columns: Sequence[int | str] | None = None,
        epoch: int | None = None,
        context: Any = None,
    ) -> Figure:
        """Draw the fit in one figure, whatever its number of columns d; Jupyter shows it as a cell's last line.

        d = 1: score and density. d = 2: the field and, of an energy, contours of the density. d > 2: pairs of columns, the two
        strongest components, and the score along each column. Without rows x the samples are missing, and for d > 2 there is
        only the score along each column, through the centre.

        Args:
            x: Rows to draw it over, (n, d) or (n,), in [x], such as the samples.
            columns: Numbers or names of two to six columns to draw, for d > 2; the first five if None.
            epoch: Draw the snapshot kept after this many epochs, not the fit's own parameters.
            context: What a conditional score depends on, see `score`; of a noise-conditional fit the smallest noise scale if
                None.

        Raises:
            OptionError: See `ismcore.plotting.plot`.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(300, 2))
            >>> result = ismcore.fit(x, backend="autograd", recipe="single", epochs=5, progress=False)
            >>> result.plot(x).savefig("fit.png")  # doctest: +SKIP
        """
        from ismcore import plotting

        return plotting.plot(self, x, columns=columns, epoch=epoch, context=context)

    def plot_score(
        self: Fit,
        *,
        ax: Axes | None = None,
        target: Any = None,
        sample: Any = None,
        epoch: int | None = None,
        grid: Any = None,
    ) -> Axes:
        """Draw the fitted score in one dimension, in 1/[x]; Jupyter shows it as a cell's last line.

        Args:
            ax: Where to draw; a new figure if None.
            target: Has `score`, in 1/[x], to compare with.
            sample: Samples to show at the foot, as a histogram that has no scale, (n,) or (n, 1), in [x].
            epoch: Draw the snapshot kept after this many epochs, not the parameters of `best_epoch`.
            grid: Points of the horizontal axis, (m,), increasing, in [x].

        Raises:
            OptionError: d > 1, or nothing says where to draw; see `ismcore.plotting.plot_score`.
        """
        from ismcore import plotting

        return plotting.plot_score(self, ax=ax, target=target, sample=sample, epoch=epoch, grid=grid)

    def plot_density(
        self: Fit,
        *,
        ax: Axes | None = None,
        target: Any = None,
        sample: Any = None,
        epoch: int | None = None,
        grid: Any = None,
    ) -> Axes:
        """Draw the density recovered from the fitted score in one dimension, in 1/[x]; Jupyter shows it as a cell's last line.

        Args:
            ax: Where to draw; a new figure if None.
            target: Has `pdf`, in 1/[x], to compare with.
            sample: Samples to show as a histogram on the density's own scale, (n,) or (n, 1), in [x].
            epoch: See `plot_score`.
            grid: Points of the horizontal axis, (m,), increasing, in [x].

        Raises:
            OptionError: d > 1, or nothing says where to draw; see `ismcore.plotting.plot_density`.
        """
        from ismcore import plotting

        return plotting.plot_density(self, ax=ax, target=target, sample=sample, epoch=epoch, grid=grid)

    def plot_loss(self: Fit, *, ax: Axes | None = None, published: tuple[Sequence[int], Sequence[float]] | None = None) -> Axes:
        """Draw training and held-out loss by epoch, in any dimension; Jupyter shows it as a cell's last line.

        Args:
            ax: Where to draw; a new figure if None.
            published: Epochs and losses to compare with, drawn as points.

        Raises:
            OptionError: No epoch was finished; see `ismcore.plotting.plot_loss`.
        """
        from ismcore import plotting

        return plotting.plot_loss(self, ax=ax, published=published)

    def __repr__(self) -> str:
        loss, held_out = self._losses()
        lines = [
            f"FitResult: {self.status} after {len(self.history['loss'])} epochs, loss {loss}{', ' * bool(held_out)}{held_out}",
            f"  model      {self.model!r}, d = {self.coordinates.d}",
            *([] if self.feature_names is None else [f"  columns    {some(self.feature_names)}"]),
            f"  objective  {self.objective!r}",
            f"  backend    {self.backend} ({self.backend_reason}), {self.dtype} on {self.device}",
            *([] if self.baseline is None else [f"  baseline   {self.baseline}"]),
            *(f"  warning    {text}" for text in self.warnings),
            *(f"  note       {text}" for text in self.notes),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        loss, held_out = self._losses()
        rows: list[tuple[str, object]] = [
            ("model", f"{self.model!r}, d = {self.coordinates.d}"),
            *([] if self.feature_names is None else [("columns", some(self.feature_names))]),
            ("objective", repr(self.objective)),
            ("loss", f"{loss}{', ' * bool(held_out)}{held_out}"),
            ("baseline", self.baseline),
            ("backend", f"{self.backend} ({self.backend_reason}), {self.dtype} on {self.device}"),
        ]
        kind: html.Kind = "good" if self.status in ("completed", "early_stopped") else "bad"
        candidates = [[row.get(key) for key in CANDIDATE] for row in self.candidates]
        notes = "".join(html.paragraph(text) for text in self.notes)
        return html.fragment(
            html.notice(kind, f"Fit {self.status.replace('_', ' ')}", f"{len(self.history['loss'])} epochs"),
            html.facts(row for row in rows if row[1] is not None),
            html.html_table([key.replace("_", " ") for key in CANDIDATE], candidates) if candidates else "",
            *(html.notice("bad", "warning", text) for text in self.warnings),
            html.details(f"{len(self.notes)} notes", notes) if notes else "",
        )

    def _losses(self) -> tuple[str, str]:
        """The last loss, and the lowest held-out one with its epoch, "" where there is none, in words."""
        loss = f"{self.history['loss'][-1]:.6g}" if len(self.history["loss"]) else "-"
        losses = self.history.get("validation_loss", np.empty(0))
        held_out = f"held-out loss {np.nanmin(losses):.6g} after {self.best_epoch}" if np.isfinite(losses).any() else ""
        return loss, held_out

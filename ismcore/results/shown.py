"""How a result shows itself: as text, as HTML, and in pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ismcore.errors import PlottingMissing
from ismcore.samples import html
from ismcore.samples.tables.parsed import some

if TYPE_CHECKING:
    from ismcore import plotting
    from ismcore.results.result import FitResult

__all__ = ["Shown", "made_of"]

CANDIDATE = ("name", "weight", "status", "epochs", "best_epoch", "difference", "standard_error")
"""Columns of the table of candidates, see `ismcore.FitResult.candidates`."""


class Picture:
    """A method that is the function of its name in `ismcore.plotting`, where its arguments are described.

    Matplotlib is loaded when it is first looked at, and where there is none, what is found says so once it is called.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, result: object, owner: type) -> Callable[..., Any]:
        function: Callable[..., Any]
        try:
            function = getattr(import_module("ismcore.plotting"), self.name)
        except PlottingMissing as error:
            function = partial(_refuse, error)
        return function if result is None else MethodType(function, result)


def _refuse(error: PlottingMissing, *_: object, **__: object) -> NoReturn:
    raise error


class Shown:
    """What `ismcore.FitResult`, the one class that derives from it, is shown by."""

    if TYPE_CHECKING:
        plot = plotting.plot
        plot_score = plotting.plot_score
        plot_density = plotting.plot_density
        plot_loss = plotting.plot_loss
    else:
        plot, plot_score, plot_density, plot_loss = Picture(), Picture(), Picture(), Picture()

    def __repr__(self: FitResult) -> str:  # type: ignore[misc]  # it is one
        sum_of = made_of(self.candidates)
        lines = [
            f"FitResult: {self.status}" + (f", {sum_of}" if sum_of else f" after {self._epochs()}, {self._losses()}"),
            f"  model      {self.model!r}, d = {self.coordinates.d}",
            *([] if self.feature_names is None else [f"  columns    {some(self.feature_names)}"]),
            f"  objective  {self.objective!r}",
            f"  backend    {self.backend} ({self.backend_reason}), {self.dtype} on {self.device}",
            *([] if self.baseline is None else [f"  baseline   {self.baseline}"]),
            *(f"  warning    {text}" for text in self.warnings),
            *(f"  note       {text}" for text in self.notes),
        ]
        return "\n".join(lines)

    def _repr_html_(self: FitResult) -> str:  # type: ignore[misc]  # it is one
        rows: list[tuple[str, object]] = [
            ("model", f"{self.model!r}, d = {self.coordinates.d}"),
            *([] if self.feature_names is None else [("columns", some(self.feature_names))]),
            ("objective", repr(self.objective)),
            ("loss", None if self.candidates else self._losses()),
            ("baseline", self.baseline),
            ("backend", f"{self.backend} ({self.backend_reason}), {self.dtype} on {self.device}"),
        ]
        kind: html.Kind = "good" if self.status in ("completed", "early_stopped") else "bad"
        candidates = [[row.get(key) for key in CANDIDATE] for row in self.candidates]
        notes = "".join(html.paragraph(text) for text in self.notes)
        return html.fragment(
            html.notice(kind, f"Fit {self.status.replace('_', ' ')}", made_of(self.candidates) or self._epochs()),
            html.facts(row for row in rows if row[1] is not None),
            html.html_table([key.replace("_", " ") for key in CANDIDATE], candidates) if candidates else "",
            *(html.notice("bad", "warning", text) for text in self.warnings),
            html.details(f"{len(self.notes)} notes", notes) if notes else "",
        )

    def _epochs(self: FitResult) -> str:  # type: ignore[misc]  # it is one
        return f"{len(self.history['loss'])} epochs"

    def _losses(self: FitResult) -> str:  # type: ignore[misc]  # it is one
        """The last loss, and the lowest held-out one with its epoch, in words; that of a fit in folds is in `baseline`."""
        found = [f"loss {self.history['loss'][-1]:.6g}" if len(self.history["loss"]) else "loss -"]
        losses = self.history.get("validation_loss", np.empty(0))
        if np.isfinite(losses).any():
            found.append(f"held-out loss {np.nanmin(losses):.6g} after {self.best_epoch}")
        return ", ".join(found)


def made_of(candidates: Sequence[Mapping[str, Any]]) -> str:
    """What a fit in folds is the sum of, with weights and the epochs after which they are taken; "" of another.

    Args:
        candidates: Rows of `ismcore.FitResult.candidates`.
    """
    return ", ".join(f"{row['weight']:.2g} of {row['name']}{_after(row)}" for row in candidates if row["weight"] > 0.0)


def _after(candidate: Mapping[str, Any]) -> str:
    return f" ({candidate['best_epoch']} epochs)" if "best_epoch" in candidate else ""

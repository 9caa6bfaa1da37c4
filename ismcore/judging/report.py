"""`FitResult.report`: one HTML page about a fit."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ismcore.errors import Diverged, IsmError, IsmWarning, OptionError
from ismcore.files.atomic import check_target, write_whole
from ismcore.judging.table import KINDS, Check
from ismcore.objectives import NoiseConditionalScoreMatching
from ismcore.samples import html
from ismcore.samples.checks import as_samples
from ismcore.samples.diagnosis import diagnose
from ismcore.samples.tables.frames import names_of

__all__ = ["load_again", "write_report"]

DRAWS = 2000
"""Draws of the fitted law beside the samples."""
PAGE_DPI = 130
"""Dots to the inch of the pictures."""
MOST_COLUMNS = 12
"""Columns of the table of means and standard deviations; those with the largest difference, where there are more."""

SCORE = (
    "The score of a law is the gradient of its log-density: at each point it says in which direction the density grows, and "
    "how steeply. It is 0 at a peak, points from a tail back to it, and needs no normalising constant. Score matching learns "
    "it from samples alone, so that one can draw, denoise, or judge other models with it."
)
"""What a score is, in three sentences."""


def write_report(
    result: Any, path: str | PathLike[str], x: Any = None, *, test: Any = None, saved_as: str | PathLike[str] | None = None
) -> None:
    """See `FitResult.report`."""
    from ismcore import plotting  # noqa: F401  (what is missing shall be missed now)

    check_target(Path(path))
    rows = None if x is None else as_samples(x, d=result.d, names=result.feature_names)
    check = _check(result, x, test)
    found = "" if rows is None else diagnose(x)._repr_html_()
    columns = f"d = {result.d}"
    parts = [
        html.notice(KINDS[check.verdict], check.verdict, check.why),
        html.paragraph(SCORE),
        html.heading("What was fitted, and how"),
        result._repr_html_(),
        html.heading("Pictures"),
        *_pictures(result, x),
        html.heading("The check"),
        check._repr_html_(),
        *([html.heading("The samples"), html.paragraph(f"{len(rows)} rows."), found] if rows is not None else []),
        html.heading("Draws of the fitted law"),
        *_draws(result, rows, result.feature_names or names_of(x)),
        html.heading("How to load it again"),
        load_again(result, saved_as),
    ]
    title = f"A fitted score, {columns}" if saved_as is None else f"{os.path.basename(os.fspath(saved_as))}, {columns}"
    write_whole(Path(path), html.page(title, *parts).encode())


def load_again(result: Any, saved_as: str | PathLike[str] | None) -> str:
    """The lines that load a fit, and what it was made by."""
    file = "fit.ismcore.safetensors" if saved_as is None else os.fspath(saved_as)
    first = f"result.save({file!r})  # where it was fitted\n\n" if saved_as is None else ""
    load = f"{first}import ismcore\n\nresult = ismcore.load({file!r})\n"
    lines = f"{load}result.score(x)  # x: (n, {result.d}), in the samples' units\n"
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    made = [("seed", str(result.seed)), ("run", result.run_id), ("versions", versions)]
    return html.code(lines) + html.facts([row for row in made if row[1]])


def _check(result: Any, x: Any, test: Any) -> Check:
    found: Check = result.check() if test is None else result.check(test, train=None if test is x else x)
    return found


def _pictures(result: Any, x: Any) -> Iterator[str]:
    from ismcore import plotting

    over = " over the samples" * (x is not None)
    if len(result.history["loss"]):
        caption = "Loss of every epoch, on the rows that it was trained on and on those held out; lower is better."
        loss = html.picture(plotting.to_png(result.plot_loss(), dpi=PAGE_DPI), caption)
    else:
        loss = html.notice("note", "No picture of the loss", "no epoch was finished")
    try:
        if result.d == 1 and not isinstance(result.objective, NoiseConditionalScoreMatching):
            score = html.picture(plotting.to_png(result.plot_score(sample=x), dpi=PAGE_DPI), f"The fitted score{over}.")
            density = html.picture(plotting.to_png(result.plot_density(sample=x), dpi=PAGE_DPI), f"The fitted density{over}.")
            yield html.columns(score, density, loss)
            return
        yield html.picture(plotting.to_png(result.plot(x), dpi=PAGE_DPI), f"The fit{over}.")
    except OptionError as error:  # nothing says where to draw, or the score is of a context
        yield html.notice("note", "No picture of the score", str(error))
    yield html.columns(loss, "")


def _draws(result: Any, x: np.ndarray | None, names: tuple[str, ...] | None) -> Iterator[str]:
    """Draws beside the samples: a picture, means and standard deviations, and whether the chains agree."""
    from ismcore import plotting

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IsmWarning)  # these are on the page
            annealed = isinstance(result.objective, NoiseConditionalScoreMatching)  # from noise, and from no rows
            draws = result.sample(DRAWS, start=None if annealed else x)
    except (IsmError, Diverged) as error:
        yield html.notice("bad", "No draws", str(error))
        return
    yield from (html.notice("bad", "warning", text) for text in draws.warnings)
    if x is not None:
        caption = "Draws of the fitted law beside the samples; where the fit is good, they look alike."
        yield html.picture(plotting.to_png(plotting.plot_beside(x, draws.x, names), dpi=PAGE_DPI), caption)
    yield _moments(x, draws.x, names or tuple(f"x_{j + 1}" for j in range(result.d)))
    yield html.facts(_chains(draws))


def _chains(draws: Any) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("draws", len(draws)), ("chains", draws.chains)]
    if math.isfinite(draws.acceptance):
        rows.append(("accepted", f"{draws.acceptance:.0%}"))
    if np.isfinite(draws.r_hat).any():
        rows.append(("R-hat, near 1 where the chains agree", f"at most {np.nanmax(draws.r_hat):.3f}"))
    if np.isfinite(draws.effective).any():
        rows.append(("effective number of draws", f"at least {np.nanmin(draws.effective):.0f}"))
    return rows


def _moments(x: np.ndarray | None, draws: np.ndarray, names: tuple[str, ...]) -> str:
    """Mean and standard deviation of each column, of the samples and of the draws."""
    if x is None:
        head, columns = ["", "mean", "standard deviation"], [draws.mean(axis=0), draws.std(axis=0)]
        order = np.arange(len(names))
    else:
        head = ["", "mean, samples", "mean, draws", "standard deviation, samples", "standard deviation, draws"]
        columns = [x.mean(axis=0), draws.mean(axis=0), x.std(axis=0), draws.std(axis=0)]
        spread = np.where(columns[2] > 0.0, columns[2], 1.0)
        order = np.argsort(-(np.abs(columns[1] - columns[0]) + np.abs(columns[3] - columns[2])) / spread, kind="stable")
    shown = np.sort(order[:MOST_COLUMNS])
    left = len(names) - len(shown)
    caption = f"The {len(shown)} columns that differ most, of {len(names)}" if left and x is not None else ""
    return html.html_table(head, [(names[j], *(float(column[j]) for column in columns)) for j in shown], caption)

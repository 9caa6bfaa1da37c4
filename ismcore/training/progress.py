"""Progress of a run: a live line by tqdm in a terminal or a notebook where it is installed; else a line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TextIO

import numpy as np

from ismcore.backend.processes import rank_and_world
from ismcore.errors import OptionError
from ismcore.training.events import FitEvent

__all__ = ["Progress", "reporter"]

Progress = bool | Literal["auto"]
"""Whether to show a run: see `reporter`."""
LIVE_SECONDS, SPARSE_SECONDS = 0.1, 2.0


class _Display(Protocol):
    def show(self, event: FitEvent) -> None: ...

    def close(self) -> None: ...


@contextmanager
def reporter(progress: Progress, stream: TextIO | None = None) -> Iterator[Callable[[FitEvent], object]]:
    """A listener for `ismcore.training.train`.

    Args:
        progress: True; False; or "auto": in a terminal or a notebook, unless `ISMCORE_PROGRESS=0`.
        stream: Where to write; standard error if None.

    Raises:
        OptionError: Another value of `progress`.
    """
    if progress not in (True, False, "auto"):
        raise OptionError(f"progress must be True, False or 'auto', not {progress!r}")
    out = sys.stderr if stream is None else stream
    live = out is not None and (out.isatty() or _in_notebook())
    off = progress is False or rank_and_world()[0] > 0  # one of several processes tells of a fit that they share
    if off or out is None or (progress == "auto" and not (live and os.environ.get("ISMCORE_PROGRESS") != "0")):
        yield lambda event: None
        return
    report = _Report(_bar(out) if live else _Lines(out))
    try:
        yield report
    finally:
        report.close()


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, whose output is no terminal, but shows a live line all the same."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", {})


class _Report:
    """Shows events until it cannot any more: a terminal that was closed costs no fit."""

    def __init__(self, display: _Display) -> None:
        self._display: _Display | None = display

    def __call__(self, event: FitEvent) -> None:
        self._do(lambda display: display.show(event))

    def close(self) -> None:
        self._do(lambda display: display.close())

    def _do(self, work: Callable[[_Display], None]) -> None:
        if self._display is None:
            return
        try:
            work(self._display)
        except (OSError, ValueError):  # the stream has gone, or was closed
            self._display = None


def _bar(out: TextIO) -> _Display:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Lines(out)

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread of its own beside a fit

    return _Bar(Bar, out)


class _Bar:
    """tqdm's bar over the epochs; one for each start, where there are several."""

    def __init__(self, bar: Callable[..., Any], out: TextIO) -> None:
        self._make, self._out, self._bar = bar, out, None

    def show(self, event: FitEvent) -> None:
        if event.kind == "start" or self._bar is None:
            self.close()
            options = {"total": event.epochs, "initial": event.epoch, "unit": "epoch", "dynamic_ncols": True}
            # Drawn by time alone: by default it is drawn when enough epochs are done, and so not at all while none is.
            self._bar = self._make(file=self._out, mininterval=LIVE_SECONDS, miniters=0, **options)
        bar: Any = self._bar
        bar.set_postfix_str(", ".join(_numbers(event)), refresh=False)
        bar.update(event.epoch - bar.n)  # backwards too, where a run goes back
        if event.kind == "end":
            bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines:
    """The same in plain text, a line every few seconds."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._last = out, float("-inf")

    def show(self, event: FitEvent) -> None:
        now = time.monotonic()
        if event.kind != "end" and (event.kind != "chunk" or now - self._last < SPARSE_SECONDS):
            return
        self._last = now
        left = f"{_clock(event.remaining)} left" if np.isfinite(event.remaining) and not event.status else ""
        parts = [f"epoch {event.epoch}/{event.epochs}", *_numbers(event), _clock(event.seconds), left or event.status]
        self._out.write(", ".join(filter(None, parts)) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing is open."""


def _numbers(event: FitEvent) -> list[str]:
    loss = [f"loss {event.losses[-1]:.5g}"] if len(event.losses) else []
    held_out = [f"held out {loss:.5g}" for loss in list(event.validation.values())[-1:]]
    return [*loss, *held_out, f"rate {event.learning_rate:.3g}"]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"

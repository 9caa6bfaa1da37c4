"""Progress of a run on standard error: one live line in a terminal, a sparse line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from ismcore.errors import OptionError
from ismcore.events import FitEvent

__all__ = ["reporter"]

LIVE_SECONDS, SPARSE_SECONDS = 0.1, 2.0


@contextmanager
def reporter(progress: bool | str, stream: TextIO | None = None) -> Iterator[Callable[[FitEvent], object]]:
    """A listener for `ismcore.training.train`.

    Args:
        progress: True; False; or "auto": in a terminal, unless `ISMCORE_PROGRESS=0`.
        stream: Where to write; standard error if None.

    Raises:
        OptionError: Another value of `progress`.
    """
    if progress not in (True, False, "auto"):
        raise OptionError(f"progress must be True, False or 'auto', not {progress!r}")
    out = sys.stderr if stream is None else stream
    live = out is not None and out.isatty()
    if progress is False or out is None or (progress == "auto" and not (live and os.environ.get("ISMCORE_PROGRESS") != "0")):
        yield lambda event: None
        return
    line = _Line(out, live)
    try:
        yield line
    finally:
        line.close()


class _Line:
    def __init__(self, out: TextIO, live: bool) -> None:
        self._out, self._live, self._last, self._open = out, live, float("-inf"), False

    def __call__(self, event: FitEvent) -> None:
        now = time.monotonic()
        wait = LIVE_SECONDS if self._live else SPARSE_SECONDS
        if event.kind == "start" or (event.kind == "chunk" and now - self._last < wait):
            return
        self._last = now
        loss = f"{event.losses[-1]:.6g}" if len(event.losses) else "-"
        text = f"epoch {event.epoch}/{event.epochs}  loss {loss}  {event.seconds:.1f} s  {event.status}".rstrip()
        self._out.write(f"\r{text:<72}" if self._live else f"{text}\n")
        self._out.flush()
        self._open = self._live

    def close(self) -> None:
        if self._open:
            self._out.write("\n")
            self._out.flush()

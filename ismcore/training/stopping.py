"""Ctrl-C during a run: the first one ends it after the steps in progress, a later one at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

from ismcore.backend.processes import gathered

__all__ = ["StopRequest", "interruptible"]

SAME = 0.5
"""Seconds within which a second Ctrl-C counts as the first."""


class StopRequest:
    """Whether a run is to end before its last epoch, and why.

    Args:
        timeout: Seconds after which it is, from now; None for never.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.interrupted = False
        self._interrupted_at = 0.0

    def interrupt(self) -> None:
        """Ask for the end.

        Raises:
            KeyboardInterrupt: It was asked for before, longer ago than one key press takes to arrive by several ways, as from a
                terminal and a supervisor.
        """
        now = time.monotonic()
        if self.interrupted and now - self._interrupted_at > SAME:
            raise KeyboardInterrupt
        if not self.interrupted:
            self.interrupted, self._interrupted_at = True, now

    @property
    def status(self) -> Literal["interrupted", "timed_out", ""]:
        """The status that the run is to end with: "interrupted", "timed_out", or "" to go on.

        Processes that share a fit end together: what one of them is asked, all do.
        """
        late = self.deadline is not None and time.monotonic() >= self.deadline
        asked = gathered(2.0 if self.interrupted else float(late)).max()
        return "interrupted" if asked == 2.0 else "timed_out" if asked else ""


@contextmanager
def interruptible(request: StopRequest) -> Iterator[None]:
    """Turn the first SIGINT into a request, a later one into `KeyboardInterrupt`; the handler found is put back.

    Only Python's own handler is replaced, and only in the main thread: who installed another one wants it called.
    """
    own = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not own:
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        request.interrupt()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

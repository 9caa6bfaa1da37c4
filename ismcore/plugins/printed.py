"""What plugins and their frameworks print, kept apart from what a command prints itself: Python's streams and C's."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import IO

__all__ = ["Printed", "folded", "stdout_to_stderr"]

STDOUT, STDERR = 1, 2


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Whatever is printed to standard output goes to standard error, by whatever code: a command's own output stays whole."""
    with _descriptors({STDOUT: STDERR}), redirect_stdout(sys.stderr):
        yield


class Printed:
    """What was printed while `folded` was open.

    Attributes:
        text: All of it, standard output and standard error; "" until it is closed.
    """

    text = ""

    def __str__(self) -> str:
        """How much it is, and its first line; "" where nothing was printed."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        if not lines:
            return ""
        return f"{len(lines)} line{'s' if len(lines) > 1 else ''} printed meanwhile, the first: {lines[0].strip()[:100]!r}"


@contextmanager
def folded() -> Iterator[Printed]:
    """Whatever is printed goes into a file, and is told of afterwards. A process that dies inside takes it along."""
    printed = Printed()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        try:
            places = dict.fromkeys((STDOUT, STDERR), file.fileno())
            with _descriptors(places), redirect_stdout(file), redirect_stderr(file):
                yield printed
        finally:
            file.flush()
            file.seek(0)
            printed.text = file.read()


@contextmanager
def _descriptors(places: dict[int, int]) -> Iterator[None]:
    """File descriptors stand for others meanwhile; one that is closed stays so."""
    _flush(sys.stdout, sys.stderr)
    kept: dict[int, int] = {}
    try:
        for one, other in places.items():
            with suppress(OSError):
                kept[one] = os.dup(one)
                os.dup2(other, one)
        yield
    finally:
        _flush()
        for one, copy in kept.items():
            os.dup2(copy, one)
            os.close(copy)


def _flush(*streams: IO[str] | None) -> None:
    """Write out what the streams, and those of C, hold back."""
    for stream in streams:
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)

"""What plugins and their frameworks print, kept apart from what a command prints itself: Python's streams and C's."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import IO, TextIO

__all__ = ["Printed", "folded", "stdout_to_stderr"]

STDOUT, STDERR = 1, 2


class Own:
    """A command's own standard output, while what others print there goes elsewhere. It holds nothing back."""

    def __init__(self, descriptor: int, encoding: str, errors: str) -> None:
        self._descriptor, self._encoding, self._errors = descriptor, encoding, errors

    def write(self, text: str) -> None:
        """Write the text.

        Raises:
            OSError: Nobody reads it, or there is no place.
        """
        left = memoryview(text.encode(self._encoding, self._errors))
        while left:
            left = left[os.write(self._descriptor, left) :]

    def flush(self) -> None:
        """Nothing is held back."""


@contextmanager
def stdout_to_stderr() -> Iterator[Own | TextIO]:
    """What is printed to standard output goes to standard error, by whatever code; given is what goes there still."""
    own = sys.stdout
    with _descriptors({STDOUT: STDERR}) as kept, redirect_stdout(sys.stderr):
        direct = _descriptor(own) == STDOUT and STDOUT in kept
        yield Own(kept[STDOUT], own.encoding, own.errors or "strict") if direct else own


def _descriptor(stream: TextIO) -> int | None:
    """The file descriptor that a stream writes to; None where it is none of the system's, as in a notebook."""
    with suppress(OSError, ValueError, AttributeError):
        return stream.fileno()
    return None


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
def _descriptors(places: dict[int, int]) -> Iterator[dict[int, int]]:
    """File descriptors stand for others meanwhile; given are copies of what they stood for. One that is closed stays so."""
    _flush(sys.stdout, sys.stderr)
    kept: dict[int, int] = {}
    try:
        for one, other in places.items():
            with suppress(OSError):
                kept[one] = os.dup(one)
                os.dup2(other, one)
        yield kept
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

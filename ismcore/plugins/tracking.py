"""A tracker that is always there: the events of runs as lines of JSON, in a file that every tool can follow.

It is a callback, `JsonLines`; and an observer of all fits of a process, once `ISMCORE_EVENTS` in the environment names a file.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from datetime import UTC, datetime
from os import PathLike

from ismcore.errors import FileNotWritten, OptionError
from ismcore.hookspecs import hookimpl
from ismcore.training.events import FitEvent
from ismcore.training.warning import warn_now

__all__ = ["JsonLines", "ismcore_fit_event"]

LONGEST = 2**16
"""Bytes of a line, at most."""


class JsonLines:
    """A callback that appends each event of a run to a file, as a line of JSON that is there when the next step begins.

    The line is `FitEvent.as_dict()`, and "time", the date and time in UTC. Runs may share a file, also at once: each line is
    written in one go, and "run" tells whose it is. The file is open only while a line is written.

    A line that cannot be written, as on a full disk, costs the run nothing: that is said once, and the next run tries again.

    Args:
        path: The file; lines go to its end. It is made if it is not there, and must hold such lines if it is.

    Raises:
        OptionError: `path` is no path.
        FileNotWritten: Nothing can be written there, or the file is of another kind.

    Example:
        >>> import json, tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "events.jsonl")
        ...     tracker = ismcore.JsonLines(path)
        ...     x, options = np.linspace(0.0, 1.0, 100), {"backend": "autograd", "epochs": 5, "callbacks": [tracker]}
        ...     result = ismcore.fit(x, model=ismcore.Affine(), **options)
        ...     lines = path.read_text().splitlines()
        >>> [(event["kind"], event["epoch"]) for event in map(json.loads, [lines[0], *lines[-2:]])]
        [('start', 0), ('chunk', 5), ('end', 5)]
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        if not isinstance(path, str | PathLike) or not os.fspath(path):
            raise OptionError(f"JsonLines takes the path of a file, not {path!r}")
        self.path = path
        self._lost = False
        self._append(b"")

    def __call__(self, event: FitEvent) -> None:
        """Write the event."""
        if self._lost and event.kind != "start":
            return
        try:
            self.write(event)
            self._lost = False
        except FileNotWritten as error:
            self._lost = True
            warn_now(f"{self!r} is detached, and the fit goes on: {error}")

    def write(self, event: FitEvent) -> None:
        """Write the event, or raise `FileNotWritten`."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **event.as_dict()}
        self._append(json.dumps(line, allow_nan=False).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                last = _last_line(descriptor)
                if last and not last.startswith(b"{"):
                    raise OSError(errno.EEXIST, "its last line is no event, so it is a file of another kind; name a new one")
                if data and last and not last.endswith(b"\n"):  # as a full disk leaves it
                    data = b"\n" + data
                while data:
                    data = data[os.write(descriptor, data) :]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise FileNotWritten(error.errno, f"cannot be written: {error.strerror}", os.fspath(self.path)) from error

    def __repr__(self) -> str:
        return f"JsonLines({os.fspath(self.path)!r})"


def _last_line(descriptor: int) -> bytes:
    """The last line of a file, with its end; b"" of an empty one, and of a pipe or a device."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return b""
    os.lseek(descriptor, max(0, found.st_size - LONGEST), os.SEEK_SET)
    return os.read(descriptor, LONGEST).splitlines(keepends=True)[-1]


@hookimpl
def ismcore_fit_event(event: FitEvent) -> None:
    """Write an event of any fit to the file that `ISMCORE_EVENTS` names; read at each event, so that it can be set late."""
    path = os.environ.get("ISMCORE_EVENTS")
    if path:
        JsonLines(path).write(event)

"""Temporary files beside the file that they are to become.

A process that is killed while it writes leaves its temporary file behind; the next save of the same path removes it. That no
other process still writes it is known by a lock, which the system takes from a process that dies.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where what a process holds open cannot be removed; there, only what is an hour old is litter
    fcntl = None  # type: ignore[assignment]

__all__ = ["Temporary", "remove_litter", "second_name"]

LITTER_SECONDS = 3600.0


class Temporary:
    """A new file in the target's folder, locked by this process, and gone at the end unless it took another name."""

    def __init__(self, target: Path) -> None:
        while True:
            # Not the tempfile module: its files are for the owner alone, whatever the umask says.
            self.path = _temporary_name(target)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._descriptor: int | None = os.open(self.path, flags, 0o666)
            # Whoever removes litter may have come between the two calls, and have taken the file for such.
            if _lock(self._descriptor) and self.path.exists():
                return
            self._close()

    def write(self, data: bytes) -> None:
        """Write the bytes, and wait until they have reached the disk."""
        left = memoryview(data)
        while left and self._descriptor is not None:
            left = left[os.write(self._descriptor, left) :]
        if self._descriptor is not None:
            os.fsync(self._descriptor)
        if fcntl is None:  # Windows renames no open file; elsewhere, the lock is held until the new name is taken
            self._close()

    def __enter__(self) -> Temporary:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()
        with suppress(OSError):
            os.unlink(self.path)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def _lock(descriptor: int) -> bool:
    """Lock a new file, until it is closed or this process ends; whether nobody else has."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where litter is left lying
        return True
    return True


def _temporary_name(target: Path) -> Path:
    return target.with_name(f"{_temporary_prefix(target)}{secrets.token_hex(8)}.tmp")


def _temporary_prefix(target: Path) -> str:
    # The digest, as the name itself may leave no room for anything beside it.
    return f".ismcore-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"


def remove_litter(target: Path) -> None:
    """Remove the temporary files that killed saves of this target have left; what goes wrong here is no matter."""
    prefix = _temporary_prefix(target)
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(".tmp") and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_unless_locked(entry)


def _remove_unless_locked(entry: os.DirEntry[str]) -> None:
    if fcntl is None:
        if time.time() - entry.stat().st_mtime > LITTER_SECONDS:
            os.unlink(entry.path)
        return
    descriptor = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        # Raises where a save that is under way holds the lock. Its file may have taken the target's name meanwhile, and be
        # locked here without harm: it is the temporary name that is removed, never the file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(entry.path)
    finally:
        os.close(descriptor)


@contextmanager
def second_name(target: Path, *, wanted: bool) -> Iterator[Path | None]:
    """A second name for the file that is now at the target, gone at the end unless it was taken; None if there is no file."""
    if not wanted or not os.path.exists(target):
        yield None
        return
    name = _temporary_name(target)
    try:
        try:
            os.link(target, name)
        except OSError:  # a file system without hard links
            with open(target, "rb") as stream, Temporary(target) as copy:
                copy.write(stream.read())
                os.replace(copy.path, name)
        yield name
    finally:
        with suppress(OSError):
            os.unlink(name)

"""Temporary files beside the file that they are to become.

A process that is killed while it writes leaves its temporary file behind; the next save of the same path removes it. That no
other process still writes it is known by a lock, which the system takes from a process that dies.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
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
    """A new file in the target's folder, locked by this process, and gone at the end unless it took another name.

    It has the mode of the file that is at the target, and its owner where that can be; else mode 0600 if it is to be private,
    and what the umask says if not.
    """

    def __init__(self, target: Path, *, private: bool = False) -> None:
        while True:
            # Not the tempfile module: its files are for the owner alone, whatever the umask says.
            self.path = _temporary_name(target)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            replaced = _stat(target)
            mode = 0o600 if private or replaced is not None else 0o666
            self._descriptor: int | None = os.open(self.path, flags, mode)
            # Whoever removes litter may have come between the two calls, and have taken the file for such.
            if _lock(self._descriptor) and self.path.exists():
                break
            self._close()
        if replaced is not None and fcntl is not None:
            _give_rights(self._descriptor, replaced)

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


def _stat(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return os.stat(path)
    return None


def _give_rights(descriptor: int, as_of: os.stat_result) -> None:
    """Owner, group and mode of another file, as far as this process may; never more rights for others than that file gives."""
    mode = stat.S_IMODE(as_of.st_mode) & 0o777
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (as_of.st_uid, as_of.st_gid):
        try:
            os.fchown(descriptor, as_of.st_uid, as_of.st_gid)
        except OSError:
            mode &= 0o707 if mine.st_gid != as_of.st_gid else 0o777  # its group's rights are not another group's
    with suppress(OSError):
        os.fchmod(descriptor, mode)


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
def second_name(path: Path, target: Path) -> Iterator[Path]:
    """A second name for a file, one of the target's temporary ones, gone at the end unless it was taken.

    Raises:
        FileNotFoundError: There is no file.
    """
    name = _temporary_name(target)
    try:
        try:
            os.link(path, name)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            with open(path, "rb") as stream, Temporary(target) as copy:
                copy.write(stream.read())
                os.replace(copy.path, name)
        yield name
    finally:
        with suppress(OSError):
            os.unlink(name)

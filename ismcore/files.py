"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from os import PathLike
from pathlib import Path

__all__ = ["check_target", "write_whole"]


def check_target(path: str | PathLike[str]) -> Path:
    """The file that a path stands for, links followed, once it is known that one can be written there.

    Raises:
        OSError: There is no such folder, it is not writable, or there is something there that is no file.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "cannot be written: there is no such folder", os.fspath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "cannot be written: it is a folder", os.fspath(path))
    if target.exists() and not target.is_file():  # the replacing would destroy a device or a pipe
        raise OSError(errno.EINVAL, "cannot be written: it is no regular file", os.fspath(path))
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written: its folder is read-only", os.fspath(path))
    return target


def write_whole(path: str | PathLike[str], data: bytes) -> None:
    """Write the bytes to a file that is, at any moment and after any failure, either the old one or the new one.

    They go to a temporary file in the same folder, reach the disk, and take the name in one step.

    Args:
        path: The file; its folder must be there.
        data: What it shall hold.

    Raises:
        OSError: The folder is missing, full or not writable, or the path is no file's; what was there is as it was.
    """
    target = check_target(path)
    # Not the tempfile module: its files are for the owner alone, whatever the umask says.
    temporary = target.with_name(f".ismcore-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"cannot be written: {error.strerror}", os.fspath(path)) from error
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Have the folder's new entry reach the disk too; Windows cannot open a folder, and does so by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

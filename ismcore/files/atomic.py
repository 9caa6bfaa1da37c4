"""Writing files whole or not at all, and keeping the ones before them.

A file is written under a temporary name in its own folder, reaches the disk, and takes its name in one step. Whatever happens
on the way, and be it a power cut, the name stands for the old content or for the new one, never for a part.

A process that is killed while it writes leaves its temporary file behind; the next save of the same path removes it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Generic, TypeVar

from ismcore.errors import FileInvalid, FileNotWritten, OptionError
from ismcore.files.tempfiles import Temporary, remove_litter, second_name

__all__ = [
    "Newest",
    "check_kept",
    "check_target",
    "newest_valid",
    "path_of",
    "previous_files",
    "write_first",
    "write_kept",
    "write_whole",
]

T = TypeVar("T")

ADVICE = {
    errno.ENOSPC: "free some space, or name a file on another disk",
    errno.EDQUOT: "free some of your quota, or name a file on another disk",
    errno.EFBIG: "raise the limit on the size of files, or name a file on another disk",
    errno.EACCES: "change the rights of the folder, or name a file in another one",
    errno.EPERM: "change the rights of the folder, or name a file in another one",
    errno.EROFS: "name a file in a folder that can be written to",
    errno.ENAMETOOLONG: "name it shorter",
}
"""What to do about an error, by its number."""


def path_of(path: str | PathLike[str]) -> str:
    """A path as text.

    Raises:
        OptionError: It is something else.
    """
    if not isinstance(path, str | PathLike):
        raise OptionError(f"a file must be named by a path, text or a pathlib.Path, not by {path!r:.80}")
    return os.fspath(path)


def check_target(path: str | PathLike[str]) -> Path:
    """The file that a path stands for, links followed, once it is known that one can be written there.

    Raises:
        FileNotWritten: There is no such folder, it is not writable, there is something there that is no file, the path is a
            link of another user in a folder that others can write to, which may lead to any file of this one, or nothing can
            have that path.
    """
    path = path_of(path)
    try:
        planted, target = _is_planted(path), Path(os.path.realpath(path))
    except ValueError as error:  # a zero byte
        raise _not_written(path, errno.EINVAL, f"it is no path: {error}") from error
    except OSError as error:  # a relative path in a folder that is removed
        reason = "the working folder is not there any more; name the file by its whole path"
        raise _not_written(path, error.errno, reason) from error
    if planted:
        raise _not_written(path, errno.EPERM, "it is another user's link in a folder that others can write to; remove it")
    # Those of os.path say no where those of Path would raise, as of a name that is too long.
    if not os.path.isdir(target.parent):
        raise _not_written(path, errno.ENOENT, "there is no such folder; make it, or name a file in another one")
    if os.path.isdir(target):
        raise _not_written(path, errno.EISDIR, "it is a folder; name a file in it")
    if os.path.exists(target) and not os.path.isfile(target):  # the replacing would destroy a device or a pipe
        raise _not_written(path, errno.EINVAL, "it is no regular file; name another one")
    if not os.access(target.parent, os.W_OK):
        raise _not_written(path, errno.EACCES, f"its folder is read-only; {ADVICE[errno.EACCES]}")
    return target


def _is_planted(path: str | PathLike[str]) -> bool:
    """Whether the path is a link that neither this user nor the folder's owner made, where others can make some."""
    with suppress(OSError, AttributeError):  # no such file; a system without users
        link, folder = os.lstat(path), os.stat(os.path.dirname(os.path.abspath(path)))
        shared = bool(folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
        return stat.S_ISLNK(link.st_mode) and shared and link.st_uid not in (os.geteuid(), folder.st_uid)
    return False


def write_whole(path: str | PathLike[str], data: bytes) -> None:
    """Write the bytes to a file that is, at any moment and after any failure, either the old one or the new one.

    A file that replaces another one has its mode, and where the system allows it its owner and group; access control lists
    and extended attributes are not kept. A new one has what the umask says.

    Args:
        path: The file; its folder must be there.
        data: What it shall hold.

    Raises:
        FileNotWritten: The folder is missing, full or not writable, or the path is no file's; what was there is as it was,
            unless the message says otherwise.
    """
    _write(path, data, None)


def write_kept(path: str | PathLike[str], data: bytes, keep: int, *, keep_newest: bool = True) -> None:
    """Write as `write_whole` does, and keep what was there before as `PATH.previous1`, before that `PATH.previous2`, ...

    At any moment and after any failure, the newest file and `PATH.previous1` each are there and whole, once they were: the new
    bytes have reached the disk before a name changes, the file that is there then gets its second name, and last the new one
    takes the first. No file is copied where the file system has hard links. Where processes save one path at once, every file
    is whole, but which older ones stay is open. A new file is its owner's alone (mode 0600); see `write_whole` for others.

    Args:
        path: The file; its folder must be there.
        data: What it shall hold.
        keep: How many files to keep, from 1, the new one among them; older ones are removed.
        keep_newest: Whether the file that is there is worth to be kept; False where it is damaged.

    Raises:
        FileNotWritten: As of `write_whole`; or a folder has the name of a file to be kept.
        OptionError: `keep` is no whole number from 1.
    """
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise OptionError(f"keep must be a whole number from 1, not {keep!r}")
    _write(path, data, keep, keep_newest=keep_newest)


def check_kept(path: str | PathLike[str]) -> Path:
    """As `check_target`, for `write_kept`.

    Raises:
        FileNotWritten: As of `check_target`; or a folder has the name of a file to be kept.
    """
    target = check_target(path)
    for name in previous_files(target):
        if name.is_dir():
            raise _not_written(
                path, errno.EISDIR, f"{name.name} beside it is a folder, and the name of a file to be kept; move it"
            )
    return target


def write_first(path: str | PathLike[str], data: bytes) -> list[Path]:
    """Write a file where none is, so that of several processes one does; files that `write_kept` left there are set aside.

    Args:
        path: The file; its folder must be there.
        data: What it shall hold.

    Returns:
        The new names of those set aside, `PATH.<number>.previous1`, ..., where nothing takes them for this file's.

    Raises:
        FileExistsError: There is one.
        FileNotWritten: As of `write_kept`.
    """
    target = check_kept(path)
    try:
        remove_litter(target)
        with Temporary(target, private=True) as temporary:
            temporary.write(data)
            try:
                os.link(temporary.path, target)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
                os.replace(temporary.path, target)
        aside = _set_aside(target)
        _sync_folder(target.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise _not_written(path, error.errno, (error.strerror or str(error)) + _advice(error)) from error
    return aside


def _set_aside(target: Path) -> list[Path]:
    """Rename the files kept beside a target, all by the first number that is free."""
    kept, moved = previous_files(target), []
    number = 1
    while any(os.path.lexists(target.with_name(f"{target.name}.{number}{_ending(name, target)}")) for name in kept):
        number += 1
    for name in kept:
        with suppress(FileNotFoundError):
            os.replace(name, target.with_name(f"{target.name}.{number}{_ending(name, target)}"))
            moved.append(target.with_name(f"{target.name}.{number}{_ending(name, target)}"))
    return moved


def _ending(name: Path, target: Path) -> str:
    return name.name.removeprefix(target.name)


@dataclass(frozen=True)
class Newest(Generic[T]):
    """What `newest_valid` found.

    Attributes:
        value: What was read.
        path: The file that it was read from.
        refused: Newer files that could not be read, or are missing, with the reasons; empty where the newest is well.
    """

    value: T
    path: Path
    refused: dict[Path, Exception]


def newest_valid(path: str | PathLike[str], read: Callable[[Path], T]) -> Newest[T]:
    """Read the newest of the files that `write_kept` keeps which can be read.

    Args:
        path: The path given to `write_kept`.
        read: Reads and verifies a file; raises `FileInvalid` or OSError where it cannot. Other errors are passed on at once.

    Raises:
        FileNotFoundError: There is none.
        FileInvalid: None of those that are there can be read; the message names each, with the reason.
    """
    target = Path(os.path.realpath(path_of(path)))
    refused: dict[Path, Exception] = {}
    for candidate in (target, *previous_files(target)):
        try:
            return Newest(read(candidate), candidate, refused)
        except FileNotFoundError as error:
            if candidate == target:
                refused[candidate] = error
        except (FileInvalid, OSError) as error:
            refused[candidate] = error
    if isinstance(refused.get(target), FileNotFoundError) and len(refused) == 1:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    reasons = "; ".join(f"{candidate}: {error}" for candidate, error in refused.items())
    raise FileInvalid(f"none of the {len(refused)} files kept can be read: {reasons}")


def previous_files(path: str | PathLike[str]) -> list[Path]:
    """The files that `write_kept` has kept beside the one at the path, newest first."""
    target = Path(os.path.realpath(path))
    pattern = re.compile(re.escape(f"{target.name}.previous") + "([1-9][0-9]{0,8})")
    with suppress(OSError):
        numbered = [(int(found[1]), name) for name in os.listdir(target.parent) if (found := pattern.fullmatch(name))]
        return [target.with_name(name) for _, name in sorted(numbered)]
    return []


def _write(path: str | PathLike[str], data: bytes, keep: int | None, *, keep_newest: bool = True) -> None:
    """The one way to the disk; files kept beside the target are left alone where `keep` is None."""
    target = check_target(path) if keep is None else check_kept(path)
    named = False
    try:
        remove_litter(target)
        with Temporary(target, private=keep is not None) as temporary:
            temporary.write(data)
            if keep is not None:
                _shift(target, keep, keep_newest=keep_newest)
            os.replace(temporary.path, target)
            named = True
        _sync_folder(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        if named:
            raise FileNotWritten(error.errno, f"is written, but a power cut may undo it: {reason}", os.fspath(path)) from error
        raise _not_written(path, error.errno, reason + _advice(error)) from error


def _not_written(path: str | PathLike[str], number: int | None, reason: str) -> FileNotWritten:
    return FileNotWritten(number, f"cannot be written: {reason}", os.fspath(path))


def _advice(error: OSError) -> str:
    return f"; {ADVICE[error.errno]}" if error.errno in ADVICE else ""


def _shift(target: Path, keep: int, *, keep_newest: bool) -> None:
    """Give the file at the target the number 1 beside its name, and those before it the next ones; drop the oldest.

    A file gets its new name before it loses the old one, from the oldest on, so that no number is free in between.
    """
    kept = previous_files(target)
    # A save that was killed just here has left the newest file with both names.
    if keep_newest and os.path.exists(target) and not (kept and os.path.samefile(kept[0], target)):
        kept.insert(0, target)
    names = [target.with_name(f"{target.name}.previous{number}") for number in range(1, keep)]
    for path, name in reversed(list(zip(kept, names, strict=False))):
        # A file that is gone was moved by another process that saves here.
        if path != name:
            with suppress(FileNotFoundError), second_name(path, target) as second:
                os.replace(second, name)
    for path in kept:
        if path not in (target, *names):
            with suppress(FileNotFoundError):
                os.unlink(path)


def _sync_folder(folder: Path) -> None:
    """Have the folder's new entry reach the disk too; Windows cannot open a folder, and does so by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such call
            raise
    finally:
        os.close(descriptor)

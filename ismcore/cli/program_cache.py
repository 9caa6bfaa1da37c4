"""What JAX compiles is kept for the next process of the command, in a folder of the user's alone."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from ismcore.cli.files import complain

__all__ = ["keep_compiled_programs"]

CACHE_BYTES = 2**30
"""Size of the folder of compiled programs."""


def keep_compiled_programs() -> None:
    """Have JAX keep what it compiles for the next process, in the user's cache folder; `ISMCORE_CACHE=0` leaves it be.

    Only where this is a process of its own, and JAX has not been imported or told otherwise: its settings are the process's.
    The folder holds programs that are run as they are found there: it is made for its owner alone, and one of somebody else,
    or that others can write to, is not used. Beyond `CACHE_BYTES` the entries go that were not used for longest.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    given = "JAX_COMPILATION_CACHE_DIR" in os.environ
    if os.environ.get("ISMCORE_CACHE") == "0" or "jax" in sys.modules or given or not os.path.isabs(base):
        return
    folder = os.path.join(base, "ismcore", "jax")
    if not is_own_folder(folder):
        return
    prune(folder, CACHE_BYTES)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def is_own_folder(folder: str) -> bool:
    """Whether a folder, which is made if it is not there, and the one above it belong to this user alone."""
    try:
        os.makedirs(os.path.dirname(os.path.dirname(folder)), exist_ok=True)
        for place in (os.path.dirname(folder), folder):
            with suppress(FileExistsError):
                os.mkdir(place, 0o700)
            found = os.lstat(place)
            if not stat.S_ISDIR(found.st_mode) or (os.name != "nt" and (found.st_uid != os.geteuid() or found.st_mode & 0o022)):
                complain(f"warning: {place} is not this user's alone, so that no compiled programs are kept there")
                return False
    except OSError:
        return False
    return True


def prune(folder: str, most: int) -> None:
    """Remove the files of a folder that were not used for longest, until the others are of so many bytes at most."""
    with suppress(OSError), os.scandir(folder) as entries:
        files = [(entry.stat(follow_symlinks=False), entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
        left = sum(found.st_size for found, _ in files)
        for found, path in sorted(files, key=lambda file: max(file[0].st_atime, file[0].st_mtime)):
            if left <= most:
                return
            with suppress(OSError):
                os.unlink(path)
            left -= found.st_size

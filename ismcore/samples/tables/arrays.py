"""Arrays from .npy and .npz files, of which no more is allocated than the file holds."""

from __future__ import annotations

import math
import os
import zipfile
from typing import IO

import numpy as np
from numpy.lib import format

from ismcore.errors import SamplesError
from ismcore.samples.tables.opening import PIECE, damage_named, member_of, memory, regular

__all__ = ["read_array_file"]


def read_array_file(path: str) -> np.ndarray:
    """The array of a .npy file, or the only one of a .npz file, or that called "x".

    Raises:
        SamplesError: It is damaged, holds no plain numbers, or more than fit into memory.
    """
    with regular(path) as stream, damage_named():
        magic = stream.read(6)
        stream.seek(0)
        if magic == format.MAGIC_PREFIX:
            return _read_array(stream, os.fstat(stream.fileno()).st_size)
        if magic.startswith(b"PK"):
            with zipfile.ZipFile(stream) as archive:
                names = {name.removesuffix(".npy"): name for name in archive.namelist()}
                member = names[_member(list(names))]
                with member_of(archive, member) as inner:
                    return _read_array(inner, archive.getinfo(member).file_size)
    raise SamplesError("it is no .npy or .npz file, whatever its name says")


def _read_array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array of a .npy stream of so many bytes, read by position: what is allocated is what the stream is known to hold.

    No memory map: another process that shortens the file would end this one by a signal.
    """
    version = format.read_magic(stream)
    read_header = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}.get(version)
    if read_header is None:
        raise SamplesError("it is a .npy file of a version for named fields, and samples have none")
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject or not all(type(length) is int and length >= 0 for length in shape):
        raise SamplesError("it is damaged, or holds no plain numbers")  # pickled objects are code: never
    claimed, room = math.prod(shape) * dtype.itemsize, memory()
    if claimed > size - 8:
        raise SamplesError(f"it is damaged: its header claims {claimed} bytes of numbers, and it holds {size}")
    if room is not None and claimed > room // 2:
        raise SamplesError(f"its {claimed} bytes of numbers, and a copy, do not fit into the {room} bytes of memory here")
    found = np.empty(shape[::-1] if fortran else shape, dtype)
    left = memoryview(found.reshape(-1).view(np.uint8).data) if claimed else memoryview(b"")
    while left:
        part = stream.read(min(len(left), PIECE))
        if not part:
            raise SamplesError(
                f"it is damaged, or was being written: {len(left)} of its {claimed} bytes of numbers are missing"
            )
        left[: len(part)] = part
        left = left[len(part) :]
    return found.T if fortran else found


def _member(names: list[str]) -> str:
    if "x" in names:
        return "x"
    if len(names) != 1:
        held = ", ".join(names[:10]) + (f" and {len(names) - 10} others" if len(names) > 10 else "")
        raise SamplesError(f"it must hold one array, or one called 'x'; it holds {held[:500] or 'none'}")
    return names[0]

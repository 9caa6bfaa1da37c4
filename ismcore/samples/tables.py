"""Samples from files: .npy, .npz and text tables. What is no number is named, with its line; nothing is guessed silently."""

from __future__ import annotations

import csv
import errno
import math
import os
import re
import stat
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format

from ismcore.errors import SamplesError
from ismcore.samples.checks import as_samples

__all__ = ["memory", "read_labels", "read_samples"]

PIECE = 2**20
"""Bytes that are read of an array at once."""

_Row = tuple[int, list[str]]
"""Number of a line, counted from 1, and its cells."""


def read_samples(path: str | PathLike[str], *, columns: Sequence[int] | None = None, without: int | None = None) -> np.ndarray:
    """Samples from a file, (n, d), float64, in the file's units.

    `.npy`: one array, (n, d) or (n,). `.npz`: its only array, or the one called "x". `.csv`, `.tsv`, `.txt`: a table, one
    row a line, its cells separated by semicolons, tabs, commas or white space, with or without a line of names above;
    empty lines and lines that start with "#" are passed over. Numbers have a decimal point.

    Args:
        path: The file.
        columns: The columns to keep, in this order, counted from 0; all if None.
        without: Where all are kept, the one that is not.

    Raises:
        SamplesError: The file holds no such samples; the message names the file, and where it can the line and the column.
        OSError: There is no such file, or it cannot be read.
    """
    name = os.fspath(path)
    try:
        if _is_numpy(name):
            return as_samples(_select(_read_numpy(name), columns, without), copy=False)
        return as_samples(_read_table(name, columns, without), copy=False)
    except SamplesError as error:
        raise SamplesError(f"{name}: {error}") from error


def read_labels(path: str | PathLike[str], n: int, *, column: int | None = None) -> np.ndarray:
    """A label of each of n samples from a file as `read_samples` takes it, (n,): numbers, or text as it stands in a table.

    Args:
        path: The file.
        n: Samples. A table of one line more has a line of names.
        column: The column, counted from 0; the only one if None.

    Raises:
        SamplesError: The file holds no such labels; the message names it.
        OSError: There is no such file, or it cannot be read.
    """
    name = os.fspath(path)
    try:
        if _is_numpy(name):
            found = _read_numpy(name)
            table = found[:, None] if found.ndim == 1 else found
        else:
            with _text(name) as text:
                rows = [[cell.strip() for cell in cells] for _, cells in _rows(text)]
            if len({len(row) for row in rows}) > 1:
                raise SamplesError("its lines differ in the number of cells")
            table = np.array(rows[len(rows) == n + 1 :])
        if table.ndim != 2 or (column is None and table.shape[1] != 1):
            raise SamplesError("labels must be one column")
        labels = table[:, 0 if column is None else _known([column], table.shape[1])[0]]
        if len(labels) != n:
            raise SamplesError(f"it has {len(labels)} labels, and there are {n} samples")
        return np.asarray(labels)
    except UnicodeDecodeError as error:
        raise SamplesError(f"{name}: it is no text in UTF-8: {error}") from error
    except SamplesError as error:
        raise SamplesError(f"{name}: {error}") from error


def _is_numpy(path: str) -> bool:
    suffix = Path(path).suffix.lower()
    if suffix not in (".npy", ".npz", ".csv", ".tsv", ".txt"):
        raise SamplesError(f"samples must be in a .npy, .npz, .csv, .tsv or .txt file; this one ends in {suffix!r}")
    return suffix in (".npy", ".npz")


@contextmanager
def _text(path: str) -> Iterator[TextIOWrapper]:
    """A text file; utf-8-sig: some spreadsheets begin one with a byte order mark, which would stick to the first cell."""
    with _regular(path) as stream, TextIOWrapper(stream, encoding="utf-8-sig") as text:
        yield text


def _select(x: np.ndarray, columns: Sequence[int] | None, without: int | None) -> np.ndarray:
    if (columns is None and without is None) or x.ndim not in (1, 2):
        return x
    table = x[:, None] if x.ndim == 1 else x
    return table[:, _known(columns, table.shape[1], without)]


def _known(columns: Sequence[int] | None, width: int, without: int | None = None) -> list[int]:
    if columns is None:
        left_out = () if without is None else _known([without], width)
        return [column for column in range(width) if column not in left_out]
    unknown = [column for column in columns if not 0 <= column < width]
    if not columns:
        raise SamplesError("no column is asked for")
    if unknown:
        raise SamplesError(f"there is no column {unknown[0]}: it has {width}, counted from 0")
    return list(columns)


def memory() -> int | None:
    """Bytes of memory of this machine, where the system says."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


@contextmanager
def _regular(path: str) -> Iterator[BinaryIO]:
    """A regular file, opened once; opening a pipe would wait, and a device has no end."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise SamplesError("it is no regular file, but a pipe or a device; write the samples to a file first")
    with open(descriptor, "rb") as stream:
        yield stream


def _read_numpy(path: str) -> np.ndarray:
    with _regular(path) as stream:
        magic = stream.read(6)
        stream.seek(0)
        try:
            if magic == format.MAGIC_PREFIX:
                return _read_array(stream, os.fstat(stream.fileno()).st_size)
            if magic.startswith(b"PK"):
                with zipfile.ZipFile(stream) as archive:
                    names = {name.removesuffix(".npy"): name for name in archive.namelist()}
                    member = archive.getinfo(names[_member(list(names))])
                    with archive.open(member) as inner:
                        return _read_array(inner, member.file_size)
        except SamplesError:
            raise
        except Exception as error:  # codecs and parsers raise what they like: zlib.error, LZMAError, TokenError, RuntimeError
            if isinstance(error, OSError) and error.errno is not None:  # the system's own; bzip2 raises one without a number
                raise
            what = str(error) or type(error).__name__
            raise SamplesError(f"it is damaged, encrypted, or holds no plain numbers: {what[:200]}") from error
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


def _read_table(path: str, columns: Sequence[int] | None, without: int | None) -> np.ndarray:
    try:
        with _text(path) as text:
            return _table(_rows(text), columns, without)
    except UnicodeDecodeError as error:
        raise SamplesError(f"it is no text in UTF-8: {error}") from error


def _rows(stream: Iterable[str]) -> Iterator[_Row]:
    """The rows of a table, without empty lines and comments."""
    numbered = ((n, line) for n, line in enumerate(stream, 1) if line.strip() and not line.lstrip().startswith("#"))
    top = list(islice(numbered, 2))
    delimiter = _delimiter(top[-1][1]) if top else None
    at = 0

    def lines() -> Iterator[str]:
        nonlocal at
        for n, line in chain(top, numbered):
            at = n
            yield line

    try:
        for cells in map(str.split, lines()) if delimiter is None else csv.reader(lines(), delimiter=delimiter, strict=True):
            yield at, cells
    except csv.Error as error:
        raise SamplesError(f"line {at} is no row of a table: {error}") from error


def _delimiter(line: str) -> str | None:
    """What separates the cells of a line; None for white space."""
    bare = re.sub(r'"[^"]*"', "", line).strip("\r\n")
    # Semicolons and tabs come first: where they separate cells, a comma is part of one.
    for mark in ";\t,":
        if mark in bare:
            return mark
    return None if len(line.split()) > 1 else ","


def _table(rows: Iterator[_Row], columns: Sequence[int] | None, without: int | None) -> np.ndarray:
    top = next(rows, (0, []))
    first = [cell.strip() for cell in top[1]]
    # A first row with a number in it is data: to take it for names because of a bad cell would drop it silently.
    names = first if any(first) and not any(map(_is_like_a_number, first)) else []
    kept, values = _known(columns, len(first), without) if first else [], array("d")
    for n, cells in rows if names else chain([top], rows):
        if len(cells) != len(first):
            raise SamplesError(f"line {n} has {len(cells)} cells, and the first line has {len(first)}")
        row = [_finite(cells[column]) for column in kept]
        if any(map(math.isnan, row)):
            column = kept[[math.isnan(value) for value in row].index(True)]
            raise _fault(f"line {n}, column {column}", cells[column].strip(), names[column] if names else "")
        values.extend(row)
    if not values:
        raise SamplesError("it has a line of names and no rows below" if names else "it has no rows")
    return np.frombuffer(values, dtype=np.float64).reshape(-1, len(kept))


def _finite(cell: str) -> float:
    """The cell's number; NaN if it is none, not finite, or read by Python alone: 1_000, other digits than 0 to 9, 1e-400."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    if not math.isfinite(value) or "_" in cell or not cell.isascii():
        return math.nan
    return value if value or not re.search("[1-9]", re.split("[eE]", cell)[0]) else math.nan


def _is_like_a_number(cell: str) -> bool:
    """Whether a cell is meant as a number, though it may not be finite, or have a decimal comma."""
    try:
        float(cell.replace(",", ".", 1))
    except ValueError:
        return False
    return True


def _fault(place: str, cell: str, name: str) -> SamplesError:
    named = f" ({name!r})" if name else ""
    what = f"{cell[:40]!r} is no finite number" if cell else "the cell is empty"
    point = "; write numbers with a decimal point" if "," in cell and _is_like_a_number(cell) else ""
    if not point and _is_like_a_number(cell) and math.isfinite(float(cell)):
        point = "; write numbers with the digits 0 to 9 alone, and no smaller ones than float64 has"
    return SamplesError(
        f"{place}{named}, columns counted from 0: {what}{point}; mend it, drop such rows, or leave the column out"
    )

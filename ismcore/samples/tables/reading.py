"""Samples from files: .npy, .npz, text tables, and those of other programs, with the names of their columns.

What is no number is named, with its line; nothing is guessed silently.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ismcore.errors import IsmWarning, SamplesError
from ismcore.samples.checks import as_samples
from ismcore.samples.tables.arrays import read_array_file
from ismcore.samples.tables.columnar import COLUMNAR, read_columnar
from ismcore.samples.tables.opening import CODECS
from ismcore.samples.tables.parsed import UNNAMED, Choice, Column, Parsed, column_name, some
from ismcore.samples.tables.text import first_cells, read_text

__all__ = ["Table", "read_labels", "read_samples", "read_table"]

NUMPY, TEXT = (".npy", ".npz"), (".csv", ".tsv", ".txt")


@dataclass(frozen=True, eq=False)
class Table:
    """Samples from a file. `ismcore.fit` and the methods of a result take it as x, with its names; `numpy.asarray` gives x.

    Attributes:
        x: Samples, (n, d), float64, in the file's units.
        columns: Names of the columns, (d,); () where the file has none.
        rows: Number of each row in the file, (n,), from 0, names and comments not counted: some are missing where rows were
            dropped.
        beside: Cells of the columns that were asked for beside the samples, (n,) each, by the name or number asked by.
        notes: What was taken for something else than it says, or left out, in words.
        n_read: Rows of the file.
    """

    x: np.ndarray
    columns: tuple[str, ...]
    rows: np.ndarray
    beside: dict[Column, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    n_read: int = 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.x, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> Table:
        """The table of some rows: a slice, numbers of rows, or a mask, (n,), bool."""
        chosen = np.atleast_1d(np.arange(len(self.x))[rows])
        beside = {column: cells[chosen] for column, cells in self.beside.items()}
        return replace(self, x=self.x[chosen], rows=self.rows[chosen], beside=beside)

    def __repr__(self) -> str:
        named = f": {some(self.columns)}" if self.columns else ""
        return f"Table of {len(self.x)} rows and {self.x.shape[1]} columns{named}"


def read_table(
    path: str | PathLike[str] | BinaryIO,
    *,
    columns: Column | Sequence[Column] | None = None,
    drop: Column | Sequence[Column] = (),
    drop_missing: bool = False,
    beside: Column | Sequence[Column] = (),
) -> Table:
    r"""Samples from a file, with the names of their columns.

    `.csv`, `.tsv`, `.txt`, also compressed as `.gz`, `.bz2`, `.xz` or `.zip`: a text table, one row a line, with or without a
    line of names above; its cells separated by semicolons, tabs, bars, commas, white space, or another mark between numbers;
    empty lines and lines that start with "#" are passed over. Numbers have a decimal point, or all a decimal comma, which is
    noted. `.parquet`, `.feather`, `.arrow`, `.xlsx` (its first sheet): through polars, pyarrow or pandas, by
    `pip install 'ismcore[tables]'`. `.npy`: one array, (n, d) or (n,). `.npz`: its only array, or the one called "x".

    A first column that has no name and counts the rows, 0, 1, 2, ... or 1, 2, 3, ..., as pandas and R write it, is an index: it
    is left out unless `columns` has it.

    Args:
        path: The file; or a binary stream of a text table, such as `sys.stdin.buffer`.
        columns: The columns to keep, in this order, or one, by name or by number from 0; all if None.
        drop: Columns to leave out.
        drop_missing: Leave out rows in which a value is missing: an empty cell, NA, NaN, null, None, "?", "-" or ".".
        beside: Columns to keep as text beside the samples, such as an identifier; no samples, unless `columns` has them.

    Raises:
        SamplesError: The file holds no such samples; the message names the file, and where it can the line and the column.
        OSError: There is no such file, or it cannot be read.

    Warns:
        IsmWarning: An index, or a line that numbers the columns, was left out, or commas may stand before thousands.

    Example:
        >>> import io
        >>> text = io.BytesIO(b"who;height;weight\nA;1,81;75\nB;1,70;\n")
        >>> table = ismcore.read_table(text, drop=["who"], drop_missing=True)
        >>> table.columns, table.x.tolist(), table.rows.tolist()
        (('height', 'weight'), [[1.81, 75.0]], [0])
    """
    source: str | BinaryIO = os.fsdecode(path) if isinstance(path, str | bytes | PathLike) else path
    if not isinstance(source, str) and not hasattr(source, "read"):
        raise SamplesError(f"samples are read from a path or a binary stream, not from {source!r:.80}")
    name = source if isinstance(source, str) else "the stream"
    choice = Choice(None if columns is None else _several(columns), _several(drop), _several(beside))
    try:
        parsed, index = _without_index(_parsed(source, choice), choice)
        table = _table(parsed, choice, drop_missing)
    except SamplesError as error:
        raise SamplesError(f"{name}: {error}") from error
    doubts = (*((index,) if index else ()), *parsed.doubts)
    for doubt in doubts:
        warnings.warn(IsmWarning(f"{name}: {doubt}"), stacklevel=2)
    return replace(table, notes=(*doubts, *table.notes))


def _several(columns: Column | Sequence[Column]) -> tuple[Column, ...]:
    """Columns, of which one may be given alone."""
    return (columns,) if isinstance(columns, str | int | np.integer) else tuple(columns)


def read_samples(path: str | PathLike[str], *, columns: Column | Sequence[Column] | None = None) -> np.ndarray:
    """Samples from a file, (n, d), float64, in the file's units: `read_table(path, columns=columns).x`.

    Raises:
        SamplesError, OSError: See `read_table`.
    """
    return read_table(path, columns=columns).x


def read_labels(path: str | PathLike[str], n: int) -> np.ndarray:
    """A label of each of n samples from a file, (n,), .npy, .npz or text: numbers, or text as it stands there.

    Args:
        path: The file, of one column.
        n: Samples. A table of one line more has a line of names.

    Raises:
        SamplesError: The file holds no such labels; the message names it.
        OSError: There is no such file, or it cannot be read.
    """
    name = os.fspath(path)
    try:
        suffix = _suffix(name)
        if suffix in NUMPY:
            found = read_array_file(name)
            table = found[:, None] if found.ndim == 1 else found
        elif suffix in COLUMNAR:
            raise SamplesError("labels are read from text, .npy and .npz files; or name a column of the samples' own file")
        else:
            cells = first_cells(name, n + 1)
            table = np.array(cells[len(cells) == n + 1 :], dtype=object)[:, None]
        if table.ndim != 2 or table.shape[1] != 1:
            raise SamplesError("labels must be one column")
        if len(table) != n:
            raise SamplesError(f"it has {len(table)} labels, and there are {n} samples")
        return np.asarray(table[:, 0])
    except SamplesError as error:
        raise SamplesError(f"{name}: {error}") from error


def _suffix(path: str) -> str:
    """The ending that says what a file holds: that before the ending of a codec, and of text for a name that has none."""
    suffix = Path(path).suffix.lower()
    inner = Path(Path(path).stem).suffix.lower() if suffix in CODECS else suffix
    if suffix in CODECS and (suffix == ".zip" or inner in ("", *TEXT)):
        return ".csv"
    if suffix in CODECS:
        raise SamplesError(f"of compressed files only text tables are read, such as .csv{suffix}, and this one ends in {inner}")
    if inner not in (*NUMPY, *TEXT, *COLUMNAR):
        raise SamplesError(
            "samples must be in a .npy, .npz, .csv, .tsv, .txt, .parquet, .feather, .arrow or .xlsx file, text also "
            f"compressed; this one ends in {suffix!r}: read it in Python, and pass the array or frame to ismcore.fit"
        )
    return inner


def _parsed(source: str | BinaryIO, choice: Choice) -> Parsed:
    suffix = ".csv" if not isinstance(source, str) else _suffix(source)
    if isinstance(source, str) and suffix in COLUMNAR:
        return read_columnar(source, suffix, choice)
    if not isinstance(source, str) or suffix not in NUMPY:
        return read_text(source, choice)
    found = read_array_file(source)
    array = found[:, None] if found.ndim == 1 else found
    if array.ndim != 2 or not array.shape[1]:
        as_samples(found)  # which says why not
    kept, beside = choice.numbers(array.shape[1], ())
    x = array if kept == list(range(array.shape[1])) else array[:, kept]
    if x.dtype.kind != "f":
        x = as_samples(x, copy=False)
    return Parsed((), kept, x, tuple(array[:, column] for column in beside))


def _without_index(parsed: Parsed, choice: Choice) -> tuple[Parsed, str]:
    """The table without first columns that number its rows, and what was done in words; "" where there are none.

    There are two where a table that had one was read and written by pandas.
    """
    x, names, count = parsed.x, parsed.names, 0
    while bool(names) and choice.columns is None and len(parsed.kept) - count > 1 and len(x) > 1:
        column, start = x[:, count], x[0, count]
        named = UNNAMED.fullmatch(names[parsed.kept[count]]) is None
        if named or start not in (0.0, 1.0) or not np.array_equal(column, start + np.arange(len(x))):
            break
        count += 1
    if not count:
        return parsed, ""
    said = (
        f"its first {'column has no name and numbers' if count == 1 else 'columns have no names and number'} the rows "
        f"{x[0, 0]:g}, {x[1, 0]:g}, ...: taken for an index and left out; columns= (--columns) with a 0 keeps it"
    )
    return replace(parsed, kept=parsed.kept[count:], x=np.ascontiguousarray(x[:, count:])), said


def _table(parsed: Parsed, choice: Choice, drop_missing: bool) -> Table:
    x, kept, notes, n = parsed.x, parsed.kept, parsed.notes, len(parsed.x)
    rows = None if not (missing := np.isnan(x)).any() else np.flatnonzero(~missing.any(axis=1))
    if rows is not None:
        if not drop_missing:
            raise SamplesError(_about_missing(parsed, missing))
        x = x[rows]
        notes = (*notes, f"{n - len(rows)} of {n} rows have missing values and were dropped")
        if not len(x):
            raise SamplesError(f"in every row a value is missing: {_about_missing(parsed, missing)}")
    del missing  # of a narrow table it and the numbers of the rows are as large as the samples: not all at once
    names = tuple(parsed.names[column] or f"column {column}" for column in kept) if parsed.names else ()
    x = as_samples(x, copy=False)
    rows = np.arange(n) if rows is None else rows
    beside = {asked: cells[rows] for asked, cells in zip(choice.beside, parsed.beside, strict=True)}
    return Table(x, names, rows, beside, notes, n)


def _about_missing(parsed: Parsed, missing: np.ndarray) -> str:
    counts = missing.sum(axis=0)
    columns = [f"{column_name(column, parsed.names)} in {counts[k]}" for k, column in enumerate(parsed.kept) if counts[k]]
    rows = np.flatnonzero(missing.any(axis=1))
    cure = "drop these rows by drop_missing=True (--drop-missing), or a column by drop= (--drop)"
    if len(rows) == len(missing):
        cure = "drop columns by drop= (--drop)"
    where = parsed.first_missing
    if not where:
        column = parsed.kept[int(np.flatnonzero(missing[rows[0]])[0])]
        where = f"row {rows[0]}, {column_name(column, parsed.names)}, counted from 0: NaN or nothing"
    return f"{where}; values are missing in {len(rows)} of {len(missing)} rows, of {some(columns)}: {cure}"

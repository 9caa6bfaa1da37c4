"""What readers of files give, and which columns they are to read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ismcore.errors import SamplesError

__all__ = ["MISSING", "UNNAMED", "Choice", "Column", "Parsed", "column_name", "is_missing", "some"]

Column = int | str
"""A column, by its number, counted from 0, or by its name."""

MISSING = frozenset(["", "na", "nan", "-nan", "<na>", "n/a", "#n/a", "#na", "null", "none", "nat", ".", "?", "-"])
"""Cells, in lower case, that stand for a missing value."""

UNNAMED = re.compile(r"|Unnamed: 0(\.[0-9]+)?|__UNNAMED__0|__index_level_0__")
"""Names of a first column that has none: in text, and as pandas, polars and Arrow call it."""


def is_missing(cell: str) -> bool:
    """Whether a cell stands for a missing value."""
    return cell.strip().lower() in MISSING


@dataclass(frozen=True)
class Choice:
    """Which columns of a table are samples.

    Attributes:
        columns: Those to keep, in this order; all that are not named below if None.
        drop: Those that are not kept.
        beside: Those that are kept as text, beside the samples; samples only where `columns` has them too.
    """

    columns: Sequence[Column] | None = None
    drop: Sequence[Column] = ()
    beside: Sequence[Column] = ()

    def numbers(self, width: int, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """The numbers of those to keep, and of those beside, in a table of so many columns.

        Raises:
            SamplesError: There is no such column, or none is left.
        """
        beside = [_number(column, width, names) for column in self.beside]
        dropped = {_number(column, width, names) for column in self.drop}
        if self.columns is None:
            dropped.update(beside)
            kept = [column for column in range(width) if column not in dropped]
        else:
            kept = [number for column in self.columns if (number := _number(column, width, names)) not in dropped]
        if not kept:
            raise SamplesError("no column is asked for" if self.columns is not None else "no column is left of it")
        return kept, beside


def _number(column: Column, width: int, names: Sequence[str]) -> int:
    if not isinstance(column, str):
        if not 0 <= column < width:
            raise SamplesError(f"there is no column {column}: it has {width}, counted from 0")
        return int(column)
    if not names:
        raise SamplesError(f"there is no column {column!r}: its {width} columns have no names; count them from 0")
    if list(names).count(column) > 1:
        raise SamplesError(f"several columns are called {column!r}; count them from 0")
    if column not in names:
        close = difflib.get_close_matches(column, names, 1)
        hint = f"; did you mean {close[0]!r}?" if close else f": it has {some([repr(name) for name in names])}"
        raise SamplesError(f"there is no column {column!r}{hint}")
    return names.index(column)


def some(words: Sequence[str], most: int = 12) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def column_name(column: int, names: Sequence[str]) -> str:
    """A column in words: its number, and its name where it has one."""
    return f"column {column} ({names[column]!r})" if names and names[column] else f"column {column}"


@dataclass(frozen=True, eq=False)
class Parsed:
    """A table, read.

    Attributes:
        names: Names of all its columns; () where it has none.
        kept: The numbers of those that are samples, (k,).
        x: These, (n, k), float64, NaN where a value is missing.
        beside: Cells of the columns asked for beside them, (n,) each.
        first_missing: Where the first missing value stands, and what does in its place, in words; "" if none is missing.
        notes: What was taken for something else than it says, in words.
        doubts: What may have been misread, in words.
    """

    names: tuple[str, ...]
    kept: list[int]
    x: np.ndarray
    beside: tuple[np.ndarray, ...] = ()
    first_missing: str = ""
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

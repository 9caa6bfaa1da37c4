"""Text tables: cells, their separator, their decimal mark, and their numbers. What is no number is named, with its line."""

from __future__ import annotations

import codecs
import csv
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, islice, takewhile
from typing import BinaryIO

import numpy as np

from ismcore.errors import SamplesError
from ismcore.samples.tables.opening import lines_of, room
from ismcore.samples.tables.parsed import UNNAMED, Choice, Parsed, column_name, is_missing

__all__ = ["first_cells", "is_like_a_number", "read_text"]

SEPARATORS = ";\t|,"
"""They come before others: where the first ones separate cells, a comma is part of one."""

OTHER_SEPARATORS = ":/&^~!$%*"
"""What separates numbers where none of the above does."""

LOOK = 2**14
"""So many rows are read until it is looked whether they still fit into memory."""

AN_OBJECT = 64
"""Bytes that a short text takes, and its place in a list."""

THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
"""A number whose comma may be a decimal one, or stand before the last three digits."""

_Row = tuple[int, list[str]]
"""Number of a line, counted from 1, and its cells."""


def read_text(source: str | BinaryIO, choice: Choice) -> Parsed:
    """A text table, one row a line, with or without a line of names above.

    Raises:
        SamplesError: A cell is no number, lines differ in the number of cells, or it does not fit into memory.
    """
    try:
        with lines_of(source) as lines:
            return _parse(_rows(lines), choice)
    except UnicodeDecodeError as error:
        raise SamplesError(_about_encoding(error)) from error


def first_cells(source: str, most: int) -> list[str]:
    """The cells of a text table of one column, of so many rows at most.

    Raises:
        SamplesError: It is no text, or has more columns or rows.
    """
    found: list[str] = []
    try:
        with lines_of(source) as lines:
            for line, cells in _rows(lines):
                if len(cells) != 1:
                    raise SamplesError(f"labels must be one column, and line {line} has {len(cells)} cells")
                if len(found) == most:
                    raise SamplesError(f"it has more than {most} lines")
                found.append(cells[0].strip())
            return found
    except UnicodeDecodeError as error:
        raise SamplesError(_about_encoding(error)) from error


def _about_encoding(error: UnicodeDecodeError) -> str:
    encoding = "utf-16" if error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin1"
    return f"it is no text in UTF-8, as which it is to be written anew, by iconv -f {encoding} -t utf-8 or an editor: {error}"


def _rows(stream: Iterator[str]) -> Iterator[_Row]:
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
        for cells in map(_spaced, lines()) if delimiter is None else csv.reader(lines(), delimiter=delimiter, strict=True):
            yield at, cells
    except csv.Error as error:
        raise SamplesError(f"line {at} is no row of a table: {error}") from error


def _spaced(line: str) -> list[str]:
    """Cells that white space separates, those in quotes apart."""
    if '"' not in line:
        return line.split()
    return [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', line)]


def _delimiter(line: str) -> str | None:
    """What separates the cells of a line; None for white space."""
    bare = re.sub(r'"[^"]*"', "0", line).strip("\r\n")
    spaced = len(bare.split()) > 1
    for mark in SEPARATORS:
        if mark in bare:
            # A comma between digits may be a decimal one, in cells that white space separates.
            return None if mark == "," and spaced and not _all_numbers(bare.split(",")) and _all_numbers(bare.split()) else mark
    if spaced:
        return None
    return next((mark for mark in OTHER_SEPARATORS if mark in bare and _all_numbers(bare.split(mark))), ",")


def _all_numbers(cells: Sequence[str]) -> bool:
    return all(is_like_a_number(cell) or is_missing(cell) for cell in cells)


def _parse(rows: Iterator[_Row], choice: Choice) -> Parsed:
    top, second = next(rows, (0, [])), next(rows, (0, []))
    first = [cell.strip() for cell in top[1]]
    if not first:
        raise SamplesError("it has no rows")
    names = _names(first, second[1])
    if names and len(second[1]) == len(first) + 1:  # R writes names of rows without a name above them
        first, names = ["", *first], ("", *names)
    kept, beside = choice.numbers(len(first), names)
    cells_beside: list[list[str]] = [[] for _ in beside]
    reading, values, n, most, size = _Cells(names), array("d"), 0, room(), 0
    for line, cells in chain([] if names else [top], [second] if second[1] else [], rows):
        if len(cells) != len(first):
            raise SamplesError(f"line {line} has {len(cells)} cells, and the first line has {len(first)}")
        values.extend([reading.number(cells[column], line, column) for column in kept])
        for k, column in enumerate(beside):
            cells_beside[k].append(cells[column].strip())
            size += AN_OBJECT + len(cells[column])
        n += 1
        if n % LOOK == 0 and 8 * len(values) + size > most:
            raise SamplesError(f"its cells do not fit into half of the memory here, {most} bytes: they end at line {line}")
    if not n:
        raise SamplesError("it has a line of names and no rows below")
    x = np.frombuffer(values, dtype=np.float64).reshape(n, len(kept))
    texts = tuple(np.array(column, dtype=object) for column in cells_beside)
    doubts = reading.doubts
    if not names and first == _numbers(len(first)) and n > 2 and len(first) > 1 and (x[1:] % 1.0 != 0.0).any(axis=0).all():
        x, texts = x[1:], tuple(column[1:] for column in texts)
        doubts = (*doubts, f"its first line, {', '.join(first[:3])}, numbers the columns: it was left out")
    return Parsed(names, kept, x, texts, reading.first_missing, reading.notes, doubts)


def _names(first: list[str], second: list[str]) -> tuple[str, ...]:
    """The names in the first row, by the second; () where the first is data.

    A first row with a number in it is data: to take it for names because of a bad cell would drop it silently. Not so what
    pandas writes above its index 0, 1, ... and columns without names: nothing, 0, 1, ...
    """
    indices = len(list(takewhile(UNNAMED.fullmatch, first)))
    numbered = indices and first[indices:] == _numbers(len(first) - indices) and second[:1] == ["0"]
    named = not all(map(is_missing, first)) and not any(map(is_like_a_number, first))
    return tuple(first) if named or numbered else ()


def _numbers(width: int) -> list[str]:
    return [str(column) for column in range(width)]


class _Cells:
    """Numbers from cells, and what was noticed of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.first_missing = self._comma = self._point = ""
        self._names, self._thousands = names, True

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.doubts or not self._comma else (f"a comma was read as the decimal mark, first in {self._comma}",)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What may have been misread, in words."""
        if not self._comma or not self._thousands:
            return ()
        return (
            f"a comma was read as the decimal mark, first in {self._comma}, and three digits follow each one: if they are "
            "thousands, write numbers without a mark",
        )

    def number(self, cell: str, line: int, column: int) -> float:
        """The number in a cell; NaN where it is missing.

        Raises:
            SamplesError: It holds something else, or a decimal point where others have a decimal comma.
        """
        value = _finite(cell)
        if not math.isnan(value):
            if "." in cell and not self._point:
                self._found(line, column, cell, point=True)
            return value
        if is_missing(cell):
            if not self.first_missing:
                what = f"{cell.strip()!r} is no finite number" if cell.strip() else "the cell is empty"
                self.first_missing = f"line {line}, {column_name(column, self._names)}, columns counted from 0: {what}"
            return value
        if "," in cell and "." not in cell:
            value = _finite(cell.replace(",", ".", 1))
            if not math.isnan(value):
                if not self._comma:
                    self._found(line, column, cell, point=False)
                self._thousands = self._thousands and THOUSANDS.fullmatch(cell.strip()) is not None
                return value
        raise _fault(f"line {line}, {column_name(column, self._names)}", cell.strip(), column, self._names)

    def _found(self, line: int, column: int, cell: str, *, point: bool) -> None:
        where = f"line {line}, {column_name(column, self._names)}: {cell.strip()!r}"
        if point:
            self._point = where
        else:
            self._comma = where
        if self._point and self._comma:
            raise SamplesError(
                f"{self._comma} has a decimal comma, or one between thousands, and {self._point} a decimal point; "
                "write all numbers with a decimal point, and thousands without a mark"
            )


def _finite(cell: str) -> float:
    """The cell's number; NaN if it is none, not finite, or read by Python alone: 1_000, other digits than 0 to 9, 1e-400."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    if not math.isfinite(value) or "_" in cell or not cell.isascii():
        return math.nan
    return value if value or not re.search("[1-9]", re.split("[eE]", cell)[0]) else math.nan


def is_like_a_number(cell: str) -> bool:
    """Whether a cell is meant as a number, though it may not be finite, or have a decimal comma."""
    try:
        float(cell.replace(",", ".", 1))
    except ValueError:
        return False
    return True


def _fault(place: str, cell: str, column: int, names: Sequence[str]) -> SamplesError:
    point = ""
    if "," in cell and is_like_a_number(cell.replace(",", "").replace(".", "")):
        point = "; write numbers with a decimal point, and thousands without a mark"
    elif is_like_a_number(cell) and math.isfinite(float(cell.replace(",", ".", 1))):
        point = "; write numbers with the digits 0 to 9 alone, and no smaller ones than float64 has"
    name = column if not names else names[column] or column
    return SamplesError(
        f"{place}, columns counted from 0: {cell[:40]!r} is no finite number{point}; mend it, drop such rows, or leave the "
        f"column out, as by drop=[{name!r}] (--drop {name})"
    )

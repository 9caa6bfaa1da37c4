"""Tables of other programs, .parquet, .feather, .arrow and .xlsx, through polars, pyarrow or pandas, where one is installed."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np

from ismcore.errors import SamplesError
from ismcore.samples.tables.frames import numbers_of
from ismcore.samples.tables.opening import PIECE, damage_named, regular, room
from ismcore.samples.tables.parsed import Choice, Parsed, column_name
from ismcore.samples.tables.text import is_like_a_number

__all__ = ["COLUMNAR", "read_columnar"]

OLDEST_ARROW = 15
"""Versions before 14.0.1 unpickle what a file asks them to (CVE-2023-47248)."""

INFLATED_SHARE = 4
"""A workbook's text may take this part of the room there is for samples, as its cells become objects."""


def read_columnar(path: str, suffix: str, choice: Choice) -> Parsed:
    """A table in a file of which other libraries know the format; of a workbook the first sheet.

    Raises:
        SamplesError: None of them is installed, the message has the line that installs one; the file is damaged; a column holds
            no numbers; or they do not fit into memory.
    """
    with regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > room():
            raise SamplesError(f"its {size} bytes do not fit into half of the memory here, {room()} bytes")
        return COLUMNAR[suffix](stream, choice)


def _modules(suffix: str, readers: dict[tuple[str, ...], Any]) -> tuple[Any, list[Any]]:
    """What reads a file with the first set of libraries that is installed, and these."""
    for names, reader in readers.items():
        try:
            modules = [import_module(name) for name in names]
        except ImportError:
            continue
        if names[0].startswith("pyarrow") and int(import_module("pyarrow").__version__.partition(".")[0]) < OLDEST_ARROW:
            raise SamplesError(f"pyarrow before {OLDEST_ARROW} runs code that a file holds: pip install -U pyarrow")
        return reader, modules
    needed = ", or ".join(" and ".join(name.partition(".")[0] for name in names) for names in readers)
    raise SamplesError(f"to read {suffix} files needs {needed}: pip install 'ismcore[tables]', or write the table as .csv")


def _parquet(stream: BinaryIO, choice: Choice) -> Parsed:
    reader, modules = _modules(".parquet", {("polars",): _polars_parquet, ("pyarrow.parquet",): _arrow_parquet})
    found: Parsed = reader(stream, choice, *modules)
    return found


def _feather(stream: BinaryIO, choice: Choice) -> Parsed:
    reader, modules = _modules(".feather", {("polars",): _polars_feather, ("pyarrow.ipc",): _arrow_feather})
    found: Parsed = reader(stream, choice, *modules)
    return found


def _xlsx(stream: BinaryIO, choice: Choice) -> Parsed:
    readers: dict[tuple[str, ...], Any] = {("polars", "fastexcel"): _polars_xlsx, ("pandas", "openpyxl"): _pandas_xlsx}
    reader, modules = _modules(".xlsx", readers)
    with damage_named():
        _check_inflated(stream)
        # The first row is of names, unless there is a number in it: then it is data.
        frame = reader(stream, modules[0], True)
        names = tuple(map(str, frame.columns))
        if any(map(is_like_a_number, names)):
            frame, names = reader(stream, modules[0], False), ()
    columns = list(frame.columns)
    return _parsed(names, len(columns), lambda column: frame[columns[column]].to_numpy(), len(frame), choice, text=True)


def _polars_parquet(stream: BinaryIO, choice: Choice, polars: Any) -> Parsed:
    return _lazily(polars.scan_parquet, stream, choice, polars)


def _polars_feather(stream: BinaryIO, choice: Choice, polars: Any) -> Parsed:
    return _lazily(polars.scan_ipc, stream, choice, polars)


def _lazily(scan: Callable[[BinaryIO], Any], stream: BinaryIO, choice: Choice, polars: Any) -> Parsed:
    """A table whose names and rows are known before its columns are read.

    From memory: polars would map the file, and another process that shortens it would end this one by a signal.
    """
    data = stream.read()
    with damage_named():
        names = tuple(scan(io.BytesIO(data)).collect_schema().names())
        rows = int(scan(io.BytesIO(data)).select(polars.len()).collect().item())
        kept, beside = choice.numbers(len(names), names)
        _check_room(rows, len(kept))
        frame = scan(io.BytesIO(data)).select([names[column] for column in dict.fromkeys(kept + beside)]).collect()
    return _parsed(names, len(names), lambda column: frame[names[column]].to_numpy(), rows, choice)


def _arrow_parquet(stream: BinaryIO, choice: Choice, parquet: Any) -> Parsed:
    with damage_named():
        file = parquet.ParquetFile(stream)
        names, rows = tuple(file.schema_arrow.names), int(file.metadata.num_rows)
        kept, beside = choice.numbers(len(names), names)
        _check_room(rows, len(kept))
        table = file.read(columns=[names[column] for column in dict.fromkeys(kept + beside)])
    return _parsed(names, len(names), lambda column: table[names[column]].to_numpy(), rows, choice)


def _arrow_feather(stream: BinaryIO, choice: Choice, ipc: Any) -> Parsed:
    with damage_named():
        file = ipc.open_file(stream)
        names = tuple(file.schema.names)
        kept, _ = choice.numbers(len(names), names)
        batches, rows = [], 0
        for number in range(file.num_record_batches):
            batches.append(file.get_batch(number))
            rows += len(batches[-1])
            _check_room(rows, len(kept))
        table = import_module("pyarrow").Table.from_batches(batches, file.schema)
    return _parsed(names, len(names), lambda column: table[names[column]].to_numpy(), rows, choice)


def _check_room(rows: int, columns: int) -> None:
    if 8 * rows * columns > room():
        raise SamplesError(f"its {rows} rows of {columns} columns do not fit into half of the memory here, {room()} bytes")


def _check_inflated(stream: BinaryIO) -> None:
    """Refuse a workbook whose parts inflate beyond all memory, whatever it says of their sizes."""
    left = most = room() // INFLATED_SHARE
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise SamplesError("it is damaged, or compressed by another method than deflate")
            member.file_size = left + 2 * PIECE  # not what it says: reading ends there
            with archive.open(member) as part:
                while piece := part.read(PIECE):
                    left -= len(piece)
                    if left < 0:
                        raise SamplesError(f"its parts inflate beyond the {most} bytes that fit into the memory here")
    stream.seek(0)


def _polars_xlsx(stream: BinaryIO, polars: Any, has_names: bool) -> Any:
    stream.seek(0)
    return polars.read_excel(io.BytesIO(stream.read()), has_header=has_names, engine="calamine")


def _pandas_xlsx(stream: BinaryIO, pandas: Any, has_names: bool) -> Any:
    stream.seek(0)
    return pandas.read_excel(stream, header=0 if has_names else None, engine="openpyxl")


def _parsed(
    names: tuple[str, ...], width: int, column_of: Callable[[int], np.ndarray], rows: int, choice: Choice, *, text: bool = False
) -> Parsed:
    """The columns chosen; in a workbook one in which a cell is text is text in all."""
    if not rows:
        raise SamplesError("it has no rows")
    kept, beside = choice.numbers(width, names)
    x = np.empty((rows, len(kept)))
    for k, column in enumerate(kept):
        try:
            x[:, k] = numbers_of(column_of(column), text=text)
        except SamplesError as error:
            name = names[column] if names else column
            raise SamplesError(
                f"{column_name(column, names)}, counted from 0, {error}; leave it out, as by drop=[{name!r}] (--drop {name})"
            ) from error
    return Parsed(
        names, kept, x, tuple(np.array([str(cell) for cell in column_of(column).tolist()], dtype=object) for column in beside)
    )


COLUMNAR: dict[str, Callable[[BinaryIO, Choice], Parsed]] = {
    ".parquet": _parquet,
    ".feather": _feather,
    ".arrow": _feather,
    ".xlsx": _xlsx,
}
"""What reads a file, by its ending."""

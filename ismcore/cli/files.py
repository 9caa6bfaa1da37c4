"""The commands `score` and `inspect`, which work on a saved result, and `diagnose`, which looks at samples."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ismcore.errors import FileInvalid, IsmWarning, ModelError, OptionError, printable
from ismcore.files import tensorfile
from ismcore.files.atomic import check_target, write_whole
from ismcore.results.result import load
from ismcore.samples.diagnosis import diagnose
from ismcore.samples.tables.opening import CODECS
from ismcore.samples.tables.parsed import Column
from ismcore.samples.tables.reading import Table, read_table

__all__ = [
    "add_data",
    "add_diagnose",
    "add_inspect",
    "add_score",
    "array_bytes",
    "check_apart",
    "complain",
    "is_stdin",
    "name_of",
    "read",
    "say",
]

AddCommand = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command of this name, run so, and about this, and gives its parser."""

FINDING = ("name", "what", "evidence", "effect", "cure")
"""What `--json` has of each finding."""


def columns(text: str) -> list[Column]:
    """Columns from a list such as 0-10, 0,2,5 or height,weight; a name with a comma stands in double quotes.

    Raises:
        ArgumentTypeError: It is no such list.
    """
    found: list[Column] = []
    try:
        parts = [part.strip() for part in next(csv.reader([text], skipinitialspace=True, strict=True), [])]
    except csv.Error:
        parts = []
    for part in parts or [""]:
        ends = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        between = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else range(0)
        if not part or (not between and re.fullmatch(r"[-0-9]*", part)):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of columns such as 0-10, 0,2,5 or height,weight")
        found.extend(between or [part])
    return found


def column(text: str) -> Column:
    """One column, by number or by name.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text:
        raise argparse.ArgumentTypeError("'' is no column")
    return int(text) if re.fullmatch("[0-9]{1,6}", text) else text


def add_data(parser: argparse.ArgumentParser, out: str = "", *, needed: bool = True, about: str = "samples") -> None:
    """Add the arguments of a command that reads samples: the file and its columns; where to write, what that holds, and how.

    Args:
        parser: The command's.
        out: What `--out` stands for; "" for a command that writes no file.
        needed: Whether there must be such a file.
        about: What the samples are.
    """
    add = parser.add_argument
    about_data = (
        f"{about}, one row each: .csv, .tsv or .txt, also as .gz, .bz2, .xz or .zip; .parquet, .feather, .xlsx; .npy, .npz "
        "(its array 'x'); - for a text table on standard input"
    )
    add("data", type=Path, metavar="DATA", nargs=None if needed else "?", help=about_data)
    about_columns = "columns to use, by name, or counted from 0 such as 0-10 or 0,2,5; all if not given"
    add("--columns", type=columns, metavar="LIST", help=about_columns)
    add("--drop", type=columns, metavar="LIST", action="extend", default=[], help="columns to leave out")
    add("--drop-missing", action="store_true", help="leave out rows in which a value is missing")
    add("--id", type=column, metavar="COLUMN", help="a column that names the rows: no sample, and kept beside their scores")
    if out:
        add("-o", "--out", type=Path, metavar="FILE", help=out)
    add("--json", action="store_true", help="print the summary as JSON")


def read(options: argparse.Namespace, *beside: Column) -> Table:
    """The samples that a command is given, with the columns asked for beside them."""
    source = sys.stdin.buffer if is_stdin(options) else options.data
    asked = [*([] if options.id is None else [options.id]), *beside]
    how = {"columns": options.columns, "drop": options.drop, "drop_missing": options.drop_missing}
    return read_table(source, beside=asked, **how)


def is_stdin(options: argparse.Namespace) -> bool:
    """Whether the samples come on standard input."""
    return str(options.data) == "-"


def name_of(options: argparse.Namespace) -> str:
    """The name of the file that the samples are in, without its endings."""
    name = "stdin" if is_stdin(options) else options.data.name
    return Path(Path(name).stem if Path(name).suffix.lower() in CODECS else name).stem


class Unheard(Exception):
    """Standard output took no more, and what the words were about is done; `code` is the exit code that it has."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def complain(text: str) -> None:
    """A line on standard error, which may be closed or full: that changes no exit code."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"ismcore: {printable(text)}\n")
        sys.stderr.flush()


def say(options: argparse.Namespace, data: Any, words: str, *, done: int | None = None) -> None:
    """Print data as JSON where `--json` asks for it, into the stream that `main` keeps for it, and as words otherwise.

    Args:
        options: The command's.
        data: What JSON can hold.
        words: Lines. Control characters in them are escaped, as names and texts come from files and paths.
        done: The exit code of what is done and saved already, which words that cannot be printed do not change.

    Raises:
        Unheard: They cannot be, and `done` is given.
    """
    try:
        out = options.out_stream if options.json else sys.stdout
        out.write(json.dumps(data, indent=2, allow_nan=False) + "\n" if options.json else printable(words))
        out.flush()
    except OSError:
        if done is None:
            raise
        raise Unheard(done) from None


def add_score(add_command: AddCommand) -> None:
    """Add `ismcore score FILE DATA`."""
    parser = add_command("score", _score, "write the scores of the samples in a file, by a saved result")
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a result that 'ismcore fit' or result.save wrote")
    add_data(parser, ".csv or .npy, one row of scores a sample; DATA's name with .score.csv, in this folder, if not given")
    add("--epoch", type=int, metavar="N", help="use the parameters kept after N epochs, not the last ones")
    add("--noise-scale", type=float, metavar="S", help="for a result that holds a score of every noise scale: which one")


def _score(options: argparse.Namespace) -> int:
    out: Path = options.out or Path(f"{name_of(options)}.score.csv")
    if out.suffix.lower() not in (".csv", ".npy"):
        raise OptionError(f"--out must end in .csv or .npy, not in {out.suffix!r}")
    if options.id is not None and out.suffix.lower() != ".csv":
        raise OptionError(f"--id is kept in a .csv file, and --out {out} is another")
    result = load(options.file)
    x = read(options)
    check_target(out)  # before the work, not after it
    for given in (options.data, options.file):
        check_apart(out, given, str(given))
    with np.errstate(all="ignore"):  # which rows are not finite is said below
        score = result.score(x, epoch=options.epoch, context=options.noise_scale)
    write_whole(out, array_bytes(out, score, result.score_names, x.beside))
    bad = int(np.sum(~np.isfinite(score).all(axis=1)))
    summary = {"n": len(x), "d": result.d, "dtype": str(score.dtype), "not_finite": bad, "file": str(out)}
    summary |= {"columns": list(result.feature_names or ()), "notes": list(x.notes)}
    if bad:
        warnings.warn(IsmWarning(f"the score is not finite in {bad} of {len(x)} rows: they lie too far out"), stacklevel=1)
    notes = "".join(f"note     {text}\n" for text in x.notes)
    say(options, summary, f"samples  n = {len(x)}, d = {result.d}\n{notes}file     {out}\n", done=0)
    return 0


def check_apart(out: Path, other: Path, what: str) -> None:
    """Refuse to write a file over another that was given.

    Raises:
        OptionError: They are one file; the message says what the other one is.
    """
    if os.path.realpath(out) == os.path.realpath(other) or (out.exists() and other.exists() and out.samefile(other)):
        raise OptionError(f"--out {out} would overwrite {what}; name another file")


def array_bytes(out: Path, x: np.ndarray, names: Sequence[str], beside: Mapping[Column, np.ndarray] | None = None) -> bytes:
    """What a .csv or .npy file of an array x, (n, d), holds; names, (d,), and what stands beside it are in a .csv alone."""
    return _csv(x, names, beside or {}) if out.suffix.lower() == ".csv" else _npy(x)


def _csv(score: np.ndarray, names: Sequence[str], beside: Mapping[Column, np.ndarray]) -> bytes:
    """A line of names, and a row a sample, with as few digits as give back the same numbers in their dtype.

    What stands beside the samples comes first, under its own name.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*beside, *names])
    for number, row in enumerate(score):
        writer.writerow([*(cells[number] for cells in beside.values()), *map(str, row)])
    return text.getvalue().encode()


def _npy(score: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, score, allow_pickle=False)
    return stream.getvalue()


def add_diagnose(add_command: AddCommand) -> None:
    """Add `ismcore diagnose DATA`."""
    parser = add_command("diagnose", _diagnose, "look at the samples in a file: what stands in the way of a fit, and the cure")
    add_data(parser)


def _diagnose(options: argparse.Namespace) -> int:
    found = diagnose(read(options))
    findings = [{name: getattr(finding, name) for name in FINDING} for finding in found.findings]
    say(options, {"n": found.n, "d": found.d, "findings": findings}, f"{found}\n")
    return 0


def add_inspect(add_command: AddCommand) -> None:
    """Add `ismcore inspect FILE`."""
    add = add_command("inspect", _inspect, "verify a file that ismcore wrote, and show what it holds").add_argument
    add("file", type=Path, metavar="FILE", help="a result or a checkpoint")
    add("--json", action="store_true", help="print what it holds as JSON")


def _inspect(options: argparse.Namespace) -> int:
    try:
        found = tensorfile.read_any(os.fspath(options.file))
    except FileInvalid as error:
        raise FileInvalid(f"{options.file} cannot be read: {error}") from error
    needs = _needs(options.file) if found.kind == "result" else ""
    lines = () if options.json else _lines(options.file, found, needs)
    say(options, _as_dict(options.file, found, needs), "".join(f"{name:<16} {value}\n" for name, value in lines))
    return 0


def _needs(path: Path) -> str:
    """What a result needs to be loaded; it is not only whole, but also a result, or this raises `FileInvalid`."""
    try:
        load(path)
    except ModelError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def _as_dict(path: Path, found: tensorfile.Contents, needs: str) -> dict[str, Any]:
    arrays = {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in sorted(found.tensors.items())}
    held = {name: getattr(found, name) for name in ("size", "kind", "schema", "sha256")}
    return {"file": str(path), **held, "needs": needs, "content": found.content, "arrays": arrays}


def _lines(path: Path, found: tensorfile.Contents, needs: str) -> Iterator[tuple[str, str]]:
    yield "file", f"{path}, {found.size} bytes"
    yield "holds", f"a {_words(found.kind)}, in schema ismcore/{found.schema}"
    yield "verified", f"sha256 {found.sha256}"
    if needs:
        yield "needs", needs
    for name, value in sorted(found.content.items()):
        yield _words(name), _words(value)
    for name, array in sorted(found.tensors.items()):
        yield "array", f"{name}, {array.dtype} {array.shape}"


def _words(value: Any) -> str:
    """A value of a file's content. Text that would drive a terminal is shown, not sent to it."""
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)
    if isinstance(value, list):
        return f"({', '.join(map(_words, value))})" if value else "none"
    if not isinstance(value, dict):
        return "none" if value is None else str(value)
    if "$tensor" in value:
        return f"array {_words(value['$tensor'])}"
    if "$user" in value:
        return f"{_words(value['$user'])} of your own"
    inner = ", ".join(f"{_words(key)}={_words(item)}" for key, item in value.items() if key != "$type")
    return f"{_words(value['$type'])}({inner})" if "$type" in value else inner or "none"

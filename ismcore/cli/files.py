"""The commands `score` and `inspect`, which work on a saved result, and `diagnose`, which looks at samples."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ismcore.errors import FileInvalid, IsmWarning, ModelError, OptionError, printable
from ismcore.files import tensorfile
from ismcore.files.atomic import check_target, write_whole
from ismcore.results.result import load
from ismcore.samples.diagnosis import diagnose
from ismcore.samples.tables import read_samples

__all__ = ["add_data", "add_diagnose", "add_inspect", "add_score", "say"]

AddCommand = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command of this name, run so, and about this, and gives its parser."""

FINDING = ("name", "what", "evidence", "effect", "cure")
"""What `--json` has of each finding."""


def columns(text: str) -> list[int]:
    """Columns from a list such as 0-10 or 0,2,5.

    Raises:
        ArgumentTypeError: It is no such list.
    """
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part.strip())
        between = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else range(0)
        if not between:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of columns such as 0-10 or 0,2,5")
        found.extend(between)
    return found


def add_data(parser: argparse.ArgumentParser, out: str = "") -> None:
    """Add the arguments of a command that reads samples: the file and its columns; where to write, what that holds, and how.

    Args:
        parser: The command's.
        out: What `--out` stands for; "" for a command that writes no file.
    """
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help=".npy, .npz, .csv, .tsv or .txt, one row a sample; .npz: its array 'x'")
    about_columns = "columns to use, counted from 0, such as 0-10 or 0,2,5; all if not given"
    add("--columns", type=columns, metavar="LIST", help=about_columns)
    if out:
        add("--out", type=Path, metavar="FILE", help=out)
    add("--json", action="store_true", help="print the summary as JSON")


class Unheard(Exception):
    """Standard output took no more, and what the words were about is done; `code` is the exit code that it has."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


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
    out: Path = options.out or Path(f"{options.data.stem}.score.csv")
    if out.suffix.lower() not in (".csv", ".npy"):
        raise OptionError(f"--out must end in .csv or .npy, not in {out.suffix!r}")
    result = load(options.file)
    x = read_samples(options.data, columns=options.columns)
    check_target(out)  # before the work, not after it
    for given in (options.data, options.file):
        if out.exists() and out.samefile(given):
            raise OptionError(f"--out {out} would overwrite {given}; name another file")
    with np.errstate(all="ignore"):  # which rows are not finite is said below
        score = result.score(x, epoch=options.epoch, context=options.noise_scale)
    write_whole(out, _csv(score) if out.suffix.lower() == ".csv" else _npy(score))
    bad = int(np.sum(~np.isfinite(score).all(axis=1)))
    summary = {"n": len(x), "d": result.d, "dtype": str(score.dtype), "not_finite": bad, "file": str(out)}
    if bad:
        warnings.warn(IsmWarning(f"the score is not finite in {bad} of {len(x)} rows: they lie too far out"), stacklevel=1)
    say(options, summary, f"samples  n = {len(x)}, d = {result.d}\nfile     {out}\n", done=0)
    return 0


def _csv(score: np.ndarray) -> bytes:
    """A line of names, and a row a sample, with as few digits as give back the same numbers in their dtype."""
    lines = [",".join(f"score_{i}" for i in range(score.shape[1])), *(",".join(map(str, row)) for row in score)]
    return ("\n".join(lines) + "\n").encode()


def _npy(score: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, score, allow_pickle=False)
    return stream.getvalue()


def add_diagnose(add_command: AddCommand) -> None:
    """Add `ismcore diagnose DATA`."""
    parser = add_command("diagnose", _diagnose, "look at the samples in a file: what stands in the way of a fit, and the cure")
    add_data(parser)


def _diagnose(options: argparse.Namespace) -> int:
    found = diagnose(read_samples(options.data, columns=options.columns))
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

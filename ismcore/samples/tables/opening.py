"""Opening what samples are read from: regular files, compressed or not, and streams; each within the memory there is."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, BinaryIO

from ismcore.errors import SamplesError

__all__ = ["CODECS", "MOST_LINE", "PIECE", "damage_named", "lines_of", "member_of", "memory", "regular", "room"]

CODECS = (".gz", ".bz2", ".xz", ".zip")
"""Endings of compressed tables."""

MOST_LINE = 2**24
"""Characters of the longest line that is read."""

PIECE = 2**20
"""Bytes that are read at once."""

MOST_UNKNOWN = 2**36
"""Bytes that are read at most where the system does not say how much memory it has."""


def memory() -> int | None:
    """Bytes of memory of this machine, where the system says."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def room() -> int:
    """Bytes that samples may take: half of the memory, as they are copied once."""
    return (memory() or MOST_UNKNOWN) // 2


@contextmanager
def regular(path: str) -> Iterator[BinaryIO]:
    """A regular file, opened once; opening a pipe would wait, and a device has no end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a zero byte
        raise SamplesError(f"it is no path: {error}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise SamplesError(
            "it is no regular file, but a pipe or a device; write the samples to a file first, or pass a text table to the "
            "command's standard input, as -"
        )
    with open(descriptor, "rb") as stream:
        yield stream


@contextmanager
def damage_named() -> Iterator[None]:
    """Have whatever a codec or a parser raises be a `SamplesError`; the system's own errors stay.

    They raise what they like: zlib.error, LZMAError, TokenError, RuntimeError, and polars' a BaseException.
    """
    try:
        yield
    except (SamplesError, UnicodeDecodeError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None:  # bzip2 raises one without a number
            raise
        what = str(error) or type(error).__name__
        raise SamplesError(f"it is damaged, encrypted, or holds no plain numbers: {what[:200]}") from error


def member_of(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A file in an archive, if it is compressed in a way that inflates by parts: the others do all at once, to any size."""
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SamplesError("it is damaged, or compressed by another method than deflate")
    return archive.open(member)


@contextmanager
def lines_of(source: str | BinaryIO) -> Iterator[Iterator[str]]:
    """The lines of a text: of a file, by its name and compressed as that ends, or of a binary stream, which stays open.

    utf-8-sig: some spreadsheets begin a text with a byte order mark, which would stick to the first cell.

    Raises:
        SamplesError: What is inflated or streamed is longer than half of the memory, a line longer than `MOST_LINE`, or the
            file damaged or no regular one.
        UnicodeDecodeError: It is no text in UTF-8.
    """
    if not isinstance(source, str):
        with io.TextIOWrapper(io.BufferedReader(_Bounded(source)), encoding="utf-8-sig") as text:
            yield _lines(text)
        return
    suffix = Path(source).suffix.lower()
    with regular(source) as stream, damage_named() if suffix in CODECS else nullcontext():
        with _inflated(stream, suffix) as plain, io.TextIOWrapper(plain, encoding="utf-8-sig") as text:
            yield _lines(text)


@contextmanager
def _inflated(stream: BinaryIO, suffix: str) -> Iterator[IO[bytes]]:
    if suffix not in CODECS:
        yield stream
        return
    if suffix == ".zip":
        with zipfile.ZipFile(stream) as archive, member_of(archive, _only_text(archive)) as member:
            yield io.BufferedReader(_Bounded(member))
        return
    codecs: dict[str, Callable[[BinaryIO], Any]] = {
        ".gz": lambda file: gzip.GzipFile(fileobj=file),
        ".bz2": bz2.BZ2File,
        ".xz": lzma.LZMAFile,
    }
    with codecs[suffix](stream) as codec:
        yield io.BufferedReader(_Bounded(codec))


def _only_text(archive: zipfile.ZipFile) -> str:
    """The name of the table in an archive, beside which there may be folders, and what macOS puts there."""
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        held = ", ".join(names[:10]) + (f" and {len(names) - 10} others" if len(names) > 10 else "")
        raise SamplesError(f"it must hold one table; it holds {held[:500] or 'none'}")
    if Path(names[0]).suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise SamplesError(f"it must hold a .csv, .tsv or .txt table; it holds {names[0][:200]!r}")
    return names[0]


class _Bounded(io.RawIOBase):
    """What another stream gives, as long as it fits into memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, room()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        part = self._stream.read(len(buffer))
        if not isinstance(part, bytes):
            raise SamplesError("a stream must be binary, such as sys.stdin.buffer, and ready to be read")
        self._left -= len(part)
        if self._left < 0:
            raise SamplesError(f"its text is longer than the {room()} bytes that fit into half of the memory here")
        buffer[: len(part)] = part
        return len(part)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    n = 0
    while line := text.readline(MOST_LINE):
        n += 1
        if len(line) == MOST_LINE and not line.endswith("\n"):
            raise SamplesError(f"line {n} is longer than {MOST_LINE} characters")
        yield line

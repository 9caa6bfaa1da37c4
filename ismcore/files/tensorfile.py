"""The file format of ismcore: a safetensors file with one metadata key, verified to the last bit when it is read.

The key `ismcore` holds canonical JSON (sorted keys, no white space, so that equal content gives equal bytes):

    {"content": {...}, "kind": "result", "schema": "ismcore/2", "sha256": "..."}

safetensors checks the layout of a file, but not its content: a flipped bit in a tensor loads silently, and so do repeated
keys and odd names. Hence the checksum, which is over name, dtype, shape and bytes of all tensors and all other metadata.
What a header claims is held against the size of the file before anything of that size is read or allocated, and arrays are
read one by one, by position: safetensors' own reader takes the file's size twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from ismcore.errors import FileInvalid, ParameterError
from ismcore.models.trees import check_name
from ismcore.ops import Params
from ismcore.samples.tables.opening import memory

__all__ = ["SCHEMA", "Contents", "pack", "read", "read_any"]

SCHEMA = 2
"""Version of the format. A reader takes all versions up to its own. Schema 1 had the mean and scale of the columns alone, as
`standardize.mean` and `standardize.scale`, for coordinates, no names of columns and no run id."""

DTYPES = {"BOOL": "|b1", "I32": "<i4", "I64": "<i8", "U64": "<u8", "F32": "<f4", "F64": "<f8"}
"""The dtypes that a file can hold, by safetensors' names."""

MAX_HEADER = 100_000_000
"""Bytes; safetensors' own limit."""


def pack(kind: str, content: Mapping[str, Any], tensors: Params) -> bytes:
    """The bytes of a file.

    Args:
        kind: What the file is, for example "result".
        content: Values that JSON can hold.
        tensors: Arrays by name, in any memory order.

    Raises:
        ParameterError: A name or a dtype that files do not have.
    """
    from safetensors.numpy import save

    plain = {name: _plain(name, array) for name, array in tensors.items()}
    metadata = {"schema": f"ismcore/{SCHEMA}", "kind": kind, "content": content}
    return save(plain, {"ismcore": _canonical({**metadata, "sha256": _digest(metadata, plain)})})


def _plain(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    dtype = array.dtype.newbyteorder("<")
    check_name(name)
    if dtype.str not in DTYPES.values():
        raise ParameterError(f"{name} has the dtype {array.dtype}, which a file cannot hold; it holds {', '.join(DTYPES)}")
    # A copy, in this order: safetensors 0.8.0 writes strided, reversed and broadcast arrays wrongly (its issue 825).
    return np.array(array, dtype=dtype, order="C")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(metadata: Mapping[str, Any], tensors: Params) -> str:
    digest = hashlib.sha256(_canonical(metadata).encode())
    for name, array in sorted(tensors.items()):
        digest.update(_canonical([name, array.dtype.str, array.shape]).encode())
        digest.update(_bytes(np.ascontiguousarray(array)).data)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Contents:
    """All that a file holds.

    Attributes:
        kind: What the file is, for example "result".
        schema: Version of the format that it is written in.
        content: The values that were packed.
        tensors: The arrays by name, read-only.
        sha256: The checksum, which was found to be right.
        size: Bytes of the file.
    """

    kind: str
    schema: int
    content: dict[str, Any]
    tensors: Params
    sha256: str
    size: int


def read(path: str, kind: str) -> tuple[dict[str, Any], Params]:
    """Content and tensors of a file of this kind, verified; see `read_any`."""
    found = read_any(path, kind)
    return found.content, found.tensors


def read_any(path: str, kind: str | None = None) -> Contents:
    """All that a file holds, verified. What is allocated is bounded by the file's own size.

    Args:
        path: The file.
        kind: The kind that it must be of; any if None.

    Raises:
        FileInvalid: The file is truncated, altered, of a newer schema or of another kind. The message does not name it.
        OSError: There is no such file, or it cannot be read.
    """
    # Opening a pipe would wait, and a device has no end: what it is, is asked of what was opened.
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a zero byte
        raise FileInvalid(f"it is no path: {error}") from error
    with open(descriptor, "rb") if _is_regular(descriptor) else _refused(descriptor) as stream:
        size = os.fstat(descriptor).st_size
        header = _read_header(stream, size)
        metadata, schema = _metadata(header, kind)
        tensors = _tensors(stream, _entries(header, size - stream.tell()))
    claimed = metadata.pop("sha256", None)
    try:
        found = _digest(metadata, tensors)
    except ValueError as error:  # NaN or an infinity, which canonical JSON does not have
        raise FileInvalid(f"its metadata is not canonical JSON: {error}") from error
    if claimed != found:
        raise FileInvalid("its content does not match its checksum: it was altered after it was written")
    if not isinstance(metadata.get("content"), dict):
        raise FileInvalid("it has no content")
    return Contents(str(metadata["kind"]), schema, metadata["content"], tensors, found, size)


def _read_header(stream: BinaryIO, size: int) -> dict[str, Any]:
    length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(size - 8, MAX_HEADER):
        raise FileInvalid(f"its {size} bytes cannot hold a header of {length}: it is truncated, or no file of ismcore")
    return _parse(stream.read(length))


def _metadata(header: dict[str, Any], kind: str | None) -> tuple[dict[str, Any], int]:
    """The metadata in a header, and the version of its schema."""
    found = header.get("__metadata__")
    if not isinstance(found, dict) or set(found) != {"ismcore"} or not isinstance(found["ismcore"], str):
        raise FileInvalid("it is a safetensors file, but not one of ismcore")
    metadata = _parse(found["ismcore"].encode(errors="surrogatepass"))
    schema = re.fullmatch(r"ismcore/([0-9]{1,9})", str(metadata.get("schema")))
    if schema is None:
        raise FileInvalid(f"its schema is {metadata.get('schema')!r}, which ismcore never writes")
    if int(schema[1]) > SCHEMA:
        raise FileInvalid(
            f"its schema is ismcore/{schema[1]}, and this version of ismcore reads up to ismcore/{SCHEMA}: update ismcore"
        )
    if kind is not None and metadata.get("kind") != kind:
        raise FileInvalid(f"it holds a {metadata.get('kind')!r}, not a {kind!r}")
    return metadata, int(schema[1])


def _entries(header: dict[str, Any], held: int) -> dict[str, tuple[np.dtype[Any], list[int]]]:
    """Dtype and shape of each array by name, in the order of the file, once they are known to fill the bytes after the header.

    Raises:
        FileInvalid: They do not, or no memory can hold them, as of a sparse file.
    """
    found, end = {}, 0
    for name, entry in sorted(((n, e) for n, e in header.items() if n != "__metadata__"), key=_begin):
        if (
            not (name and name.isprintable())
            or entry.keys() != {"dtype", "shape", "data_offsets"}
            or entry["dtype"] not in DTYPES
        ):
            raise FileInvalid(
                f"it holds a tensor {name[:80]!r} of dtype {entry.get('dtype')!r:.40}, which ismcore never writes"
            )
        dtype, shape, offsets = np.dtype(DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        if not isinstance(shape, list) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise FileInvalid(f"it is truncated or altered: the shape of {name[:80]!r} is {shape!r:.80}")
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        if offsets != [begin, end]:
            raise FileInvalid(f"it is truncated or altered: its header says that {name[:80]!r} lies at {offsets!r:.80}")
        found[name] = dtype, shape
    if end != held:
        raise FileInvalid(f"it is truncated or altered: its header claims {end} bytes of arrays, and it holds {held}")
    room = memory()
    if room is not None and held > room:
        raise FileInvalid(f"its arrays of {held} bytes do not fit into the {room} bytes of memory here")
    return found


def _begin(item: tuple[str, Any]) -> tuple[int, int, str]:
    """Where an array begins and ends, by which they are sorted; an empty one comes before the one that begins there."""
    offsets = item[1].get("data_offsets") if isinstance(item[1], dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(at) is int for at in offsets):
        raise FileInvalid(f"it is truncated or altered: its header does not say where {item[0][:80]!r} lies")
    return offsets[0], offsets[1], item[0]


def _parse(text: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FileInvalid(f"its header is no valid JSON ({error}): it is altered, or no file of ismcore") from error
    if not isinstance(parsed, dict):
        raise FileInvalid("its header is no JSON object: it is no file of ismcore")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _tensors(stream: BinaryIO, entries: Mapping[str, tuple[np.dtype[Any], list[int]]]) -> Params:
    """The arrays, read one by one into memory of their own, read-only."""
    found = {}
    for name, (dtype, shape) in entries.items():
        try:
            array = np.empty(shape, dtype)
        except (MemoryError, ValueError) as error:
            raise FileInvalid("it does not fit into memory") from error
        if array.size and stream.readinto(_bytes(array)) != array.nbytes:  # type: ignore[attr-defined]
            raise FileInvalid("it is truncated: another process is writing it")
        array.setflags(write=False)
        found[name] = array
    return found


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory of a contiguous array, as bytes."""
    return array.reshape(-1).view(np.uint8)


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _refused(descriptor: int) -> BinaryIO:
    os.close(descriptor)
    raise FileInvalid("it is no regular file")

"""Sources over what others read: arrays on disk, `.npy`, parquet, zarr, and whatever can be iterated block by block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from os import PathLike
from typing import Any

import numpy as np

from ismcore.errors import OptionError, SamplesError
from ismcore.samples.sources.source import Source, as_block, check_block_rows
from ismcore.samples.tables.frames import in_order, labels_of, names_of

__all__ = ["array", "iterable", "npy", "parquet", "zarr"]


def array(x: Any, *, names: Sequence[str] | None = None, block_rows: int | None = None) -> Source:
    """A source over an array that is read by slices x[a:b]: a NumPy array or memory map, an array of h5py or zarr.

    Pages of a memory map that were read count as resident memory of the process for as long as the map is there, though the
    system takes them back as soon as it needs them; `npy` maps no more than it reads.

    Args:
        x: Rows, (n, d) or (n,).
        names: Names of the columns, (d,); those of a frame if None.
        block_rows: Most rows that are read at once; see `Source`.

    Raises:
        SamplesError: It has no such shape.
    """
    return _Array(lambda: x, names, block_rows)


def npy(path: str | PathLike[str], *, names: Sequence[str] | None = None, block_rows: int | None = None) -> Source:
    """A source over a `.npy` file, which NumPy maps and no more than a block at a time is read of.

    Args:
        path: The file: one array, (n, d) or (n,).
        names: Names of the columns, (d,).
        block_rows: Most rows that are read at once; see `Source`.

    Raises:
        SamplesError: It holds no such array.
        FileNotFoundError: There is no such file.
    """
    where = os.path.abspath(os.fspath(path))

    def mapped() -> Any:
        try:
            return np.load(where, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise SamplesError(f"{where} cannot be mapped as an array of numbers: {error}") from error

    return _Array(mapped, names, block_rows)


def zarr(path: Any, *, names: Sequence[str] | None = None, block_rows: int | None = None) -> Source:
    """A source over a zarr array, (n, d) or (n,), which the package zarr opens; chunks of whole rows are read best.

    Args:
        path: What `zarr.open_array` takes: a path or a store.
        names: Names of the columns, (d,).
        block_rows: Most rows that are read at once; see `Source`.

    Raises:
        OptionError: zarr is not installed.
        SamplesError: The array has no such shape.
    """
    opened = _imported("zarr", "zarr").open_array(path, mode="r")
    return _Array(lambda: opened, names, block_rows)


def parquet(path: Any, *, columns: Sequence[str] | None = None, block_rows: int | None = None) -> Source:
    """A source over parquet files, which pyarrow reads, one row group at a time.

    A block costs the reading of all row groups that it has rows of: groups of about `block_rows` rows are best.

    Args:
        path: What `pyarrow.dataset.dataset` takes, such as a file, a folder of files or a list of files; or such a dataset.
        columns: Which columns, by name, in this order; all if None.
        block_rows: Most rows that are read at once; see `Source`.

    Raises:
        OptionError: pyarrow is not installed.
        SamplesError: There are no such columns, or one holds no numbers.
    """
    return _Parquet(path, columns, block_rows)


def iterable(
    blocks: Iterable[Any] | Callable[[int], Iterable[Any]],
    *,
    rows: int | None = None,
    names: Sequence[str] | None = None,
    block_rows: int | None = None,
) -> Source:
    """A source over blocks of rows that are to be had in one order alone: a list of arrays, a `torch.utils.data.DataLoader`.

    Rows are mixed within a window of 16 blocks of `block_rows` rows, whatever the sizes of the blocks that come. A fit goes on
    to the same bits where each iteration gives the same rows. One that shuffles by itself gives others, and is refused unless
    nothing is held out, or `validation=` is rows beside them.

    Args:
        blocks: What can be iterated again and again, each item (m, d) or (m,), or a list of one such; or a function of the
            epoch, from 0, that gives something to iterate over.
        rows: How many rows come in all; counted by an iteration of its own if None.
        names: Names of the columns, (d,); those of the first block if None, by which the columns of frames are put in order.
        block_rows: Most rows of a block of the fit; see `Source`.

    Raises:
        OptionError: It can be iterated once only.
        SamplesError: There are no blocks, or one cannot be used.
    """
    return _Iterable(blocks, rows, names, block_rows)


class _Array(Source):
    """Rows by slices of what `opened` gives, each time anew, so that no map outlives a block."""

    def __init__(self, opened: Callable[[], Any], names: Sequence[str] | None, block_rows: int | None) -> None:
        self._opened = opened
        shape = tuple(getattr(opened(), "shape", ()))
        if len(shape) not in (1, 2) or 0 in shape:
            raise SamplesError(f"a source must have shape (n, d) or (n,), with rows and columns; got {shape}")
        self._shape = (int(shape[0]), int(shape[1]) if len(shape) == 2 else 1)
        names = names_of(opened()) if names is None else names
        self.names, self.block_rows = _checked(names, self._shape[1]), check_block_rows(block_rows)

    @property
    def shape(self) -> tuple[int, int]:
        """See `Source`."""
        return self._shape

    def read(self, start: int, stop: int) -> Any:
        """See `Source`."""
        return np.array(self._opened()[start:stop])


class _Parquet(Source):
    """Rows by row groups of a dataset of pyarrow."""

    def __init__(self, path: Any, columns: Sequence[str] | None, block_rows: int | None) -> None:
        dataset = path if hasattr(path, "get_fragments") else _dataset(path)
        found = list(dataset.schema.names)
        self._columns = found if columns is None else list(columns)
        missing = [name for name in self._columns if name not in found]
        if missing or not self._columns:
            raise SamplesError(
                f"the dataset has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, found))}"
            )
        types = _imported("pyarrow.types", "pyarrow")
        for name in self._columns:
            kind = dataset.schema.field(name).type
            if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
                raise SamplesError(f"column {name!r} of the dataset holds {kind} and no numbers: choose others by columns=")
        self._groups = [group for part in dataset.get_fragments() for group in part.split_by_row_group()]
        sizes = [sum(group.num_rows for group in part.row_groups) for part in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.names, self.block_rows = tuple(self._columns), check_block_rows(block_rows)

    @property
    def shape(self) -> tuple[int, int]:
        """See `Source`."""
        return int(self._starts[-1]), len(self._columns)

    def read(self, start: int, stop: int) -> Any:
        """See `Source`."""
        found = np.empty((stop - start, len(self._columns)))
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for k in range(first, int(np.searchsorted(self._starts, stop, side="left"))):
            begin, end = max(start, int(self._starts[k])), min(stop, int(self._starts[k + 1]))
            if begin == end:
                continue
            table = self._groups[k].to_table(columns=self._columns, use_threads=False)
            part = table.slice(begin - int(self._starts[k]), end - begin)
            for j, column in enumerate(part.columns):
                numbers = column.cast("float64") if str(column.type) == "bool" else column
                found[begin - start : end - start, j] = numbers.to_numpy()
        return found


class _Iterable(Source):
    """Rows in the order in which they come, cut anew into the blocks of the layout."""

    def __init__(self, blocks: Any, rows: int | None, names: Sequence[str] | None, block_rows: int | None) -> None:
        if isinstance(blocks, Iterator):
            raise OptionError(
                f"a {type(blocks).__name__} can be iterated once only, and a fit reads its rows again each epoch: pass a list, "
                "a DataLoader, or a function of the epoch that gives a new one"
            )
        if isinstance(blocks, np.ndarray):
            raise OptionError("an array is no iterable of blocks: pass ismcore.sources.array(x)")
        if not callable(blocks) and not isinstance(blocks, Iterable) and not hasattr(blocks, "__getitem__"):
            raise OptionError(f"blocks must be something to iterate over, or a function that gives it, not {blocks!r:.80}")
        self._blocks = blocks
        first = next(self._of_epoch(0), None)
        if first is None:
            raise SamplesError("a source must have rows, and no block came")
        d = as_block(first, "block 0 from 0").shape[1]
        self.names, self.block_rows = _checked(names_of(first) if names is None else names, d), check_block_rows(block_rows)
        self._shape = (sum(map(len, self._given(0, d))) if rows is None else int(rows), d)

    @property
    def shape(self) -> tuple[int, int]:
        """See `Source`."""
        return self._shape

    def order(self, epoch: int | None, seed: int) -> np.ndarray:
        """See `Source`: as they come, whatever the epoch."""
        return super().order(None, seed)

    def read(self, start: int, stop: int) -> Any:
        """See `Source`."""
        raise OptionError("what is iterated over cannot be read from any row on")

    def blocks(self, epoch: int | None, seed: int, rank: int = 0, world: int = 1, start: int = 0) -> Iterator[np.ndarray]:
        """See `Source`; those that are left out are iterated over all the same."""
        parts: list[np.ndarray] = []
        kept, number, layout = 0, 0, self.layout
        for part in self._given(epoch or 0, self.shape[1]):
            parts.append(part.copy())  # whoever gives them may use the same array again
            kept += len(part)
            while number < layout.blocks and kept >= (size := np.diff(layout.bounds(number))[0]):
                joined = np.concatenate(parts)
                if number >= start and number % world == rank:
                    yield joined[:size].copy()
                parts, kept, number = [joined[size:]], kept - size, number + 1
        if number < layout.blocks or kept:
            more = "more rows" if number == layout.blocks else f"{layout.bounds(number)[0] + kept} rows"
            raise SamplesError(f"the blocks gave {more} in epoch {epoch or 0}, and the source has {layout.rows}")

    def _of_epoch(self, epoch: int) -> Iterator[Any]:
        return iter(self._blocks(epoch) if callable(self._blocks) else self._blocks)

    def _given(self, epoch: int, d: int) -> Iterator[np.ndarray]:
        """Blocks, (m, d) float64 each, the columns of frames in the order of the names."""
        for number, block in enumerate(self._of_epoch(epoch)):
            name = f"block {number} from 0"
            found = as_block(block, name, d)
            try:
                order = in_order(labels_of(block), self.names or tuple(map(str, range(d))))
            except SamplesError as error:
                raise SamplesError(f"{name}: {error}") from error
            yield found if order is None else found[:, order]


def _checked(names: Sequence[str] | None, d: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    found = tuple(names)
    if len(found) != d or not all(isinstance(name, str) for name in found):
        raise OptionError(f"names must be {d} strings, one a column, not {names!r:.80}")
    return found


def _dataset(path: Any) -> Any:
    arrow = _imported("pyarrow.dataset", "pyarrow")
    try:
        return arrow.dataset(path, format="parquet")
    except (ValueError, TypeError) as error:  # pyarrow's own are of these
        raise SamplesError(f"{path!r:.200} is no dataset of parquet files: {error}") from error


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise OptionError(f"this source is read by {package}, which is not installed: pip install {package}") from error

"""What a fit reads where its rows are not in memory: the protocol, and how rows are cut into blocks, whatever they lie in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ismcore.errors import OptionError, SamplesError
from ismcore.samples.tables.frames import array_of
from ismcore.seeds import stream

__all__ = ["LANES", "Layout", "Source", "as_block"]

LANES = 16
"""Blocks whose rows are mixed: a window. Of n processes each reads every n-th of them, so that there are at most so many."""
MOST_BLOCK_ROWS, BLOCK_NUMBERS, LEAST_BLOCK_ROWS = 2**16, 2**19, 2**10
"""A block has at most so many rows, and about so many numbers, but from the last on it is not made smaller for that."""
FEWEST = 10 * LANES
"""Rows that a source has at least."""


@dataclass(frozen=True)
class Layout:
    """How n rows are cut into blocks: by their number alone, so that what they are stored in changes nothing.

    There are B = 16 min(ceil(n / (16 block_rows)), floor(n / 32)) blocks, so that each has two rows at least; block k holds the
    rows from floor(k n / B) to before floor((k + 1) n / B), so that sizes differ by one at most. A window is 16 blocks, one
    after another in an epoch's order.

    Attributes:
        rows: n.
        block_rows: Most rows of a block; two, if less.
    """

    rows: int
    block_rows: int

    @property
    def blocks(self) -> int:
        """B, a multiple of 16."""
        return LANES * min(-(-self.rows // (LANES * self.block_rows)), self.rows // (2 * LANES))

    @property
    def windows(self) -> int:
        """Windows of an epoch."""
        return self.blocks // LANES

    @property
    def width(self) -> int:
        """Rows of the largest block."""
        return -(-self.rows // self.blocks)

    def bounds(self, number: int) -> tuple[int, int]:
        """The first row of a block, and the one after its last."""
        return number * self.rows // self.blocks, (number + 1) * self.rows // self.blocks


class Source(ABC):
    """Rows that are read in blocks, because they are not, or need not be, in memory.

    A subclass gives `shape` and `read`, and `names` where there are some. An epoch is a sequence of all blocks of `layout`; the
    process `rank` of `world` gets those at the places rank, rank + world, ... of it.

    Attributes:
        names: Names of the columns, (d,); None where they have none.
        block_rows: Most rows of a block; None for 65,536, and fewer of many columns, about 524,288 numbers.
    """

    names: tuple[str, ...] | None = None
    block_rows: int | None = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns, (n, d)."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Any:
        """The rows from `start` to before `stop`, (stop - start, d); called by one thread at a time."""

    @cached_property
    def layout(self) -> Layout:
        """How the rows are cut into blocks.

        Raises:
            SamplesError: There are fewer than 160 rows.
        """
        n, d = self.shape
        if n < FEWEST:
            raise SamplesError(f"a source must have at least {FEWEST} rows, and this one has {n}: pass them as an array")
        most = min(MOST_BLOCK_ROWS, max(LEAST_BLOCK_ROWS, 1 << (BLOCK_NUMBERS // d).bit_length() - 1))
        return Layout(n, most if self.block_rows is None else self.block_rows)

    def order(self, epoch: int | None, seed: int) -> np.ndarray:
        """Numbers of the blocks in the order of an epoch, (B,): drawn from the seed; as they lie, where the epoch is None."""
        count = self.layout.blocks
        return np.arange(count) if epoch is None else stream(seed, "blocks", epoch).permutation(count)

    def blocks(self, epoch: int | None, seed: int, rank: int = 0, world: int = 1, start: int = 0) -> Iterator[np.ndarray]:
        """Blocks of rows, (m, d) float64 each, in the order of an epoch.

        Args:
            epoch: From 0; None for the order in which the rows lie.
            seed: Source of the order.
            rank: Number of this process, from 0.
            world: Processes, each of which gets other blocks.
            start: So many blocks of the epoch, of all processes, are left out at its beginning, where a run goes on.

        Raises:
            SamplesError: A block cannot be used; the message names it.
        """
        order = self.order(epoch, seed)
        for place in range(start + (rank - start) % world, len(order), world):
            first, last = self.layout.bounds(int(order[place]))
            name = f"the block of rows {first} to {last - 1}"
            found = as_block(self.read(first, last), name, self.shape[1])
            if len(found) != last - first:
                raise SamplesError(f"{name} came with {len(found)} rows")
            yield found


def as_block(block: Any, name: str, d: int | None = None) -> np.ndarray:
    """Rows of a source as float64, (m, d), all finite.

    Args:
        block: An array or tensor, (m, d) or (m,); or a list of one, as a `DataLoader` of a `TensorDataset` gives it.
        name: What it is called in an error.
        d: Columns that it must have.

    Raises:
        SamplesError: It is none of these.
    """
    if isinstance(block, tuple | list) and len(block) == 1:
        block = block[0]
    try:
        array = np.asarray(block.detach() if hasattr(block, "detach") else array_of(block))
    except SamplesError as error:
        raise SamplesError(f"{name}: {error}") from error
    except Exception as error:  # making itself an array, an object of the caller's may raise anything
        raise SamplesError(f"{name} is no array of numbers: {error}") from error
    if array.ndim == 1 and array.dtype.kind in "fiub":
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise SamplesError(f"{name} must be numbers of shape (m, d), and is {array.dtype} of shape {array.shape}")
    if d is not None and array.shape[1] != d:
        raise SamplesError(f"{name} has {array.shape[1]} columns, and the source has {d}")
    found = np.ascontiguousarray(array, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise SamplesError(
            f"{name} holds NaN or infinite values in {len(bad)} of {len(found)} rows, the first at {bad[:5].tolist()} from its "
            "start: drop or mend these rows"
        )
    return found


def check_block_rows(block_rows: Any) -> int | None:
    """Most rows of a block, or None.

    Raises:
        OptionError: It is no whole number from 1.
    """
    if block_rows is None:
        return None
    if isinstance(block_rows, bool) or not isinstance(block_rows, int | np.integer) or block_rows < 1:
        raise OptionError(f"block_rows must be a whole number from 1, or None, not {block_rows!r}")
    return int(block_rows)

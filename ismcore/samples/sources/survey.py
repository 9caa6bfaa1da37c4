"""One pass over a source before a fit: moments of all rows, rows to look at, and rows to hold out."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ismcore.errors import SamplesError
from ismcore.samples.sources.source import LANES, Layout, Source
from ismcore.seeds import stream

__all__ = ["Survey", "surveyed"]

NUMBERS, LEAST_ROWS, MOST_ROWS = 2**22, 2**12, 2**17
"""Rows that are kept in memory to look at, and those held out: so many numbers, but no fewer rows than this, and no more."""
RUNS = 64
"""The rows to look at are runs of rows one after another, from so many places."""
KEPT = 0.25
"""Least share of a block's rows that are not held out that is trained on, whatever the gap beside those held out."""
LARGER = 1.25
"""Blocks that are to have room for a gap are tried at so many times the rows, one after another."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What is known of a source's rows, and which of them are trained on.

    Of each block one run of rows, one after another, is held out, at a place that is drawn from the seed.

    Attributes:
        source: The source.
        seed: Source of the choice of rows.
        share: Of the rows, to hold out.
        held: Rows held out in all.
        mean: Of each column over all rows, (d,).
        scale: Standard deviation of each column, (d,).
        least: (d,), and `most`: the range of each column.
        sample: Rows that are trained on, (m, d): all, or runs from 64 places.
        held_out: Rows held out, (h, d).
        time: Rows on either side of those held out that depend on them, of this block and of those beside it.
        gap: Those of them that are not trained on.
    """

    source: Source
    seed: int
    share: float
    held: int
    mean: np.ndarray
    scale: np.ndarray
    least: np.ndarray
    most: np.ndarray
    sample: np.ndarray
    held_out: np.ndarray
    time: int = 0
    gap: int = 0

    @property
    def n(self) -> int:
        """Rows of the source."""
        return self.source.layout.rows

    def with_gap(self, time: int) -> Survey:
        """The same without up to `time` rows on either side of those held out, but a quarter of a block's others is kept."""
        return replace(self, time=time, gap=self._cut.widest(time))

    def roomy(self) -> int | None:
        """`block_rows` of which blocks have room for the whole gap, and where they can for one twice as wide.

        The time is found anew with them, and larger, as fewer rows are missing from within the sample. With a share s held out,
        a block of w rows has room on either side and for its neighbours where 4 time <= 0.75 (1 - s) w, and often before. It is
        None where 16 blocks have none.
        """
        twice, rows, room = 2 * self.time, self.source.layout.width, self.gap
        fewest = math.ceil(4 * twice / ((1.0 - KEPT) * (1.0 - min(self.share, 0.9))))
        most = -(-self.n // LANES)
        while rows < most and room < twice:
            rows = min(max(fewest, math.ceil(LARGER * rows)), most)
            layout = Layout(self.n, rows)
            room = _Cut(layout, self.seed, _held(layout, self.source.shape[1], self.share)).widest(twice)
        return rows if room >= self.time else None

    @cached_property
    def _cut(self) -> _Cut:
        return _Cut(self.source.layout, self.seed, self.held)

    @cached_property
    def _trained(self) -> np.ndarray:
        return np.asarray(self._cut.stretches(self.gap)[0] - self._cut.blocks[:, :1, None])

    def held_run(self, number: int) -> tuple[int, int]:
        """The rows of a block that are held out, counted from its first: from the first number to before the second."""
        return self._cut.run(number)

    def trained(self, number: int) -> np.ndarray:
        """The rows of a block that are trained on, counted from its first."""
        return np.concatenate([np.arange(*stretch) for stretch in self._trained[number]])

    def check(self, number: int, block: np.ndarray) -> None:
        """Refuse a block, (m, d), whose rows held out are not those of the pass before the training: they might be trained on.

        Raises:
            SamplesError: See above.
        """
        start, stop = self.held_run(number)
        first = number * self.held // self.source.layout.blocks
        if not np.array_equal(block[start:stop], self.held_out[first : first + stop - start]):
            rows = self.source.layout.bounds(number)
            raise SamplesError(
                f"rows {rows[0]} to {rows[1] - 1} of the source are not those that it had before the training, and rows held "
                "out might be trained on: give blocks that are not shuffled, or validation=0, or validation= as other rows"
            )

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many rows of each block are trained on, (B,)."""
        return self._cut.stretches(self.gap)[1]

    @property
    def digest(self) -> str:
        """By which other rows are noticed: a hash of their moments, their range, and those that are kept."""
        found = hashlib.sha256(repr((self.source.shape, self.source.layout)).encode())
        for array in (self.mean, self.scale, self.least, self.most, self.sample, self.held_out):
            found.update(array.tobytes())
        return found.hexdigest()


def surveyed(source: Source, share: float, seed: int) -> Survey:
    """Read all rows of a source once, in the order in which they lie.

    Args:
        source: The source.
        share: Of the rows, to hold out, but at most 131,072 rows, or about 4 million numbers.
        seed: Source of the choice of rows.

    Raises:
        SamplesError: A block cannot be used; the message names it.
    """
    d, layout = source.shape[1], source.layout
    held = _held(layout, d, share)
    cut = _Cut(layout, seed, held)
    every = max(1, layout.blocks // RUNS)
    length = _most(d) // -(-layout.blocks // every)
    moments, sample, held_out = _Moments(d), [], []
    for number, block in enumerate(source.blocks(None, seed)):
        moments.add(block)
        start, stop = cut.run(number)
        held_out.append(block[start:stop].copy())
        if number % every == 0:
            run = np.ones(min(length, len(block)), dtype=bool)
            run[start:stop] = False
            sample.append(block[: len(run)][run])
    return Survey(source, seed, share, held, *moments.found(), np.concatenate(sample), np.concatenate(held_out))


def _most(d: int) -> int:
    """Rows of d columns that are kept in memory, at most."""
    return int(np.clip(NUMBERS // d, LEAST_ROWS, MOST_ROWS))


def _held(layout: Layout, d: int, share: float) -> int:
    """Rows held out in all: one of each block at least, and each block keeps one to train on."""
    held = min(round(share * layout.rows), _most(d), layout.blocks * (layout.rows // layout.blocks - 1))
    return max(held, layout.blocks) if share else held


@dataclass(frozen=True)
class _Cut:
    """Which rows of the blocks of a layout are held out, and which may be trained on beside them."""

    layout: Layout
    seed: int
    held: int

    def run(self, number: int) -> tuple[int, int]:
        """The rows of a block that are held out, counted from its first: from the first number to before the second."""
        first, last = self.layout.bounds(number)
        size, blocks = last - first, self.layout.blocks
        count = (number + 1) * self.held // blocks - number * self.held // blocks
        if not count:
            return 0, 0
        start = int(stream(self.seed, "held out", number).integers(size - count + 1))
        return start, start + count

    @cached_property
    def blocks(self) -> np.ndarray:
        """The first row of each block, and the one after its last, (B, 2)."""
        return np.array([self.layout.bounds(number) for number in range(self.layout.blocks)])

    @cached_property
    def runs(self) -> np.ndarray:
        """The first row that is held out of each block, and the one after the last, (B, 2)."""
        return np.asarray(self.blocks[:, :1] + np.array([self.run(number) for number in range(len(self.blocks))]))

    def widest(self, time: int) -> int:
        """The most rows, up to `time`, that can be left out on either side of those held out; see `Survey.with_gap`."""
        least, most = 0, time if self.held else 0
        others = np.diff(self.blocks)[:, 0] - np.diff(self.runs)[:, 0]
        fewest = np.maximum(1, np.ceil(KEPT * others))
        while least < most:  # rows that are trained on become fewer with the gap
            middle = (least + most + 1) // 2
            fits = bool((self.stretches(middle)[1] >= fewest).all())
            least, most = (middle, most) if fits else (least, middle - 1)
        return least

    def stretches(self, gap: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each block that are trained on, (B, 2, 2): from, to before, on either side of those held out; and how many.

        With [s_k, e_k) held out of block k, these are from e_{k-1} + gap to before s_k - gap, and from e_k + gap to before
        s_{k+1} - gap, as far as they lie in the block.
        """
        first, last = self.blocks.T
        start, stop = self.runs.T
        if not self.held:
            start, stop, gap = first, first, 0
        begin = np.maximum(first, np.concatenate([first[:1], stop[:-1] + gap]))
        end = np.minimum(last, np.concatenate([start[1:] - gap, last[-1:]]))
        before = np.stack([begin, np.maximum(begin, start - gap)], axis=1)
        after = np.stack([np.minimum(end, stop + gap), end], axis=1)
        found = np.stack([before, after], axis=1)
        return found, np.diff(found)[:, :, 0].sum(axis=1)


class _Moments:
    """Mean, squares about it and range of rows that come block by block.

    Source: Chan, Golub & LeVeque (1983), Am. Stat. 37:242-247.
    """

    def __init__(self, d: int) -> None:
        self._n, self._mean, self._squares = 0, np.zeros(d), np.zeros(d)
        self._least, self._most = np.full(d, np.inf), np.full(d, -np.inf)

    @np.errstate(all="ignore")
    def add(self, block: np.ndarray) -> None:
        m, mean = len(block), block.mean(axis=0)
        away = mean - self._mean
        total = self._n + m
        self._squares += ((block - mean) ** 2).sum(axis=0) + away**2 * (self._n * m / total)
        self._mean = self._mean + away * (m / total)
        self._n = total
        self._least = np.minimum(self._least, block.min(axis=0))
        self._most = np.maximum(self._most, block.max(axis=0))

    def found(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Mean, standard deviation, least and most.

        Raises:
            SamplesError: Squares overflow.
        """
        scale = np.sqrt(self._squares / self._n)
        if not (np.isfinite(self._mean) & np.isfinite(scale)).all():
            raise SamplesError("the rows spread so far that their squares overflow float64: give them in larger units")
        return self._mean, scale, self._least, self._most

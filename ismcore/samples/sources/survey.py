"""One pass over a source before a fit: moments of all rows, rows to look at, and rows to hold out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ismcore.errors import SamplesError
from ismcore.samples.sources.source import Source
from ismcore.seeds import stream

__all__ = ["Survey", "surveyed"]

NUMBERS, LEAST_ROWS, MOST_ROWS = 2**22, 2**12, 2**17
"""Rows that are kept in memory to look at, and those held out: so many numbers, but no fewer rows than this, and no more."""
RUNS = 64
"""The rows to look at are runs of rows one after another, from so many places."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What is known of a source's rows, and which of them are trained on.

    Of each block one run of rows, one after another, is held out, at a place that is drawn from the seed.

    Attributes:
        source: The source.
        seed: Source of the choice of rows.
        held: Rows held out in all.
        mean: Of each column over all rows, (d,).
        scale: Standard deviation of each column, (d,).
        least: (d,), and `most`: the range of each column.
        sample: Rows that are trained on, (m, d): all, or runs from 64 places.
        held_out: Rows held out, (h, d).
        gap: Rows on either side of those held out that are not trained on, as they depend on them.
    """

    source: Source
    seed: int
    held: int
    mean: np.ndarray
    scale: np.ndarray
    least: np.ndarray
    most: np.ndarray
    sample: np.ndarray
    held_out: np.ndarray
    gap: int = 0

    @property
    def n(self) -> int:
        """Rows of the source."""
        return self.source.layout.rows

    def with_gap(self, time: int) -> Survey:
        """The same without up to `time` rows on either side of those held out, but half of a block's other rows at most."""
        return replace(self, gap=min(time, (self.n - self.held) // self.source.layout.blocks // 4))

    def held_run(self, number: int) -> tuple[int, int]:
        """The rows of a block that are held out, counted from its first: from the first number to before the second."""
        return _held_run(self.source, self.seed, self.held, number)

    def trained(self, number: int) -> np.ndarray:
        """The rows of a block that are trained on, counted from its first."""
        first, last = self.source.layout.bounds(number)
        start, stop = self.held_run(number)
        size, gap = last - first, self.gap if stop > start else 0
        return np.concatenate([np.arange(max(0, start - gap)), np.arange(min(size, stop + gap), size)])

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
        return np.array([len(self.trained(number)) for number in range(self.source.layout.blocks)])

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
    n, d = source.shape
    layout = source.layout
    most = int(np.clip(NUMBERS // d, LEAST_ROWS, MOST_ROWS))
    held = min(round(share * n), most, layout.blocks * (n // layout.blocks - 1))  # each block keeps a row to train on
    if share:
        held = max(held, layout.blocks)
    every = max(1, layout.blocks // RUNS)
    length = most // -(-layout.blocks // every)
    moments, sample, held_out = _Moments(d), [], []
    for number, block in enumerate(source.blocks(None, seed)):
        moments.add(block)
        start, stop = _held_run(source, seed, held, number)
        held_out.append(block[start:stop].copy())
        if number % every == 0:
            run = np.ones(min(length, len(block)), dtype=bool)
            run[start:stop] = False
            sample.append(block[: len(run)][run])
    return Survey(source, seed, held, *moments.found(), np.concatenate(sample), np.concatenate(held_out))


def _held_run(source: Source, seed: int, held: int, number: int) -> tuple[int, int]:
    blocks = source.layout.blocks
    first, last = source.layout.bounds(number)
    size, count = last - first, (number + 1) * held // blocks - number * held // blocks
    if not count:
        return 0, 0
    start = int(stream(seed, "held out", number).integers(size - count + 1))
    return start, start + count


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

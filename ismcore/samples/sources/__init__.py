"""Rows from outside of memory: sources that `ismcore.fit` reads in blocks, in a new order each epoch."""

from ismcore.samples.sources.readers import array, iterable, npy, parquet, zarr
from ismcore.samples.sources.source import LANES, Layout, Source

__all__ = ["LANES", "Layout", "Source", "array", "iterable", "npy", "parquet", "zarr"]

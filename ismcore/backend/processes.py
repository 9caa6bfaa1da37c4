"""Several processes that share one fit: what the core asks of them, and which ones the present fits are shared by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from ismcore.errors import Diverged, OptionError

__all__ = ["IN_WORDS", "Processes", "gathered", "of_the_first", "others_told", "rank_and_world", "shared", "shared_by"]

IN_WORDS = "{what}, of {world} that share this fit: go on with ismcore.resume from its checkpoint"
"""What a `WorkerLost` says."""


class Processes(ABC):
    """The processes of a fit, each of which makes the same calls in the same order, or the devices of one.

    Their backend's session sums loss and gradient of each step over them.

    Attributes:
        backend: Name of the backend whose sessions do so.
        rank: Number of this process, from 0.
        world: How many processes there are; 1 where one shares its fits between its devices.
        parts: How many parts the rows of a step are dealt into: one a process, or one a device.
    """

    backend: str
    rank: int
    world: int
    parts: int

    @abstractmethod
    def gather(self, values: Sequence[float]) -> np.ndarray:
        """The values of each process, (world, len(values)), float64.

        Raises:
            WorkerLost: One of them is gone; the message says which.
        """

    @abstractmethod
    def leave(self, error: BaseException) -> None:
        """Tell the others that this process goes, and why, so that none waits for it; sums and `gather` then raise."""


_SHARED: ContextVar[Processes | None] = ContextVar("ismcore_processes", default=None)


def shared() -> Processes | None:
    """The processes that share the fits of this context; None where each process fits for itself."""
    return _SHARED.get()


@contextmanager
def shared_by(processes: Processes | None) -> Iterator[None]:
    """Fits inside of this are shared by the processes; with None each process fits for itself.

    Raises:
        OptionError: They are already shared.
    """
    if processes is not None and shared() is not None:
        raise OptionError("fits are already shared by several processes here")
    token = _SHARED.set(processes)
    try:
        yield
    finally:
        _SHARED.reset(token)


@contextmanager
def others_told() -> Iterator[None]:
    """Leave the others where an error ends a fit that they share, so that none takes a later call of this process for its part.

    A fit that diverges does so in all, as its losses are sums over all.
    """
    try:
        yield
    except BaseException as error:
        if (processes := shared()) is not None and not isinstance(error, Diverged):
            processes.leave(error)
        raise


def rank_and_world() -> tuple[int, int]:
    """The number of this process and how many share a fit; (0, 1) where it fits for itself."""
    processes = shared()
    return (0, 1) if processes is None else (processes.rank, processes.world)


def gathered(value: float) -> np.ndarray:
    """The value of each process, (world,); what each decides from it, all decide alike."""
    processes = shared()
    return np.array([value]) if processes is None else processes.gather([value])[:, 0]


def of_the_first(values: Sequence[float]) -> np.ndarray:
    """What number 0 has for these values, (k,), which each process computes alone, and may round otherwise."""
    processes = shared()
    return np.asarray(values, dtype=np.float64) if processes is None else processes.gather(values)[0]

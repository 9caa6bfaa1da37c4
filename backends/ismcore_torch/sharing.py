"""Fits shared by the processes of `torch.distributed`: one flat sum a step, and a lost process known by its number."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ismcore.backend.processes import IN_WORDS, Processes, shared_by
from ismcore.errors import OptionError, WorkerLost

__all__ = ["TorchProcesses", "processes"]

ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` tells each process."""
ROLL_CALL = 3.0
"""Seconds that the others have to answer, once one of them is missed."""
CLOSED, HERE = b"closed", b"here"
"""Answers to it: that a connection to another process was closed; that there was another error, such as a timeout."""
CLOSING = ("closed by peer", "reset by peer", "broken pipe")
"""What gloo says of a connection that the other end has closed."""
_NUMBERS = count()


@contextmanager
def processes(*, timeout: float = 600.0) -> Iterator[None]:
    """Share every fit inside by all processes of `torch.distributed`, each with its part of the rows of each step.

    Every process runs the same program on the same samples, or the same source. Of the rows of a step process r of K computes
    rows r, r + K, ...; with weights w_i of sum 1 over the rows of all,

        loss = sum_k sum_{i in k} w_i term_i,    gradient = sum_k sum_{i in k} w_i grad term_i,

    by one all-reduce of P + 1 numbers a step, so that all make the same update, and the fit is that of one process up to the
    order of sums. All have the result; that of number 0 alone writes checkpoints and shows progress.

    A process group that is there is used, and left as it is. Where there is none, one is made where the environment of
    `torchrun` is set, and closed at the end. Nothing else in this library makes or uses one: outside of this, each process fits
    for itself. With one process nothing changes.

    Args:
        timeout: Seconds after which a process that does not answer, though its connections stand, counts as lost.

    Raises:
        OptionError: No process group is there, and `torchrun` did not start this process.
        WorkerLost: In a fit: a process died, or left with an error; the message says which. All that are left raise it, and
            `ismcore.resume` goes on from the checkpoint, with any number of processes.
    """
    own = not dist.is_initialized()
    missing = [name for name in ENVIRONMENT if name not in os.environ]
    if own and missing:
        raise OptionError(
            f"no process group is there, and {', '.join(missing)} are not set: start the script by torchrun, or call "
            "torch.distributed.init_process_group before"
        )
    if own:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        if dist.get_world_size() == 1:
            yield
            return
        group = TorchProcesses(timeout)
        try:
            with shared_by(group):
                yield
        except BaseException as error:
            group.leave(error)
            raise
        group.close()
    finally:
        if own:
            with suppress(RuntimeError):  # as where a process of it is gone
                dist.destroy_process_group()


class TorchProcesses(Processes):
    """See `ismcore.backend.processes.Processes`."""

    backend = "torch"

    def __init__(self, timeout: float) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.parts = self.world
        self._host: Any = dist.new_group(timeout=timedelta(seconds=timeout), backend="gloo")
        # where the program's own group is NCCL's it sums nothing on the CPU, and gloo sums best there
        only = dist.get_backend() == "gloo"
        self._device: Any = self._host if only else dist.new_group(timeout=timedelta(seconds=timeout))
        self._store: Any = dist.distributed_c10d._get_default_store()
        self._roll = f"ismcore/{next(_NUMBERS)}"  # the same in all, as all make the same calls
        self._lost = ""

    def total(self, array: torch.Tensor) -> torch.Tensor:
        """The sum of an array over all processes, in its place; the same bits in each.

        Raises:
            WorkerLost: One of them is gone; the message says which.
        """
        group = self._host if array.device.type == "cpu" else self._device
        self._together(lambda: dist.all_reduce(array, group=group))
        return array

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """See `Processes.gather`."""
        table = torch.zeros(self.world, len(values), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        return self.total(table).numpy()

    def _together(self, call: Callable[[], object]) -> None:
        if self._lost:
            raise WorkerLost(self._lost)
        try:
            call()
        except RuntimeError as error:  # whatever gloo or NCCL says where a connection is gone
            self._lost = self._missing(error)
            raise WorkerLost(self._lost) from error

    def leave(self, error: BaseException) -> None:
        """See `Processes.leave`; closes the connections of this process."""
        if not self._lost:
            word = f"ended by {type(error).__name__}"
            self._lost = self._in_words(f"process {self.rank} {word}")
            self._answer(word.encode())

    def close(self) -> None:
        """Give the connections back, after the last fit."""
        if self._lost:  # they are closed
            return
        for group in dict.fromkeys((self._host, self._device)):
            dist.destroy_process_group(group)

    def _answer(self, word: bytes) -> None:
        with suppress(RuntimeError):
            self._store.set(f"{self._roll}/{self.rank}", word)
        for group in dict.fromkeys((self._host, self._device)):
            with suppress(RuntimeError):
                dist.distributed_c10d._abort_process_group(group)

    def _missing(self, error: RuntimeError) -> str:
        """What broke, in words: which process does not answer, or answers that it has left; the error where all are there.

        One that does not answer may be busy. It is gone for sure where it is the only one, and all others saw that a connection
        was closed, which none of them has done.
        """
        own = CLOSED if any(words in str(error).lower() for words in CLOSING) else HERE
        self._answer(own)
        answers: dict[int, bytes] = {self.rank: own}
        end = time.monotonic() + ROLL_CALL
        try:
            while len(answers) < self.world and time.monotonic() < end:
                for rank in set(range(self.world)) - set(answers):
                    if self._store.check([f"{self._roll}/{rank}"]):
                        answers[rank] = self._store.get(f"{self._roll}/{rank}")
                time.sleep(0.05)
        except RuntimeError:  # the store is kept by process 0, where torchrun does not keep it
            return self._in_words("process 0 is gone")
        silent = [rank for rank in range(self.world) if rank not in answers]
        left = [f"process {rank} {word.decode()}" for rank, word in sorted(answers.items()) if word not in (CLOSED, HERE)]
        gone = len(silent) == 1 and set(answers.values()) == {CLOSED}
        why = "is gone" if gone else f"did not answer within {ROLL_CALL:g} s"
        said = [*(f"process {rank} {why}" for rank in silent), *left]
        return self._in_words(", ".join(said) or f"the processes could not sum: {str(error).splitlines()[0]}")

    def _in_words(self, what: str) -> str:
        return IN_WORDS.format(what=what, world=self.world)

"""What a process knows of a framework's threads, which a fork does not take along."""

from __future__ import annotations

import os
from functools import cache

__all__ = ["is_forked"]


@cache
def _first_process(framework: str) -> int:
    return os.getpid()


def is_forked(framework: str) -> bool:
    """Whether this process was forked from one in which a framework ran already; to be asked whenever it is about to run.

    The threads that the framework started are then missing here, and what is handed to them is waited for without end.

    Example:
        >>> is_forked("a framework")
        False
    """
    return _first_process(framework) != os.getpid()

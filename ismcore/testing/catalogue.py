"""All checks, once the modules that hold them are imported."""

from __future__ import annotations

from collections.abc import Iterator

import ismcore.testing.checks  # noqa: F401  (importing it fills the list)
from ismcore.testing.kit import _CHECKS, Check, Item

__all__ = ["all_checks", "all_items"]


def all_checks() -> tuple[Check, ...]:
    """All checks, in the order of a report."""
    return tuple(_CHECKS.values())


def all_items() -> Iterator[Item]:
    """Every check on every one of its cases."""
    for one in all_checks():
        yield from (Item(one, case) for case in one.cases()) if one.cases else (Item(one),)

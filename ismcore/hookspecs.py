"""The hooks of ismcore: all that the author of a plugin must read, beside `ismcore.backend`.

A plugin is a module whose functions, marked with `ismcore.hookimpl`, bear these names, announced under the entry-point group
"ismcore". It is imported when backends are looked up, so it must import nothing heavy. A hook may gain arguments; an
implementation names only those that it uses.
"""

from collections.abc import Iterable
from typing import Any

import pluggy

from ismcore.backend import BackendInfo

__all__ = ["PROJECT", "hookimpl", "ismcore_adopt_model", "ismcore_backends", "ismcore_fit_event"]

PROJECT = "ismcore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ismcore_backends() -> Iterable[BackendInfo]:  # type: ignore[empty-body]
    """The backends that the plugin offers."""


@hookspec(firstresult=True)
def ismcore_adopt_model(model: Any, sample: Any) -> Any:
    """An `ismcore.ScoreFunction` made from a framework's own model, or None if it is not the plugin's."""


@hookspec
def ismcore_fit_event(event: Any) -> None:
    """Called with every `ismcore.training.FitEvent`."""

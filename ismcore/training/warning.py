"""What a fit has to say, through Python's `warnings`: each text once a fit, at the line of the user's that called it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ismcore.errors import IsmError, IsmWarning

__all__ = ["warn_now", "warns"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_said: ContextVar[frozenset[str]] = ContextVar("_said", default=frozenset())
"""What the call in progress has said already."""


def warns(fit: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function that gives every text of its result's `warnings` to Python's, as `IsmWarning`, once all the work is done.

    Where a filter makes errors of them, the first is raised and has the result as its attribute. An error of the function's own
    is never replaced: the warnings of the result that it carries are then shown, not raised.
    """

    @wraps(fit)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        begun = _said.set(frozenset())
        try:
            result = fit(*args, **kwargs)
            _warn_of(result)
        except IsmError as error:
            with suppress(IsmWarning):
                _warn_of(getattr(error, "result", None))
            raise
        finally:
            _said.reset(begun)
        return result

    return run


def warn_now(text: str) -> None:
    """Say something while a fit is under way, which no filter may end: where it raises, the fit says it at its end."""
    with suppress(IsmWarning):
        _warn(text, None)


def _warn_of(result: Any) -> None:
    for text in dict.fromkeys(getattr(result, "warnings", ())):
        _warn(text, result)


def _warn(text: str, result: object) -> None:
    if text in _said.get():
        return
    warnings.warn(IsmWarning(text, result=result), stacklevel=_levels_up())
    _said.set(_said.get() | {text})


def _levels_up() -> int:
    """The `stacklevel` by which `_warn` points at the first line outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ismcore":
        level, frame = level + 1, frame.f_back
    return level

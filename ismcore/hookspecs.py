"""The hooks of ismcore: all that the author of a plugin must read, beside `ismcore.backend`.

A plugin is a module whose functions, marked with `ismcore.hookimpl`, bear these names, announced under the entry-point group
"ismcore". It is imported when backends are looked up, so it must import nothing heavy. A hook may gain arguments; an
implementation names only those that it uses. Implementations are called one by one, so they cannot be wrappers. Name the
entry point as the backend: a plugin that fails to import is known by nothing else.
"""

from collections.abc import Iterable
from typing import Any

import pluggy

from ismcore.backend.contract import BackendInfo

__all__ = [
    "PROJECT",
    "hookimpl",
    "ismcore_adopt_model",
    "ismcore_backends",
    "ismcore_fit_event",
    "ismcore_native_model",
    "ismcore_scenarios",
]

PROJECT = "ismcore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ismcore_backends() -> Iterable[BackendInfo]:  # type: ignore[empty-body]
    """The backends that the plugin offers. A bundled backend's name is taken; a name that two plugins offer, neither gets."""


@hookspec(firstresult=True)
def ismcore_adopt_model(model: Any, sample: Any) -> Any:
    """An `ismcore.models.UserModel` made from a framework's own model, or None if it is not the plugin's.

    `model` is what the user passed: a module of the framework, or an `ismcore.ScoreFunction` for its backend. `sample` holds a
    few rows as the model will be called with: (x,), or (x, context), NumPy arrays. To decide whose a model is, look at
    `sys.modules`: importing a framework is for models that are known to be of it. backends/adoption.md shows a subclass of
    `UserModel`. Names of parameters are any printable text. A `ScoreFunction` that nobody adopts, the core adopts itself.
    Whoever raises an `ismcore.IsmError` refuses the model for all; another exception is reported if nobody adopts it.
    """


@hookspec(firstresult=True)
def ismcore_native_model(result: Any) -> Any:
    """The fitted score of an `ismcore.FitResult` in the backend's framework, or None if it is of another backend.

    Asked for the library's own models, whose result the framework can wrap as it likes: torch gives a `torch.nn.Module`. A
    backend without it gives a function of its arrays.
    """


@hookspec
def ismcore_fit_event(event: Any) -> None:
    """Called with every `ismcore.FitEvent` of a run; `ismcore.tracking` implements it in a few lines.

    A fit that names a bundled backend looks up no other plugin, so an observer of another distribution hears of the runs after
    `ismcore.backends()`, or after the first fit on a backend that is not bundled. One that raises is named in a warning and
    not called again.
    """


@hookspec
def ismcore_scenarios() -> Iterable[Any]:  # type: ignore[empty-body]
    """More scenarios, `ismcore.testing.Scenario`, which the conformance kit checks every backend on, beside its own."""

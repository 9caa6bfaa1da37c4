"""A fit given back in kind: in its framework, or as the user's own module."""

from __future__ import annotations

from typing import Any

from ismcore.backend.contract import Backend
from ismcore.errors import ModelError
from ismcore.plugins.adoption import users_own
from ismcore.plugins.lookup import load_backend
from ismcore.plugins.lookup import native as native_by_plugin

__all__ = ["native"]


def native(result: Any, into: Any = None) -> Any:
    """See `FitResult.native`."""
    engine = load_backend(result.backend)(dtype=result.dtype, device=result.device)
    own, frame = users_own(result.model)
    if own is not None:
        with engine.scope():
            return own.native(engine, result.params, frame, into)
    if into is not None:
        raise ModelError(f"into= takes a module that was passed to fit, and this is a fit of {result.model!r}")
    found = native_by_plugin(result)
    return _function(engine, result) if found is None else found


def _function(engine: Backend, result: Any) -> Any:
    """The fitted score as a function of the framework's arrays, (x, *context) -> (n, d)."""
    with engine.scope():
        params = engine.asarrays(result.params)
    return lambda x, *context: result.model.score(engine.at(x), params, x, *context)

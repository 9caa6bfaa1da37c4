"""A fit given back in kind: in its framework, or as the user's own module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ismcore.backend.contract import Backend
from ismcore.errors import ModelError
from ismcore.models import Energy, Standardized
from ismcore.ops import Array
from ismcore.plugins.adoption import users_own
from ismcore.plugins.lookup import load_backend
from ismcore.plugins.lookup import native as native_by_plugin

__all__ = ["native"]


def native(result: Any, into: Any = None, *, energy: bool = False) -> Any:
    """See `FitResult.native`."""
    engine = load_backend(result.backend)(dtype=result.dtype, device=result.device)
    own, frame = users_own(result.model)
    if own is not None and (frame.energy or not energy):
        with engine.scope():
            return own.native(engine, result.params, frame, into)
    if into is not None:
        raise ModelError(f"into= takes a module that was passed to fit, and this is a fit of {result.model!r}")
    if energy:
        return _energy(engine, result)
    found = native_by_plugin(result)
    return _function(engine, result) if found is None else found


def _function(engine: Backend, result: Any) -> Any:
    """The fitted score as a function of the framework's arrays, (x, *context) -> (n, d)."""
    with engine.scope():
        params = engine.asarrays(result.params)
    return lambda x, *context: result.model.score(engine.at(x), params, x, *context)


def _energy(engine: Backend, result: Any) -> Callable[[Array], Array]:
    """The fitted energy as a function of the framework's arrays, (n, d) -> (n,)."""
    standardised = isinstance(result.model, Standardized)
    model = result.model.inner if standardised else result.model
    if not isinstance(model, Energy):
        raise ModelError(f"energy=True asks for the value of an energy, and this is a fit of {result.model!r}: see as_energy")
    with engine.scope():
        params = engine.asarrays(result.params)

    def energy(x: Array) -> Array:
        calculus, coordinates = engine.at(x), result.coordinates
        if not standardised:
            return model.energy(calculus, params, x)
        return coordinates.energy_of(calculus, x, model.energy(calculus, params, coordinates.of(calculus, x)))

    return energy

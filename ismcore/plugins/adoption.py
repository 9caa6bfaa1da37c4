"""Models that the user brings, from `fit`'s door to what it gives back in kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ismcore.errors import IsmError, ModelError
from ismcore.models import Energy, Frame, Model, Standardized, UserModel, check_params, takes_rows
from ismcore.models.function import ScoreFunction
from ismcore.objectives import NoiseConditionalScoreMatching
from ismcore.plugins.lookup import adopt, load_backend, widest_dtype
from ismcore.samples.checks import as_samples
from ismcore.seeds import stream

__all__ = ["adopted", "device_for", "failures_named", "no_model", "sample_context", "users_own"]


def adopted(model: Any, x: Any, objective: Any = None) -> Any:
    """A model of the library made from whatever the user passed as one; what nobody adopts comes back as it is.

    Args:
        model: A model, or a framework's module, alone or inside of `ismcore.Energy`.
        x: The samples that it is for, (n, d) or (n,).
        objective: The objective that it is for, which may call it with a context.

    Raises:
        ModelError: It cannot serve as a model; the message says why.
        SamplesError: x are no samples.
    """
    inner = model.net if isinstance(model, Energy) else model
    if isinstance(inner, Model) and not (isinstance(inner, ScoreFunction) and inner.backend):
        return model
    if isinstance(inner, ScoreFunction) and inner.backend:
        load_backend(inner.backend)  # says what is missing, before the plugin's import of the framework fails
    d = as_samples(x).shape[1]
    found = adopt(inner, sample_for(d, objective))
    if found is None and isinstance(inner, ScoreFunction):
        found = _own_function(inner, sample_for(d, objective))
    if found is None and isinstance(model, Energy):
        raise ModelError(no_model(inner))
    if found is None:
        return model
    check_params(found, found.initial_params(0, d), d)
    return replace(model, net=found) if isinstance(model, Energy) else found


def _own_function(model: ScoreFunction, sample: tuple[np.ndarray, ...]) -> ScoreFunction:
    """A function in the framework of a backend whose plugin adopts none: batched, or of one row.

    Raises:
        ModelError: It gives neither a score nor an energy a row.
    """
    name = str(model.backend)
    engine = load_backend(name)(dtype=widest_dtype(name))
    with engine.scope():
        tree = model.tree(engine.asarrays(model.initial_params(0, sample[0].shape[1])))
        rows = [engine.asarray(each) for each in sample]
        by_row = takes_rows(
            model.title,
            lambda: model.apply(tree, *rows),
            lambda: engine.map_rows(model.apply)(tree, *rows),
            len(sample[0]),
        )
    return replace(model, by_row=by_row)


def no_model(thing: Any) -> str:
    """What to say of something that is no model."""
    what = f"the class {thing.__name__}: make one" if isinstance(thing, type) else type(thing).__name__
    return (
        "model must be ismcore.MLP, ismcore.Affine or another of the library's, or a module of torch, Flax or Equinox, not "
        f"{what}; wrap a function of your own as ismcore.ScoreFunction(apply, params)"
    )


def sample_for(d: int, objective: Any = None) -> tuple[np.ndarray, ...]:
    """A few rows to call a model with; their number is no other dimension of it, as far as one can choose."""
    n = next(n for n in (7, 11) if n != d)
    x = stream(0, "probe").standard_normal((n, d))
    context = sample_context(objective, n, d)
    return (x,) if context is None else (x, context)


def sample_context(objective: Any, n: int, d: int) -> np.ndarray | None:
    """A context such as the objective calls the score with, (n, c), or None where it calls without."""
    if not isinstance(objective, NoiseConditionalScoreMatching):
        return None
    return np.asarray(objective.draws(stream(0, "probe"), n, d)["noise_scale"])


def users_own(model: Model) -> tuple[UserModel | None, Frame]:
    """The user's module or function inside of a model, None if the library's own is there, and how it is to be seen."""
    frame = Frame()
    if isinstance(model, Standardized):
        frame, model = Frame(model.coordinates), model.inner
    if isinstance(model, Energy):
        frame, model = replace(frame, energy=True), model.net
    return (model, frame) if isinstance(model, UserModel) else (None, frame)


@contextmanager
def failures_named(model: Model, what: str = "fails when it is differentiated") -> Iterator[None]:
    """Whatever the user's module raises inside becomes an error that names it, says what it does and why.

    Raises:
        ModelError: See above. Errors of the library's and of its own models stay as they are, and a lack of memory.
    """
    try:
        yield
    except (IsmError, MemoryError):
        raise
    except Exception as error:  # whatever a user's own code raises
        own = users_own(model)[0]
        if own is None:
            raise
        raise ModelError(f"{own.title} {what}: {own.explained(error)}") from error


def device_for(model: Model, device: object) -> object:
    """The device to compute on: "auto" is where the user's module is."""
    own = users_own(model)[0]
    return device if str(device) != "auto" or own is None or own.device is None else own.device

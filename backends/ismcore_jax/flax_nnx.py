"""Flax NNX modules as models. Imported only where Flax is."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.errors import TraceContextError

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models import Frame
from ismcore.ops import Array
from ismcore_jax.forms import Form, JaxModel, adopt_tree, digest, in_units

__all__ = ["InUnits", "NnxForm", "adopt_nnx"]


class InUnits(nnx.Module):
    """A module of samples in other coordinates, seen in the user's units: score(x) = inner((x - mean) / scale) / scale.

    An energy is not divided.
    """

    def __init__(self, inner: nnx.Module, coordinates: Coordinates, *, energy: bool = False) -> None:
        self.inner, self.coordinates, self.energy = inner, coordinates, energy

    def __call__(self, x: Array, *context: Array) -> Array:
        """The score in 1/[x], or the energy, at x in [x]."""
        return in_units(self.inner, self.coordinates, x, *context, energy=self.energy)


@dataclass(frozen=True, eq=False)
class NnxForm(Form):
    """An NNX module: its graph, and as constants all variables that are not trained, `nnx.Param` unless `trained` says so."""

    graph: Any
    title: str
    constants: Any
    trained: Any = nnx.Param
    kind = "flax.nnx.Module"

    @property
    def key(self) -> Hashable:
        """See `Form.key`."""
        return self.graph, digest(self.constants)

    def call(self, tree: Any, *arguments: Array) -> Array:
        """See `Form.call`."""
        # the constants as they are, not copies of them: in those a change would go unnoticed
        found: Array = nnx.merge(self.graph, tree, self.constants)(*arguments)
        return found

    def give(self, tree: Any, engine: Calculus, frame: Frame, into: Any) -> Any:
        """See `Form.give`."""
        module = nnx.merge(self.graph, tree, self.constants)
        if into is not None:
            _check_like(into, tree, self.title, self.trained)
            nnx.update(into, tree)
            module = into
        return module if frame.coordinates is None else InUnits(module, frame.coordinates, energy=frame.energy)


def _check_like(into: Any, tree: Any, title: str, trained: Any) -> None:
    def shapes(state: Any) -> Any:
        return jax.tree.map(jnp.shape, state)

    if not isinstance(into, nnx.Module) or shapes(nnx.state(into, trained)) != shapes(tree):
        raise ModelError(f"into= must be the {title} that was fitted, or one like it, not {type(into).__name__}")


def adopt_nnx(model: nnx.Module, sample: tuple[np.ndarray, ...], trained: Any = None) -> JaxModel:
    """An NNX module as a model; the caller's stays as it is. `trained` is a filter of NNX, see `Trainable`.

    Raises:
        ModelError: It is not fit to be one; the message says why.
    """
    title = f"flax.nnx.Module {type(model).__name__}"
    _check_layers(title, model)
    graph, params, constants = nnx.split(model, nnx.Param if trained is None else trained, ...)  # type: ignore[misc]
    if not params:
        which = "" if trained is None else " that the filter selects"
        raise ModelError(f"{title} has no parameters{which}, so there is nothing to fit")
    trained = nnx.Param if trained is None else trained
    try:
        return adopt_tree(NnxForm(graph, title, constants, trained), params, sample)
    except ModelError as error:
        if not isinstance(error.__cause__, TraceContextError):
            raise
        raise ModelError(
            f"{title} changes a variable of its own when it is called, so equal points need not have equal scores; call "
            "module.eval() first, take that layer out, or, where it is a recurrent one that draws its first carry (RngCount), "
            f"give it initial_carry=. It is: {str(error.__cause__).split(' (http')[0]}"
        ) from error


def _check_layers(title: str, model: nnx.Module) -> None:
    for path, layer in nnx.iter_modules(model):
        which = f"{title}: {'.'.join(map(str, path)) or 'it'} is a {type(layer).__name__}"
        if isinstance(layer, nnx.BatchNorm) and not layer.use_running_average:
            raise ModelError(
                f"{which} that takes its mean over the batch, which mixes the rows: call module.eval() first, so that it uses "
                "its running mean, or use LayerNorm"
            )
        if isinstance(layer, nnx.Dropout) and not layer.deterministic and layer.rate > 0:
            raise ModelError(
                f"{which} in training mode, which makes the score random: call module.eval() first, or take it out"
            )

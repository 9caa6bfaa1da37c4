"""Equinox modules as models. Imported only where Equinox is."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models import Frame
from ismcore.ops import Array
from ismcore_jax.forms import Form, JaxModel, adopt_tree, brief, digest, in_units, widened

__all__ = ["EquinoxForm", "InUnits", "adopt_equinox"]


class InUnits(eqx.Module):
    """A module of samples in other coordinates, seen in the user's units: score(x) = inner((x - mean) / scale) / scale.

    A function of one row or of a batch, as `inner` is. An energy is not divided.
    """

    inner: Any
    coordinates: Coordinates = eqx.field(static=True)
    energy: bool = eqx.field(static=True, default=False)

    def __call__(self, x: Array, *context: Array) -> Array:
        """The score in 1/[x], or the energy, at x in [x]."""
        return in_units(self.inner, self.coordinates, x, *context, energy=self.energy)


@dataclass(frozen=True, eq=False)
class EquinoxForm(Form):
    """An Equinox module without its arrays of floats, which are the parameters."""

    rest: Any
    title: str
    kind = "equinox.Module"

    @property
    def key(self) -> Hashable:
        """See `Form.key`."""
        return digest(self.rest), tuple(_static_parts(self.rest))

    def call(self, tree: Any, *arguments: Array) -> Array:
        """See `Form.call`."""
        found: Array = eqx.combine(tree, widened(self.rest, arguments[0]))(*arguments)
        return found

    def give(self, tree: Any, engine: Calculus, frame: Frame, into: Any) -> Any:
        """See `Form.give`."""
        if into is not None:
            raise ModelError(f"the parameters of a {self.kind} cannot be changed in place; use what native() returns")
        module = eqx.combine(tree, self.rest)
        return module if frame.coordinates is None else InUnits(module, frame.coordinates, frame.energy)


def _static_parts(module: eqx.Module) -> Iterator[Any]:
    """All static fields. JAX compares them without hashing, and so takes a dict that has changed for the one that it was."""
    for field in fields(module):
        value = getattr(module, field.name, None)
        if field.metadata.get("static"):
            yield value
            continue
        for part in jax.tree.leaves(value, is_leaf=lambda node: isinstance(node, eqx.Module)):
            if isinstance(part, eqx.Module):
                yield from _static_parts(part)


def adopt_equinox(model: eqx.Module, sample: tuple[np.ndarray, ...], trained: Any = None) -> JaxModel:
    """An Equinox module as a model: a function of one row, as Equinox's layers are, or where its shapes say so of a batch.

    `trained` is what `eqx.partition` takes, see `Trainable`.

    Raises:
        ModelError: It is not fit to be one; the message says why.
    """
    title = f"equinox.Module {type(model).__name__}"
    _check_layers(title, model)
    params, rest = _parted(title, model, trained)
    return adopt_tree(EquinoxForm(rest, title), params, sample, row_first=True)


def _parted(title: str, model: eqx.Module, trained: Any) -> tuple[Any, Any]:
    """The module's arrays of floats, those that are trained, and the rest; each with None where the other has something."""
    if trained is None:
        return eqx.partition(model, eqx.is_inexact_array)
    try:
        chosen, rest = eqx.partition(model, trained)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{title}: filter_spec must be one for eqx.partition(module, filter_spec) ({brief(error)})") from error
    params, others = eqx.partition(chosen, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise ModelError(f"{title} has no parameters that the filter selects, so there is nothing to fit")
    return params, eqx.combine(rest, others)


def _check_layers(title: str, model: eqx.Module) -> None:
    kinds = (eqx.nn.Dropout, eqx.nn.BatchNorm)
    for layer in jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, kinds)):
        if isinstance(layer, eqx.nn.BatchNorm):
            raise ModelError(
                f"{title} holds a BatchNorm, which keeps a state and in training mixes the rows of a batch: use LayerNorm"
            )
        if isinstance(layer, eqx.nn.Dropout) and not layer.inference and layer.p > 0:
            raise ModelError(
                f"{title} holds a Dropout in training mode, which makes the score random: pass eqx.nn.inference_mode(module), "
                "or take it out"
            )

"""Flax linen modules as models. Imported only where Flax is."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models import Frame, takes_rows
from ismcore.ops import Array
from ismcore.seeds import stream
from ismcore_jax.forms import Form, JaxModel, adopt_tree, digest, in_units, rows_of

__all__ = ["InUnits", "LinenForm", "adopt_linen"]


class InUnits(nn.Module):
    """A module of samples in other coordinates, seen in the user's units: score(x) = inner((x - mean) / scale) / scale.

    Its variables are those of `inner`, under the same names. An energy is not divided.
    """

    inner: nn.Module
    coordinates: Coordinates
    energy: bool = False

    def setup(self) -> None:
        """See `flax.linen.Module.setup`."""
        nn.share_scope(self, self.inner)

    def __call__(self, x: Array, *context: Array) -> Array:
        """The score in 1/[x], or the energy, at x in [x]."""
        return in_units(self.inner, self.coordinates, x, *context, energy=self.energy)


@dataclass(frozen=True, eq=False)
class LinenForm(Form):
    """A linen module; collections other than "params" are constants, the same whatever the seed."""

    module: nn.Module
    title: str
    constants: dict[str, Any]
    as_pair: str = ""
    kind = "flax.linen.Module"

    @property
    def key(self) -> Hashable:
        """See `Form.key`."""
        return digest((self.module, self.constants))

    def call(self, tree: Any, *arguments: Array) -> Array:
        """See `Form.call`."""
        found: Array = self.module.apply({"params": tree, **self.constants}, *arguments)
        return found

    def give(self, tree: Any, engine: Calculus, frame: Frame, into: Any) -> Any:
        """See `Form.give`; a pair if the caller passed one, else a bound module."""
        if into is not None:
            raise ModelError(f"the parameters of a {self.kind} cannot be changed in place; use what native() returns")
        module = self.module
        if frame.coordinates is not None:
            module = InUnits(module, frame.coordinates, frame.energy)
        variables = {"params": tree, **self.constants}
        if self.as_pair:
            return module, tree if self.as_pair == "params" else variables
        return module.bind(variables)


def adopt_linen(model: Any, sample: tuple[np.ndarray, ...]) -> JaxModel:
    """A linen module, alone, bound, or as a pair with its params or variables, as a model.

    Raises:
        ModelError: It is not fit to be one; the message says why.
    """
    module, variables, as_pair = _taken_apart(model)
    title = f"flax.linen.Module {type(module).__name__}"
    try:
        return _adopt(module, variables, as_pair, title, sample)
    except ModelError as error:
        raise _explained(title, error) from error


def _taken_apart(model: Any) -> tuple[nn.Module, dict[str, Any] | None, str]:
    """Module, variables, and whether the caller has them as a pair, and of what."""
    if not isinstance(model, tuple):
        if model.scope is None:
            return model, None, ""
        module, variables = model.unbind()
        return module, dict(variables), ""
    if len(model) != 2 or not hasattr(model[1], "items"):
        raise ModelError("a Flax model is a module, or a pair (module, params) with the params a dict")
    module, given = model
    if "params" in given:
        return module, dict(given), "variables"
    return module, {"params": given}, "params"


def _adopt(
    module: nn.Module, variables: dict[str, Any] | None, as_pair: str, title: str, sample: tuple[np.ndarray, ...]
) -> JaxModel:
    if variables is not None:
        constants = {name: value for name, value in variables.items() if name != "params"}
        return adopt_tree(LinenForm(module, title, constants, as_pair), variables["params"], sample)
    rows = rows_of(sample)
    by_row = takes_rows(
        title,
        lambda: jax.eval_shape(lambda *batch: module.init_with_output(jax.random.key(0), *batch)[0], *rows),
        lambda: jax.eval_shape(jax.vmap(lambda *row: module.init_with_output(jax.random.key(0), *row)[0]), *rows),
        len(sample[0]),
    )
    first = [jnp.asarray(batch[0] if by_row else batch, rows[0].dtype) for batch in sample]

    def drawn(seed: int) -> Any:
        key = jax.random.key(int(stream(seed, "init").integers(2**31)))
        return module.init(key, *first)["params"]

    # constants are the same for all seeds, so that a saved result finds them again
    initial = module.init(jax.random.key(0), *first)
    if "params" not in initial:
        raise ModelError(f"{title} has no parameters, so there is nothing to fit")
    constants = {name: value for name, value in initial.items() if name != "params"}
    return adopt_tree(LinenForm(module, title, constants), initial["params"], sample, start=drawn)


def _explained(title: str, error: ModelError) -> ModelError:
    """The same refusal, in words that say which layer does such a thing."""
    cause = error.__cause__
    if isinstance(cause, flax.errors.ModifyScopeVariableError):
        return ModelError(
            f"{title} writes to its variables when it is called, as BatchNorm in training mode does, which mixes the rows of a "
            f"batch: build it with use_running_average=True, or use LayerNorm ({str(cause).splitlines()[0][:160]})"
        )
    if isinstance(cause, flax.errors.InvalidRngError):
        return ModelError(
            f"{title} draws random numbers when it is called, as Dropout does, which makes the score random: build it with "
            f"deterministic=True, or take that layer out ({str(cause).splitlines()[0][:160]})"
        )
    return error

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
from ismcore.models import Frame
from ismcore.ops import Array
from ismcore.seeds import stream
from ismcore_jax.forms import Form, JaxModel, adopt_tree, digest, in_units, layout_of, path_name, rows_of, widened

__all__ = ["InUnits", "LinenForm", "adopt_linen"]


class InUnits(nn.Module):
    """A module of samples in other coordinates, seen in the user's units: score(x) = inner((x - mean) / scale) / scale.

    Its variables are those of `inner`, under the same names. An energy is not divided.
    """

    ismcore_network: nn.Module  # its submodules share our scope, so that no name of theirs may be one of ours
    coordinates: Coordinates
    energy: bool = False

    def setup(self) -> None:
        """See `flax.linen.Module.setup`."""
        nn.share_scope(self, self.ismcore_network)

    @property
    def inner(self) -> nn.Module:
        """The network of standardised samples."""
        return self.ismcore_network

    def __call__(self, x: Array, *context: Array) -> Array:
        """The score in 1/[x], or the energy, at x in [x]."""
        return in_units(self.ismcore_network, self.coordinates, x, *context, energy=self.energy)


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
        found: Array = self.module.apply({"params": tree, **widened(self.constants, arguments[0])}, *arguments)
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


def adopt_linen(model: Any, sample: tuple[np.ndarray, ...], trained: Any = None) -> JaxModel:
    """A linen module, alone, bound, or as a pair with its params or variables, as a model; `trained`: see `Trainable`.

    Raises:
        ModelError: It is not fit to be one; the message says why.
    """
    module, variables, as_pair = _taken_apart(model)
    title = f"flax.linen.Module {type(module).__name__}"
    try:
        if variables is None:
            if trained is not None:
                raise ModelError(
                    f"{title} has no parameters yet, so none can be held: bind it, or pass a pair (module, params)"
                )
            return _drawn(module, title, sample)
        constants = {name: value for name, value in variables.items() if name != "params"}
        return adopt_tree(LinenForm(module, title, constants, as_pair), variables["params"], sample, trained=trained)
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


@dataclass(frozen=True)
class _Initialisers:
    """Draws parameters by the module's own initialisers."""

    module: nn.Module
    arguments: tuple[np.ndarray, ...]

    def variables(self, key: Array) -> Any:
        """All variables, drawn by a key."""
        # arrays of JAX are made here, in the dtype that is then in force
        return self.module.init(key, *map(jnp.asarray, self.arguments))

    def __call__(self, seed: int) -> Any:
        return self.variables(jax.random.key(int(stream(seed, "init").integers(2**31))))["params"]


def _drawn(module: nn.Module, title: str, sample: tuple[np.ndarray, ...]) -> JaxModel:
    """A module whose parameters its initialisers draw.

    Raises:
        ModelError: There are none, or they depend on the rows that it is called with.
    """
    layout = layout_of(title, lambda _, *batch: module.init_with_output(jax.random.key(0), *batch)[0], None, sample)
    dtype = rows_of(sample)[0].dtype
    rows = [batch[:, 0] if k and layout.flat_context else batch for k, batch in enumerate(sample)]
    start = _Initialisers(module, tuple((batch[0] if layout.per_row else batch).astype(dtype) for batch in rows))
    # constants are the same for all seeds, so that a saved result finds them again
    initial = start.variables(jax.random.key(0))
    if "params" not in initial:
        raise ModelError(f"{title} has no parameters, so there is nothing to fit")
    _check_initialisers(title, start, initial)
    constants = {name: value for name, value in initial.items() if name != "params"}
    return adopt_tree(LinenForm(module, title, constants), initial["params"], sample, start=start)


def _check_initialisers(title: str, start: _Initialisers, initial: Any) -> None:
    """Refuse initialisers that look at x, as those of Glow's ActNorm: here they would see a few numbers, not the samples."""
    moved = _Initialisers(start.module, tuple(2.0 * batch + 1.0 for batch in start.arguments)).variables(jax.random.key(0))
    same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b, equal_nan=True)), initial, moved)
    names = [path_name(path[1:]) for path, equal in jax.tree_util.tree_leaves_with_path(same) if not equal]
    if names:
        raise ModelError(
            f"{title} draws {', '.join(names)} from the rows that it is first called with: call module.init(key, x) with your "
            "samples yourself, standardised unless standardize=False, and pass the pair (module, variables)"
        )


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

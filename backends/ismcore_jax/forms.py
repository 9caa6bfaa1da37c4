"""Networks of the frameworks on JAX as models: what they share. A form says how one kind is called and given back."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models import Frame, UserModel, takes_rows
from ismcore.models.trees import as_array, is_leaf_list, named
from ismcore.ops import Array, Params
from ismcore_jax.backend import _name as device_name
from ismcore_jax.calculus import ArrayCalculus

__all__ = ["Form", "JaxModel", "adopt_tree", "called", "digest", "in_units", "rows_of"]


class Form(ABC):
    """What a network of one framework is without its parameters; equal forms are one program.

    Attributes:
        kind: What a file of results calls it.
        title: What it is called in a message.
    """

    kind: str
    title: str

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """Equal for forms that compute the same from the same parameters."""

    @abstractmethod
    def call(self, tree: Any, *arguments: Array) -> Array:
        """The output at x, or at x and context, for parameters as the network's own tree."""

    @abstractmethod
    def give(self, tree: Any, engine: Calculus, frame: Frame, into: Any) -> Any:
        """The network with these parameters, in kind; see `UserModel.native`."""


@dataclass(frozen=True, eq=False, repr=False)
class JaxModel(UserModel):
    """A network of a framework on JAX as a model. Two of the same form share their compiled programs.

    Attributes:
        form: The network without its parameters.
        treedef: Form of the tree of parameters.
        spec: Names and shapes of its leaves, in the tree's order.
        start: Their values, NumPy, empty once nobody starts from them; or what draws them from a seed.
        per_row: Whether it is a function of one row.
    """

    form: Form
    treedef: Any
    spec: dict[str, tuple[int, ...]]
    start: Params | Callable[[int], Any]
    device: str | None = None
    per_row: bool = False
    backend = "jax"

    @property
    def kind(self) -> str:  # type: ignore[override]
        """See `UserModel.kind`."""
        return self.form.kind

    @property
    def title(self) -> str:  # type: ignore[override]
        """See `UserModel.title`."""
        return self.form.title

    @cached_property
    def _key(self) -> Hashable:
        """Equal for models that one program serves; what cannot be hashed may change unseen, so it equals nothing else."""
        try:
            key = type(self.form), self.form.key, self.treedef, tuple(self.spec.items()), self.per_row
            hash(key)
        except TypeError:
            return object()
        return key

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, JaxModel) and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        return dict(self.spec)

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`; the network's own, or for a Flax module without any, drawn by its initialisers."""
        if callable(self.start):
            return dict(zip(self.spec, map(as_array, self.spec, jax.tree.leaves(self.start(seed))), strict=True))
        if not self.start:
            raise ModelError(f"{self!r} keeps no parameters to start from; pass params, or the network itself")
        return {name: value.copy() for name, value in self.start.items()}

    def canonical(self) -> JaxModel:
        """See `Model.canonical`."""
        return self if callable(self.start) or not self.start else replace(self, start={})

    def tree(self, params: Params) -> Any:
        """Flat parameters as the network's own tree."""
        return jax.tree.unflatten(self.treedef, [params[name] for name in self.spec])

    def output(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `UserModel.output`."""
        found = called(self.form, self.tree(params), (x,) if context is None else (x, context), per_row=self.per_row)
        # the 64-bit scope makes plain constants float64, which the network did not ask for; what is narrower stays, to be seen
        wider = jnp.promote_types(found.dtype, x.dtype) != x.dtype
        return found.astype(x.dtype) if wider else found

    def native(self, engine: Calculus, params: Params, frame: Frame, into: Any = None) -> Any:
        """See `UserModel.native`."""
        return self.form.give(self.tree(engine.asarrays(params)), engine, frame, into)


def called(form: Form, tree: Any, arguments: tuple[Array, ...], *, per_row: bool) -> Any:
    """The form's output on a batch."""
    if per_row:
        return jax.vmap(lambda *row: form.call(tree, *row))(*arguments)
    return form.call(tree, *arguments)


def adopt_tree(
    form: Form, tree: Any, sample: tuple[np.ndarray, ...], *, start: Callable[[int], Any] | None = None, row_first: bool = False
) -> JaxModel:
    """A model of a form and its parameters, which may be shapes alone if `start` draws them from a seed.

    Raises:
        ModelError: There are no parameters, one is no array of numbers, or the network's output has a wrong shape.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf_list)
    found = named([(_name(path), leaf) for path, leaf in leaves])
    if not found:
        raise ModelError(f"{form.title} has no parameters, so there is nothing to fit")
    spec = {name: tuple(np.shape(leaf)) for name, leaf in found.items()}
    values = {} if start else {name: as_array(name, leaf) for name, leaf in found.items()}
    arguments = rows_of(sample)
    shapes = jax.tree.unflatten(treedef, [_abstract(shape) for shape in spec.values()])
    per_row = takes_rows(
        form.title,
        lambda: jax.eval_shape(form.call, shapes, *arguments),
        lambda: jax.eval_shape(lambda tree, *batch: called(form, tree, batch, per_row=True), shapes, *arguments),
        len(sample[0]),
        row_first=row_first,
    )
    arrays = [leaf for leaf in found.values() if isinstance(leaf, jax.Array)]
    device = device_name(next(iter(arrays[0].devices()))) if arrays else None
    return JaxModel(form, treedef, spec, start or values, device, per_row)


def rows_of(sample: tuple[np.ndarray, ...]) -> list[jax.ShapeDtypeStruct]:
    """The sample as shapes, for tracing without computing."""
    return [_abstract(rows.shape) for rows in sample]


def _abstract(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.zeros(0).dtype)  # type: ignore[no-untyped-call]


def _name(path: tuple[Any, ...]) -> str:
    """A leaf's path, joined by dots; the variable that NNX wraps an array in is no step of it."""
    steps = [jax.tree_util.keystr((step,), simple=True) for step in path]
    wrapped = len(path) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "value"
    return ".".join(steps[:-1] if wrapped else steps) or "params"


def in_units(inner: Callable[..., Array], coordinates: Coordinates, x: Array, *context: Array, energy: bool) -> Array:
    """A score or an energy of samples in other coordinates, at x in the user's units."""
    x = jnp.asarray(x)
    calculus = ArrayCalculus(x)
    found = inner(coordinates.of(calculus, x), *context)
    return (coordinates.energy_of if energy else coordinates.score_of)(calculus, x, found)


def digest(tree: Any) -> Hashable:
    """Equal for trees of equal arrays and equal other leaves: what a program holds as constants."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple(_leaf_digest(leaf) for leaf in leaves)


def _leaf_digest(leaf: Any) -> Hashable:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array | np.ndarray):
        value = np.asarray(leaf)
        return value.shape, value.dtype.name, hashlib.sha256(value.tobytes()).hexdigest()
    return leaf  # type: ignore[no-any-return]

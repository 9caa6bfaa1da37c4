"""Networks of the frameworks on JAX as models: what they share. A form says how one kind is called and given back."""

from __future__ import annotations

import hashlib
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ismcore.backend import DTYPES
from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models import Frame, UserModel, takes_rows
from ismcore.models.trees import as_array, is_leaf_list, named
from ismcore.ops import Array, Params
from ismcore_jax.backend import _name as device_name
from ismcore_jax.backend import enable_x64
from ismcore_jax.calculus import ArrayCalculus
from ismcore_jax.pickling import pickled
from ismcore_jax.reasons import reason

__all__ = [
    "Form",
    "JaxModel",
    "Layout",
    "adopt_tree",
    "brief",
    "digest",
    "in_units",
    "layout_of",
    "path_name",
    "rows_of",
    "widened",
]


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


@dataclass(frozen=True, eq=False)
class PartForm(Form):
    """A form of whose parameters some are constants: `frozen` has them, and None where the others belong."""

    form: Form
    frozen: Any

    @property
    def kind(self) -> str:  # type: ignore[override]
        """See `Form.kind`."""
        return self.form.kind

    @property
    def title(self) -> str:  # type: ignore[override]
        """See `Form.title`."""
        return self.form.title

    @property
    def key(self) -> Hashable:
        """See `Form.key`."""
        return type(self.form), self.form.key, digest(self.frozen)

    def call(self, tree: Any, *arguments: Array) -> Array:
        """See `Form.call`."""
        return self.form.call(_joined(tree, widened(self.frozen, arguments[0])), *arguments)

    def give(self, tree: Any, engine: Calculus, frame: Frame, into: Any) -> Any:
        """See `Form.give`."""
        return self.form.give(_joined(tree, self.frozen), engine, frame, into)


def _joined(tree: Any, frozen: Any) -> Any:
    return jax.tree.map(lambda a, b: b if a is None else a, tree, frozen, is_leaf=lambda node: node is None)


@dataclass(frozen=True)
class Layout:
    """How a network takes a batch.

    Attributes:
        per_row: As a function of one row.
        flat_context: With a context of one number as (n,), or one number for one row, and not as (n, 1).
    """

    per_row: bool = False
    flat_context: bool = False

    def call(self, network: Callable[..., Array], x: Array, *context: Array) -> Any:
        """The network's output on x, (n, d), and context, (n, c)."""
        arguments = (x, *(c[:, 0] for c in context)) if self.flat_context else (x, *context)
        return jax.vmap(network)(*arguments) if self.per_row else network(*arguments)


@dataclass(frozen=True, eq=False, repr=False)
class JaxModel(UserModel):
    """A network of a framework on JAX as a model. Two of the same form share their compiled programs.

    Attributes:
        form: The network without its parameters.
        treedef: Form of the tree of parameters.
        spec: Names and shapes of its leaves, in the tree's order.
        start: Their values, NumPy, empty once nobody starts from them; or what draws them from a seed.
        layout: How it takes a batch.
    """

    form: Form
    treedef: Any
    spec: dict[str, tuple[int, ...]]
    start: Params | Callable[[int], Any]
    device: str | None = None
    layout: Layout = Layout()
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
            key = type(self.form), self.form.key, self.treedef, tuple(self.spec.items()), self.layout
            hash(key)
        except TypeError:
            return object()
        return key

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, JaxModel) and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def __copy__(self) -> JaxModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> JaxModel:
        """Itself: nobody changes one, and a network's copy need not equal it (Equinox modules cannot be copied at all)."""
        return self

    def __reduce__(self) -> tuple[Callable[[bytes], JaxModel], tuple[bytes]]:
        # a treedef of the user's own nodes is not equal to its pickle, so the names go in its place, as a tree
        named_tree = jax.tree.unflatten(self.treedef, list(self.spec))
        try:
            return _unpickled, (pickled((self.form, named_tree, self.spec, self.start, self.device, self.layout)),)
        except Exception as error:  # whatever the user's own objects raise
            raise ModelError(
                f"{self.title} cannot be pickled ({brief(error)}): define its class and functions in a module, not as a "
                "lambda or inside of a function; or keep the result by result.save(path) and ismcore.load(path, model=...)"
            ) from error

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
        arguments = (x,) if context is None else (x, context)
        found: Array = self.layout.call(partial(self.form.call, self.tree(params)), *arguments)
        # the 64-bit scope makes plain constants float64, which the network did not ask for
        if jnp.issubdtype(found.dtype, jnp.floating) and jnp.promote_types(found.dtype, x.dtype) != x.dtype:
            return found.astype(x.dtype)
        if found.dtype != x.dtype:
            instead = f", or fit with dtype={found.dtype.name!r}" if found.dtype.name in DTYPES else ""
            raise ModelError(
                f"{self.title} returns {found.dtype} for samples of {x.dtype}, so something in it is fixed to {found.dtype}: "
                f"let it follow its input (Flax: dtype=None){instead}"
            )
        return found

    def explained(self, error: BaseException) -> str:
        """See `UserModel.explained`."""
        return reason(error) or super().explained(error)

    def native(self, engine: Calculus, params: Params, frame: Frame, into: Any = None) -> Any:
        """See `UserModel.native`."""
        return self.form.give(self.tree(engine.asarrays(params)), engine, frame, into)


def _unpickled(data: bytes) -> JaxModel:
    form, named_tree, *rest = pickle.loads(data)  # noqa: S301  (inside of a pickle that the caller opens)
    return JaxModel(form, jax.tree.structure(named_tree), *rest)


def brief(error: BaseException) -> str:
    """Type and text of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def adopt_tree(
    form: Form,
    tree: Any,
    sample: tuple[np.ndarray, ...],
    *,
    start: Callable[[int], Any] | None = None,
    trained: Any = None,
    row_first: bool = False,
) -> JaxModel:
    """A model of a form and its parameters.

    Args:
        form: What the network is without its parameters.
        tree: The parameters, which may be shapes alone if `start` draws them from a seed.
        sample: Some rows to call it with.
        start: What draws parameters from a seed.
        trained: Which parameters are trained, see `ismcore_jax.Trainable`; all if None.
        row_first: Where it takes rows and batches alike, take it for a function of one row.

    Raises:
        ModelError: There are no parameters, one is no array of numbers, or the network's output has a wrong shape.
    """
    if trained is not None:
        tree, frozen = _parted(form.title, tree, trained)
        form = PartForm(form, frozen)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf_list)
    found = named([(path_name(path), leaf) for path, leaf in leaves])
    if not found:
        which = " that the filter selects" if isinstance(form, PartForm) else ""
        raise ModelError(f"{form.title} has no parameters{which}, so there is nothing to fit")
    spec = {name: tuple(np.shape(leaf)) for name, leaf in found.items()}
    values = {} if start else {name: as_array(name, leaf) for name, leaf in found.items()}
    shapes = jax.tree.unflatten(treedef, [_abstract(shape) for shape in spec.values()])
    layout = layout_of(form.title, form.call, shapes, sample, row_first=row_first)
    _check_draws(form, layout, shapes, sample)
    arrays = [leaf for leaf in found.values() if isinstance(leaf, jax.Array)]
    device = device_name(next(iter(arrays[0].devices()))) if arrays else None
    return JaxModel(form, treedef, spec, start or values, device, layout)


def _check_draws(form: Form, layout: Layout, shapes: Any, sample: tuple[np.ndarray, ...]) -> None:
    """Refuse numbers drawn in JAX's default dtype: a key gives others in the 64-bit scope of fits than outside of it.

    Raises:
        ModelError: See above.
    """
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        return
    with enable_x64():
        program = jax.make_jaxpr(lambda tree, *rows: layout.call(partial(form.call, tree), *rows))(shapes, *rows_of(sample))
    if any(one.primitive.name == "random_bits" and one.params["bit_width"] == 64 for one in _equations(program)):
        raise ModelError(
            f"{form.title} draws random numbers of a key in each call, in JAX's default dtype, and fits compute with 64-bit "
            "types, where that key gives others: draw them once, when it is built, or in float32 (dtype=jnp.float32)"
        )


def _equations(program: Any) -> Iterator[Any]:
    """All equations of a program of JAX, and of those within it."""
    for equation in program.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                if hasattr(part, "eqns"):
                    yield from _equations(part)


def layout_of(
    title: str, f: Callable[..., Array], tree: Any, sample: tuple[np.ndarray, ...], *, row_first: bool = False
) -> Layout:
    """How a function f(tree, x, *context) takes a batch, as the shapes of its results tell; nothing is computed.

    Raises:
        ModelError: It gives one result a row in no way.
    """
    arguments = rows_of(sample)

    def found(*, flat_context: bool) -> Layout:
        def shape(*, per_row: bool) -> Any:
            layout = Layout(per_row, flat_context)
            return jax.eval_shape(lambda tree, *batch: layout.call(partial(f, tree), *batch), tree, *arguments)

        ways = partial(shape, per_row=False), partial(shape, per_row=True)
        return Layout(takes_rows(title, *ways, len(sample[0]), row_first=row_first), flat_context)

    try:
        return found(flat_context=False)
    except ModelError as error:
        words = reason(error.__cause__)
        if words is not None:
            raise ModelError(f"{title} cannot be traced: {words}") from error.__cause__
        if len(sample) == 2 and sample[1].shape[1] == 1:
            with suppress(ModelError):
                return found(flat_context=True)
        raise


def _parted(title: str, tree: Any, trained: Any) -> tuple[Any, Any]:
    """The tree with None for what is not trained, and the tree with None for what is."""
    if callable(trained):
        mask = jax.tree_util.tree_map_with_path(lambda path, leaf: bool(trained(_steps(path), leaf)), tree)
    else:
        try:
            mask = jax.tree.map(lambda chosen, part: jax.tree.map(lambda _: bool(chosen), part), trained, tree)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"{title}: filter_spec must be a tree of booleans in the form of the parameters ({brief(error)})"
            ) from error
    kept = jax.tree.map(lambda leaf, chosen: leaf if chosen else None, tree, mask)
    return kept, jax.tree.map(lambda leaf, chosen: None if chosen else jnp.asarray(leaf), tree, mask)


def widened(tree: Any, like: Array) -> Any:
    """Constants in the dtype of the samples, where theirs has fewer digits: in its own a network would compute with those."""

    def wider(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf.astype(jnp.promote_types(leaf.dtype, like.dtype))

    return jax.tree.map(wider, tree)


def rows_of(sample: tuple[np.ndarray, ...]) -> list[jax.ShapeDtypeStruct]:
    """The sample as shapes, for tracing without computing."""
    return [_abstract(rows.shape) for rows in sample]


def _abstract(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.zeros(0).dtype)  # type: ignore[no-untyped-call]


def path_name(path: tuple[Any, ...]) -> str:
    """A leaf's path, joined by dots."""
    return ".".join(_steps(path)) or "params"


def _steps(path: tuple[Any, ...]) -> tuple[str, ...]:
    """A leaf's path in words; the variable that NNX wraps an array in is no step of it."""
    steps = tuple(jax.tree_util.keystr((step,), simple=True) for step in path)
    wrapped = len(path) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "value"
    return steps[:-1] if wrapped else steps


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

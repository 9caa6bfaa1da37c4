"""Nested parameters: dicts, lists, tuples and dataclasses of arrays, as one flat dict of arrays and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ismcore.errors import ModelError, ParameterError

__all__ = ["as_array", "check_name", "flatten", "is_leaf_list", "named"]

Rebuild = Callable[[Mapping[str, Any]], Any]


def check_name(name: object) -> None:
    r"""Refuse a parameter's name that a file could not hold, or a terminal show: before training, not when it is saved.

    Raises:
        ParameterError: It is no text, is empty, or holds what cannot be printed (a control character, half a surrogate pair).

    Example:
        >>> check_name("sequential/dense 1/kernel:0")
        >>> check_name("a\nb")
        Traceback (most recent call last):
            ...
        ismcore.errors.ParameterError: 'a\nb' cannot name a parameter: a name is text of printable characters, and not empty
    """
    if not (isinstance(name, str) and name and name.isprintable()):
        raise ParameterError(f"{name!r} cannot name a parameter: a name is text of printable characters, and not empty")


def flatten(tree: Any) -> tuple[dict[str, Any], Rebuild]:
    """The leaves of a tree by name, and the function that puts such leaves into a tree of the same form.

    A leaf's name is the keys, positions and fields on the way to it, joined by dots. Nodes are mappings, lists, tuples, named
    tuples and dataclasses; a list of plain numbers is an array, and so a leaf. What is no number or array in a dataclass
    (a name, a function) belongs to the form.

    Raises:
        ParameterError: Two leaves would have one name.

    Example:
        >>> leaves, rebuild = flatten({"layers": [{"w": 1.0}, {"w": 2.0}], "scale": [1.0, 2.0]})
        >>> leaves
        {'layers.0.w': 1.0, 'layers.1.w': 2.0, 'scale': [1.0, 2.0]}
        >>> rebuild({"layers.0.w": 3.0, "layers.1.w": 4.0, "scale": 5.0})
        {'layers': [{'w': 3.0}, {'w': 4.0}], 'scale': 5.0}
    """
    found: list[tuple[str, Any]] = []
    rebuild = _walk(tree, (), found)
    return named(found), rebuild


def named(found: list[tuple[str, Any]]) -> dict[str, Any]:
    """The leaves as a dict.

    Raises:
        ParameterError: Two have one name, or one has a name that no file could hold; see `check_name`.
    """
    leaves: dict[str, Any] = {}
    for name, leaf in found:
        check_name(name)
        if name in leaves:
            raise ParameterError(f"two parameters of the tree would both be called {name!r}; rename a key")
        leaves[name] = leaf
    return leaves


def _walk(value: Any, path: tuple[str, ...], found: list[tuple[str, Any]]) -> Rebuild:
    node = _children(value)
    if node is None:
        name = ".".join(path) or "params"
        found.append((name, value))
        return lambda leaves: leaves[name]
    children, make = node
    rebuilds = {key: _walk(child, (*path, str(key)), found) for key, child in children.items()}
    return lambda leaves: make({key: rebuild(leaves) for key, rebuild in rebuilds.items()})


def _children(value: Any) -> tuple[dict[Any, Any], Callable[[dict[Any, Any]], Any]] | None:
    """The children of a node by key, and what makes such a node of them; None for a leaf."""
    if isinstance(value, Mapping):
        kind: Any = type(value)
        return dict(value), (lambda made: made) if kind is dict else kind
    if isinstance(value, list | tuple) and not is_leaf_list(value):
        sequence: Any = type(value)
        if hasattr(value, "_fields"):
            return dict(zip(value._fields, value, strict=True)), lambda made: sequence(**made)
        return dict(enumerate(value)), lambda made: sequence(made.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        fields = {name: child for name, child in held.items() if _children(child) is not None or _is_numeric(child)}
        return fields, lambda made: dataclasses.replace(value, **made)
    return None


def is_leaf_list(value: Any) -> bool:
    """Whether a value is a list of numbers, or a list of such lists, which NumPy makes an array of."""
    if not isinstance(value, list | tuple) or not value or hasattr(value, "_fields"):
        return False
    return all(isinstance(item, int | float | np.number) or is_leaf_list(item) for item in value)


def _is_numeric(value: Any) -> bool:
    return is_leaf_list(value) or isinstance(value, int | float | np.number) or hasattr(value, "dtype")


def as_array(name: str, value: Any) -> np.ndarray:
    """A parameter as a float64 array of its own; tensors on other devices or with a graph are taken too.

    Raises:
        ModelError: It is not real numbers.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.double() if value.dtype.is_floating_point else value  # NumPy knows no bfloat16
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the parameter {name!r} must be an array of real numbers, not {value!r}: {error}") from error
    # NumPy counts the short floats of machine learning as no floats
    if array.dtype.kind not in "fiu" and "float" not in array.dtype.name:
        raise ModelError(
            f"the parameter {name!r} must be an array of real numbers, not {type(value).__name__} of {array.dtype}"
        )
    return array.astype(np.float64)

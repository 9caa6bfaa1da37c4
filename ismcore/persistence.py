"""Saving and loading results, each one file in the format of `ismcore.tensorfile`. Loading never runs anything.

Tensors:

    params.<name>                           fitted parameters, in their own dtype, bit for bit
    history.<name>                          one entry an epoch
    standardize.mean, standardize.scale     (d,)
    snapshots.<epoch>.<name>                parameters on the way
    <field>.<name>                          other arrays, such as model.mean of a model that standardises

The content is every other field of `FitResult`, as JSON. In it {"$type": "MLP", ...} is a specification from `TYPES`,
{"$tensor": name} an array, and {"$user": "ScoreFunction", ...} a model that only its user has.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from os import PathLike
from types import UnionType
from typing import Any, get_origin, get_type_hints

import numpy as np

from ismcore import tensorfile
from ismcore.errors import FileInvalid, IsmError, ModelError, ParameterError
from ismcore.files import write_whole
from ismcore.models import MLP, Affine, Energy, Model, NoiseConditional, ResidualMLP, Standardized, check_params
from ismcore.objectives import (
    DenoisingScoreMatching,
    Hutchinson,
    ImplicitScoreMatching,
    NoiseConditionalScoreMatching,
    SlicedScoreMatching,
)
from ismcore.problem import Params
from ismcore.result import FitResult

__all__ = ["load", "save"]

MODELS = (MLP, ResidualMLP, Affine, Energy, NoiseConditional, Standardized)
OBJECTIVES = (
    ImplicitScoreMatching,
    SlicedScoreMatching,
    DenoisingScoreMatching,
    NoiseConditionalScoreMatching,
    Hutchinson,
)
TYPES: dict[str, type] = {cls.__name__: cls for cls in (*MODELS, *OBJECTIVES)}
"""The specifications that a file can name: frozen dataclasses, stored field by field. A name out of this table is refused."""

TENSORS = frozenset({"params", "history", "mean", "scale", "snapshots"})
"""The fields of `FitResult` that are tensors under names of their own."""


def save(result: FitResult, path: str | PathLike[str]) -> None:
    """Write a result as one file, whole or not at all. Equal results give equal bytes, but for their timings.

    Args:
        result: The result.
        path: The file; one that is already there is replaced.

    Raises:
        ModelError: The result holds something that a file cannot name, such as an objective of your own.
        ParameterError: The parameters are not those of the model, or not finite, so that `load` would refuse them.
        OSError: The folder is missing, full or not writable; what was there before is as it was.

    Example:
        >>> import tempfile, ismcore
        >>> result = ismcore.fit([-1.0, 0.0, 1.0], model=Affine(), backend="autograd", epochs=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(result, f"{folder}/fit.safetensors")
        ...     load(f"{folder}/fit.safetensors").model
        Affine()
    """
    result = _checked(result)
    tensors: Params = {}
    groups: dict[str, Mapping[str, np.ndarray]] = {
        "params": result.params,
        "history": result.history,
        "standardize": {"mean": result.mean, "scale": result.scale},
        **{f"snapshots.{epoch}": params for epoch, params in result.snapshots.items()},
    }
    for group, arrays in groups.items():
        for name, array in arrays.items():
            _put(tensors, f"{group}.{name}", array)
    stored = [f.name for f in fields(FitResult) if f.name not in TENSORS]
    content = {name: _encode(getattr(result, name), name, tensors) for name in stored}
    write_whole(path, tensorfile.pack("result", content, tensors))


def load(path: str | PathLike[str], model: Model | None = None) -> FitResult:
    """Read a result that `save` wrote, verified to the last bit. Nothing in the file is ever run.

    Args:
        path: The file.
        model: The model as it was passed to `fit`, where a file cannot hold it, as with a `ScoreFunction`.

    Raises:
        FileInvalid: The file is truncated or altered, written by a newer ismcore, or no result; the message says which.
        ModelError: The file needs `model`, or is a fit of another one.
        OSError: There is no such file, or it cannot be read.
    """
    name = os.fspath(path)
    try:
        content, tensors = tensorfile.read(name, "result")
        return _checked(_result(content, _Decoder(tensors, model)))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except (IsmError, RecursionError) as error:
        raise FileInvalid(f"{name} cannot be loaded: {error}") from error


def _checked(result: FitResult) -> FitResult:
    """The result, its parameters in the model's order, once they are known to be the model's."""
    d = result.d
    snapshots = {epoch: check_params(result.model, result.snapshots[epoch], d) for epoch in sorted(result.snapshots)}
    return replace(result, params=check_params(result.model, result.params, d), snapshots=snapshots)


def _put(tensors: Params, name: str, array: np.ndarray) -> None:
    if name in tensors:
        raise ParameterError(f"two arrays of the result would both be called {name!r} in a file; rename one")
    tensors[name] = array


def _encode(value: Any, name: str, tensors: Params) -> Any:
    """A value as JSON; its arrays go among the tensors, under its name."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, np.ndarray):
        _put(tensors, name, value)
        return {"$tensor": name}
    if isinstance(value, list | tuple):
        return [_encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: _encode(item, f"{name}.{key}", tensors) for key, item in value.items()}
    if TYPES.get(type(value).__name__) is type(value):
        names = [f.name for f in fields(TYPES[type(value).__name__]) if f.init]
        return {"$type": type(value).__name__, **{n: _encode(getattr(value, n), f"{name}.{n}", tensors) for n in names}}
    if isinstance(value, Model):
        return {"$user": type(value).__name__, "backend": value.backend}
    raise ModelError(f"a file cannot hold {name} = {value!r}; it can hold plain values, arrays, {', '.join(TYPES)}")


class _Decoder:
    """Values from JSON and tensors, the inverse of `_encode`. Every tensor is taken once; `left` are the others."""

    def __init__(self, tensors: Params, model: Model | None) -> None:
        self.left = dict(tensors)
        self.model = model
        self.model_used = False

    def take(self, name: str) -> np.ndarray:
        if name not in self.left:
            raise FileInvalid(f"the array {name[:80]!r} is missing, or used twice")
        array = self.left.pop(name)
        return np.array(array, dtype=array.dtype.newbyteorder("="))

    def take_group(self, group: str) -> Params:
        names = [name for name in self.left if name.startswith(f"{group}.")]
        return {name.removeprefix(f"{group}."): self.take(name) for name in sorted(names)}

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(self.decode(item) for item in value)
        if not isinstance(value, dict):
            return value
        if "$tensor" in value:
            return self.take(str(value["$tensor"]))
        if "$user" in value:
            return self._users(value["$user"], value.get("backend"))
        decoded = {key: self.decode(item) for key, item in value.items() if key != "$type"}
        return self._specification(value["$type"], decoded) if "$type" in value else decoded

    def _specification(self, name: Any, values: dict[str, Any]) -> Any:
        if not isinstance(name, str) or name not in TYPES:
            raise FileInvalid(f"it names {str(name)[:80]!r}, which this ismcore does not know; it knows {', '.join(TYPES)}")
        return _construct(TYPES[name], values)

    def _users(self, name: Any, backend: Any) -> Model:
        if self.model is None:
            raise ModelError(
                f"the model is a {name} of your own, which a file cannot hold; pass it again: ismcore.load(path, model=...)"
            )
        model = self.model.net if isinstance(self.model, Energy) else self.model
        given = (type(model).__name__, getattr(model, "backend", None))
        if given != (name, backend):
            raise ModelError(f"the fit is of a {name} with backend={backend!r}; model= is a {given[0]} with {given[1]!r}")
        self.model_used = True
        return model


def _result(content: dict[str, Any], decoder: _Decoder) -> FitResult:
    arrays = {
        "params": decoder.take_group("params"),
        "history": decoder.take_group("history"),
        "mean": decoder.take("standardize.mean"),
        "scale": decoder.take("standardize.scale"),
        "snapshots": _by_epoch(decoder.take_group("snapshots")),
    }
    twice = TENSORS & content.keys()
    if twice:
        raise FileInvalid(f"it holds {sorted(twice)[0]} where only arrays have a place")
    result: FitResult = _construct(FitResult, arrays | {name: decoder.decode(value) for name, value in content.items()})
    if decoder.left:
        raise FileInvalid(f"it holds the array {sorted(decoder.left)[0]!r}, which this ismcore does not know")
    _check_arrays(result)
    if decoder.model is not None and not decoder.model_used and decoder.model != result.model:
        raise ModelError(f"the fit is of {result.model!r}; model= is {decoder.model!r}")
    return result


def _check_arrays(result: FitResult) -> None:
    mean, scale = result.mean, result.scale
    columns = mean.ndim == 1 and mean.shape == scale.shape and len(mean) > 0
    if not (columns and np.all(np.isfinite(mean) & np.isfinite(scale) & (scale > 0))):
        raise FileInvalid(f"standardize.mean {mean.shape} and .scale {scale.shape} are no shift and scale of columns")
    if {"epoch", "loss"} - result.history.keys() or len({array.shape for array in result.history.values()}) != 1:
        raise FileInvalid("its history lacks epochs or losses, or does not have one of each an epoch")
    if result.dtype not in ("float32", "float64"):
        raise FileInvalid(f"its dtype is {result.dtype!r}, neither 'float32' nor 'float64'")


def _by_epoch(arrays: Params) -> dict[int, Params]:
    snapshots: dict[int, Params] = {}
    for key, array in arrays.items():
        epoch, _, name = key.partition(".")
        if not (epoch.isdecimal() and epoch.isascii()) or len(epoch) > 18:
            raise FileInvalid(f"it holds a snapshot after {epoch[:80]!r} epochs, which is no number of epochs")
        snapshots.setdefault(int(epoch), {})[name] = array
    return snapshots


def _construct(cls: type, values: dict[str, Any]) -> Any:
    """A frozen dataclass from its fields: none that it does not have, and each of the annotated type."""
    known = {f.name: f for f in fields(cls) if f.init}
    unknown = values.keys() - known.keys()
    if unknown:
        raise FileInvalid(f"its {cls.__name__} has {sorted(unknown)[0]!r}, which this ismcore does not know: update ismcore")
    missing = [n for n, f in known.items() if n not in values and f.default is f.default_factory is MISSING]
    if missing:
        raise FileInvalid(f"its {cls.__name__} lacks {missing[0]!r}")
    hints = get_type_hints(cls)
    for name, value in values.items():
        if not _is_a(value, hints[name]):
            raise FileInvalid(f"its {cls.__name__} has {name} = {str(value)[:80]!r}, which must be of type {hints[name]}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise FileInvalid(f"its {cls.__name__} cannot be: {error}") from error


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type, as far as the outermost type goes; unions are left to the constructor."""
    if hint is float:
        return isinstance(value, int | float)
    kind = get_origin(hint) or hint
    return kind in (Any, UnionType) or not isinstance(kind, type) or isinstance(value, kind)

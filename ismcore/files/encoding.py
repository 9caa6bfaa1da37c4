"""Specifications and plain values as JSON, with their arrays beside it: what a file may hold, and nothing that runs.

In the JSON {"$type": "MLP", ...} is a specification from `TYPES`, {"$tensor": name} an array, and {"$user":
"ScoreFunction", ...} a model that only its user has.
"""

from __future__ import annotations

import math
import sys
from dataclasses import MISSING, fields
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.coordinates.transforms import Asinh, Log, Logit
from ismcore.domains import Box, Halfspaces, Positive, Reals
from ismcore.errors import FileInvalid, ModelError, ParameterError, printable
from ismcore.models import MLP, Affine, Combination, Energy, Model, NoiseConditional, ResidualMLP, Standardized
from ismcore.objectives import (
    DenoisingScoreMatching,
    Hutchinson,
    ImplicitScoreMatching,
    NoiseConditionalScoreMatching,
    SlicedScoreMatching,
)
from ismcore.ops import Params
from ismcore.optimizers.rules import SGD, Adam
from ismcore.optimizers.schedules import Schedule
from ismcore.plugins.adoption import adopted
from ismcore.samples.gaps import Modes
from ismcore.samples.splitting import HoldOut
from ismcore.training.baseline import Baseline
from ismcore.training.resample import Resample
from ismcore.training.run_state import Plan
from ismcore.training.set_aside import SetAside
from ismcore.training.settings import Candidate, Settings

__all__ = ["TYPES", "Decoder", "adopted_for", "construct", "encode", "put"]

MODELS = (MLP, ResidualMLP, Affine, Energy, NoiseConditional, Standardized, Combination)
OBJECTIVES = (
    ImplicitScoreMatching,
    SlicedScoreMatching,
    DenoisingScoreMatching,
    NoiseConditionalScoreMatching,
    Hutchinson,
)
DOMAINS = (Reals, Positive, Box, Halfspaces)
TRANSFORMS = (Asinh, Log, Logit)
RUNS = (Adam, SGD, Schedule, Plan, Settings, Candidate, HoldOut, SetAside, Modes)
TYPES: dict[str, type] = {
    cls.__name__: cls for cls in (*MODELS, *OBJECTIVES, *DOMAINS, *TRANSFORMS, *RUNS, Baseline, Coordinates, Resample)
}
"""The specifications that a file can name: frozen dataclasses, stored field by field. A name out of this table is refused."""


def put(tensors: Params, name: str, array: np.ndarray) -> None:
    """Enter an array under a name of its own.

    Raises:
        ParameterError: The name is taken.
    """
    if name in tensors:
        raise ParameterError(f"two arrays of the result would both be called {name!r} in a file; rename one")
    tensors[name] = array


def encode(value: Any, name: str, tensors: Params) -> Any:
    """A value as JSON; its arrays go among the tensors, under its name."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, np.ndarray):
        put(tensors, name, value)
        return {"$tensor": name}
    if isinstance(value, list | tuple):
        return [encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: encode(item, f"{name}.{key}", tensors) for key, item in value.items()}
    if TYPES.get(type(value).__name__) is type(value):
        names = [f.name for f in fields(TYPES[type(value).__name__]) if f.init]
        return {"$type": type(value).__name__, **{n: encode(getattr(value, n), f"{name}.{n}", tensors) for n in names}}
    if isinstance(value, Model):
        return {"$user": getattr(value, "kind", type(value).__name__), "backend": value.backend}
    raise ModelError(f"a file cannot hold {name} = {value!r}; it can hold plain values, arrays, {', '.join(TYPES)}")


class Decoder:
    """Values from JSON and tensors, the inverse of `encode`. Every tensor is taken once; `left` are the others."""

    def __init__(self, tensors: Params, model: Model | None) -> None:
        self.left = dict(tensors)
        self._arrays, self._numbers = len(tensors), sum(array.size for array in tensors.values())
        self.model = model
        self.model_used = False

    def take(self, name: str) -> np.ndarray:
        """The array of that name."""
        if name not in self.left:
            raise FileInvalid(f"the array {name[:80]!r} is missing, or used twice")
        array = self.left.pop(name)
        return np.array(array, dtype=array.dtype.newbyteorder("="))

    def take_group(self, group: str) -> Params:
        """The arrays whose names begin with that of the group, under the rest of their names."""
        names = [name for name in self.left if name.startswith(f"{group}.")]
        return {name.removeprefix(f"{group}."): self.take(name) for name in sorted(names)}

    def take_snapshots(self) -> dict[int, Params]:
        """The arrays named "snapshots.<epoch>.<name>", by epoch."""
        snapshots: dict[int, Params] = {}
        for key, array in self.take_group("snapshots").items():
            epoch, _, name = key.partition(".")
            if not (epoch.isdecimal() and epoch.isascii()) or len(epoch) > 18:
                raise FileInvalid(f"it holds a snapshot after {epoch[:80]!r} epochs, which is no number of epochs")
            snapshots.setdefault(int(epoch), {})[name] = array
        return snapshots

    def check_all_taken(self) -> None:
        """Refuse a file with an array that nobody asked for."""
        if self.left:
            raise FileInvalid(f"it holds the array {sorted(self.left)[0]!r}, which this ismcore does not know")

    def decode(self, value: Any) -> Any:
        """The value that `encode` was given, but tuples for lists."""
        if isinstance(value, list):
            return tuple(self.decode(item) for item in value)
        if isinstance(value, str):
            return printable(value)
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
        if name == Settings.__name__ and isinstance(values.get("together"), bool):  # as it was in schema 1
            values["holdout"] = HoldOut("equal rows" if values.pop("together") else "rows")
        self._check_counts(name, values)
        if name == Energy.__name__ and not isinstance(values.get("net"), Model):  # whose field takes foreign modules too
            raise FileInvalid(f"its {name} is of {str(values.get('net'))[:80]!r}, which is no network")
        if name == Standardized.__name__ and {"mean", "scale"} <= values.keys():  # likewise
            values["coordinates"] = construct(Coordinates, {"mean": values.pop("mean"), "scale": values.pop("scale")})
        return construct(TYPES[name], values)

    def _check_counts(self, name: str, values: dict[str, Any]) -> None:
        """Refuse a model that is larger than the file, before it is asked for its shapes."""
        if TYPES[name] not in MODELS:
            return
        counts = [value for given in values.values() for value in (given if isinstance(given, tuple) else (given,))]
        most = max((value for value in counts if isinstance(value, int)), default=0)
        blocks = values.get("blocks", 0)
        if most > self._numbers or (isinstance(blocks, int) and blocks > self._arrays):
            raise FileInvalid(f"its {name} is larger than the {self._numbers} numbers in {self._arrays} arrays that it holds")

    def coordinates(self, value: Any) -> Coordinates:
        """The coordinates of a fit, which in schema 1 were two arrays.

        Raises:
            FileInvalid: They are none.
        """
        if value is None:
            mean, scale = self.take("standardize.mean"), self.take("standardize.scale")
            value = {"$type": Coordinates.__name__, "mean": mean, "scale": scale}
        found = self.decode(value)
        if not isinstance(found, Coordinates):
            raise FileInvalid(f"its coordinates are {str(found)[:80]!r}")
        return found

    def _users(self, name: Any, backend: Any) -> Model:
        if self.model is None:
            raise ModelError(
                f"the model is a {name} of your own, which a file cannot hold; pass it again: ismcore.load(path, model=...)"
            )
        model = self.model.net if isinstance(self.model, Energy) else self.model
        given = (getattr(model, "kind", type(model).__name__), getattr(model, "backend", None))
        if given != (name, backend):
            raise ModelError(f"the fit is of a {name} with backend={backend!r}; model= is a {given[0]} with {given[1]!r}")
        self.model_used = True
        return model


def construct(cls: type, values: dict[str, Any]) -> Any:
    """A frozen dataclass from its fields: none that it does not have, and each of the annotated type."""
    known = {f.name: f for f in fields(cls) if f.init}
    unknown = values.keys() - known.keys()
    if unknown:
        raise FileInvalid(f"its {cls.__name__} has {sorted(unknown)[0]!r}, which this ismcore does not know: update ismcore")
    missing = [n for n, f in known.items() if n not in values and f.default is f.default_factory is MISSING]
    if missing:
        raise FileInvalid(f"its {cls.__name__} lacks {missing[0]!r}")
    hints = _hints(cls)
    for name, value in values.items():
        if not _is_a(value, hints[name]):
            raise FileInvalid(f"its {cls.__name__} has {name} = {str(value)[:80]!r}, which must be of type {hints[name]}")
    try:
        return cls(**values)
    except (TypeError, ValueError, OverflowError, AttributeError, MemoryError) as error:
        raise FileInvalid(f"its {cls.__name__} cannot be: {error}") from error


@cache
def _hints(cls: type) -> dict[str, Any]:
    """The annotated types of a class; its annotations are text, which is evaluated here once, and never for a file."""
    return get_type_hints(cls)


def adopted_for(model: Any, objective: Any, tensors: Params) -> Model | None:
    """The model passed for a file, as `fit` makes one of a user's own network.

    Args:
        model: What was passed.
        objective: The file's objective, as JSON.
        tensors: The file's.
    """
    sample = tensors.get("standardize.mean")
    if model is None or sample is None or sample.ndim != 1:
        return None  # the decoder says what is missing
    is_conditional = isinstance(objective, dict) and objective.get("$type") == NoiseConditionalScoreMatching.__name__
    try:
        found = adopted(model, sample[None], NoiseConditionalScoreMatching((1.0,)) if is_conditional else None)
    except ModelError:
        if not isinstance(model, Model):
            raise
        return model  # the decoder says how it differs from the file's
    return found.canonical() if isinstance(found, Model) else found


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type, through unions, literals, tuples and dicts."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_is_a(value, part) for part in parts)
    if kind is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if kind is tuple and parts and isinstance(value, tuple):
        each = parts[:1] * len(value) if parts[1:] == (Ellipsis,) else parts
        return len(each) == len(value) and all(map(_is_a, value, each))
    if kind is dict and parts and isinstance(value, dict):
        return all(_is_a(key, parts[0]) and _is_a(item, parts[1]) for key, item in value.items())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)

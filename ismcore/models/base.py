"""What a model is, and the wrapper for one that sees the samples in other coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.coordinates.transforms import in_words
from ismcore.errors import ModelError, OptionError, ParameterError
from ismcore.models.trees import as_array, check_name
from ismcore.ops import Array, Params

__all__ = ["Model", "Standardized", "check_params", "refuse_context"]


class Model(ABC):
    """A family of score functions.

    Attributes:
        smooth: Whether the score has a useful second derivative in x.
        backend: Name of the only backend that can run it, or None for any.
        portable: Whether its score needs neither a framework nor a derivative, so that NumPy alone can run it.
    """

    smooth: bool = True
    backend: str | None = None

    @property
    def portable(self) -> bool:
        """See the class."""
        return self.backend is None

    @abstractmethod
    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the order in which they are drawn."""

    @abstractmethod
    def initial_params(self, seed: int, d: int) -> Params:
        """Parameters to start from, float64, drawn from the stream "init" of the seed."""

    @abstractmethod
    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """psi(x; params), (n, d), in units 1/[x]; context, (n, c) where there is any, is what the score is conditional on."""

    def at_zero(self, params: Params) -> Params:
        """Parameters near those given whose score is 0 everywhere, where the model has such: its last layer is 0."""
        return params

    def canonical(self) -> Model:
        """The model without parameters of its own to start from, so that whoever keeps it keeps no weights alive."""
        return self

    def in_units(self, params: Params, coordinates: Coordinates) -> tuple[Model, Params]:
        """Model and parameters in the user's units, given parameters for samples in these coordinates.

        The coordinates stay outside of the parameters, in float64: inside of float32 ones they would cost the digits of a
        column whose mean is far from 0.
        """
        return Standardized(self, coordinates), params

    def from_units(self, params: Params, coordinates: Coordinates) -> tuple[Model, Params]:
        """Model and parameters for samples in these coordinates, given those in the user's units: the inverse of `in_units`.

        Raises:
            OptionError: The coordinates lie behind a transform, under which no other parameters give the same score.
        """
        return self, params


def check_params(model: Model, params: Mapping[str, Any], d: int) -> Params:
    """Parameters as arrays of floats, in the model's order, once names, shapes and values are known to be right.

    Raises:
        ParameterError: A name is missing, unknown or none that a file could hold, a shape is wrong, or a value is no finite
            real number.
    """
    expected = model.shapes(d)
    for name in expected:
        check_name(name)
    faults = {"missing": [n for n in expected if n not in params], "unknown": [n for n in params if n not in expected]}
    if any(faults.values()):
        found = "; ".join(f"{what}: {_listed(names)}" for what, names in faults.items() if names)
        raise ParameterError(f"{model!r} for d = {d} has the parameters {_listed(list(expected))}; {found}")
    checked = {}
    for name, shape in expected.items():
        value = params[name]
        value = as_array(name, value) if hasattr(value, "detach") else np.asarray(value)
        if value.shape != shape:
            raise ParameterError(f"parameter {name!r} of {model!r} for d = {d} must have shape {shape}, not {value.shape}")
        if value.dtype.kind not in "fiu" or not np.all(np.isfinite(value)):
            raise ParameterError(f"parameter {name!r} must hold finite real numbers; got {np.array_repr(value)[:80]}")
        checked[name] = value if value.dtype.kind == "f" else value.astype(np.float64)
    return checked


def _listed(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} others" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def refuse_context(model: Model, context: Array | None) -> None:
    """Refuse a context that the model would have to ignore.

    Raises:
        ModelError: There is one.
    """
    if context is not None:
        raise ModelError(f"{model!r} takes no context; a network does inside of ismcore.NoiseConditional(net)")


@dataclass(frozen=True, eq=False, repr=False)
class Standardized(Model):
    """A model of samples in other coordinates, seen in the user's units; see `ismcore.coordinates.Coordinates`.

        psi(x) = inner((x - mean) / scale) / scale, and its form behind a transform or a matrix

    What `fit` gives back where it standardised. The parameters are the inner model's, under its names.

    Args:
        inner: The model of z.
        coordinates: How z comes from x.
    """

    inner: Model
    coordinates: Coordinates

    def __repr__(self) -> str:
        return f"Standardized({self.inner!r})"

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Standardized) and (self.inner, self.coordinates) == (other.inner, other.coordinates)

    def __hash__(self) -> int:
        return hash((self.inner, self.coordinates))

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """See `Model.smooth`."""
        return self.inner.smooth

    @property
    def backend(self) -> str | None:  # type: ignore[override]
        """See `Model.backend`."""
        return self.inner.backend

    @property
    def portable(self) -> bool:
        """See `Model.portable`."""
        return self.inner.portable

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        return self.inner.shapes(d)

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`."""
        return self.inner.initial_params(seed, d)

    def canonical(self) -> Standardized:
        """See `Model.canonical`."""
        inner = self.inner.canonical()
        return self if inner is self.inner else Standardized(inner, self.coordinates)

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `Model.score`."""
        psi = self.inner.score(calculus, params, self.coordinates.of(calculus, x), context)
        return self.coordinates.score_of(calculus, x, psi)

    def from_units(self, params: Params, coordinates: Coordinates) -> tuple[Model, Params]:
        """See `Model.from_units`; from the coordinates of this model to those asked for, which are often the same."""
        if coordinates == self.coordinates:
            return self.inner, params
        relative = coordinates.relative_to(self.coordinates)
        if relative is None:
            raise OptionError(
                f"a score in coordinates behind {in_words(self.coordinates.transform)} cannot be taken to others, behind "
                f"{in_words(coordinates.transform)}: start from a fit under the same transform, or pass no initial_params"
            )
        return self.inner.from_units(params, relative)

"""What the user brings: a framework's own module, or a function."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models.base import Model
from ismcore.ops import Array, Params

__all__ = ["Frame", "UserModel", "takes_rows"]


@dataclass(frozen=True, eq=False)
class Frame:
    """How a fitted module is to be seen from the user's units.

    Attributes:
        coordinates: Those that it was trained in; None where they are the user's own.
        energy: Whether it is an energy, whose value has no unit, or a score, in 1/[x].
    """

    coordinates: Coordinates | None = None
    energy: bool = False


class UserModel(Model):
    """A module or function that the user brings, as a model: a score, or inside of `ismcore.Energy` an energy.

    Attributes:
        kind: What it is, such as "torch.nn.Module"; a file of results calls it so.
        title: What it is called in a message.
        device: Where its parameters are, as in `Backend.devices`; None where they are nowhere yet.
    """

    kind: str
    title: str
    device: str | None = None

    @abstractmethod
    def output(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """What it returns for x, (n, d), and context, (n, c): scores, (n, d), or energies, (n,) or (n, 1)."""

    @abstractmethod
    def native(self, engine: Calculus, params: Params, frame: Frame, into: Any = None) -> Any:
        """What the user brought, with these parameters (NumPy), in the engine's dtype and on its device.

        Args:
            engine: The backend.
            params: The parameters.
            frame: How it is to take the user's units.
            into: An object of the user's own to put the parameters into.

        Raises:
            ModelError: The parameters of its kind cannot be changed in place.
        """

    def explained(self, error: BaseException) -> str:
        """What an error that its code raised says of it: type and first line, unless the framework's plugin knows better."""
        return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0][:300]}"

    def __repr__(self) -> str:
        sizes = [math.prod(shape) for shape in self.shapes(0).values()]
        return f"<{self.title}, {sum(sizes)} parameters>"

    def score(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `Model.score`."""
        return self.checked(self.output(calculus, params, x, context), x)

    def checked(self, psi: Array, x: Array) -> Array:
        """The output, once it is known to be one score a row.

        Raises:
            ModelError: It has another shape than x.
        """
        if tuple(psi.shape) != tuple(x.shape):
            hint = "; an energy goes inside of ismcore.Energy" if tuple(psi.shape) in ((x.shape[0],), (x.shape[0], 1)) else ""
            raise ModelError(
                f"{self.title} must return one score a row, of shape {tuple(x.shape)}; it returned {tuple(psi.shape)}{hint}"
            )
        return psi


def takes_rows(title: str, batched: Callable[[], Any], mapped: Callable[[], Any], n: int, *, row_first: bool = False) -> bool:
    """Whether a function is one of a single row, and not of a batch, as its shapes on n rows tell.

    Args:
        title: What it is called in an error.
        batched: Calls it on the whole batch, and returns what came.
        mapped: Calls it row by row, and returns what came, stacked.
        n: Rows in the batch, a number that no other dimension has.
        row_first: Where both would do, take it for a function of a row.

    Raises:
        ModelError: Neither gives one result a row.
    """
    faults = {}
    attempts: Mapping[bool, Callable[[], Any]] = {row_first: mapped if row_first else batched}
    attempts = {**attempts, not row_first: batched if row_first else mapped}
    for by_row, call in attempts.items():
        how = "one row at a time" if by_row else f"on a batch of {n} rows"
        try:
            found = call()
        except Exception as error:  # whatever a user's own code raises
            faults[how] = error
            continue
        shape = tuple(found.shape) if hasattr(found, "shape") else type(found).__name__
        if isinstance(shape, tuple) and len(shape) in (1, 2) and shape[0] == n:
            return by_row
        faults[how] = ModelError(f"returned {'shape ' if isinstance(shape, tuple) else 'a '}{shape}")
    told = "; ".join(f"{how}: {_brief(error)}" for how, error in faults.items())
    raise ModelError(f"{title} must return one score a row, or one energy; called {told}") from next(iter(faults.values()))


def _brief(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0][:300]
    return text if isinstance(error, ModelError) else f"{type(error).__name__}: {text}"

"""The fit of one bootstrap resample, as a result keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from ismcore.models import Model
from ismcore.ops import Params

__all__ = ["Resample"]


@dataclass(frozen=True, eq=False)
class Resample:
    """A fitted model.

    Attributes:
        model: It takes x in the samples' units.
        params: Its parameters by name.
    """

    model: Model
    params: Params

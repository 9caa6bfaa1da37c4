"""Placeholder until the measured one is merged."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Traits:
    """What is noticed."""

    atoms: bool = False


def traits_of(x: np.ndarray) -> Traits:
    """Those of x."""
    return Traits(len(np.unique(x, axis=0)) < len(x))


def advise(x: np.ndarray, *, model: Any, objective: Any, traits: Traits) -> tuple[str, ...]:
    """What to say."""
    return ()


def advise_on_history(history: dict[str, np.ndarray]) -> tuple[str, ...]:
    """What to say."""
    return ()

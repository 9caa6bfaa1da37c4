"""Data that comes with the library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from ismcore.models import MLP
from ismcore.optimizers.rules import Adam
from ismcore.targets import GaussianMixture

__all__ = ["ReferenceRun", "reference_run"]


@dataclass(frozen=True, eq=False)
class ReferenceRun:
    """The run that a published tutorial prints: what went in, and what came out.

    Attributes:
        sample: 1024 draws from the target, (1024, 1).
        initial_params: Parameters that the run started from, for `model`.
        epochs: Epochs whose losses are published, (20,).
        losses: The published losses, (20,), each before its epoch's update.
        target: 0.1 N(-3, 1) + 0.9 N(3, 1).
        model: The 1-8-1 sigmoid network.
        optimizer: Adam at 0.01, full batch.
        source: Where it is from.
        licence: Under which terms.
    """

    sample: np.ndarray
    initial_params: dict[str, np.ndarray]
    epochs: np.ndarray
    losses: np.ndarray
    target: GaussianMixture
    model: MLP
    optimizer: Adam
    source: str
    licence: str


def reference_run() -> ReferenceRun:
    """Sample, start and published losses of the reference run; data by R. Rosa, random_notes, CC BY 4.0.

    Example:
        >>> run = ismcore.datasets.reference_run()
        >>> run.sample.shape, round(float(run.losses[-1]), 6)
        ((1024, 1), -0.431078)
    """
    raw = json.loads((files("ismcore.datasets") / "reference_run.json").read_text(encoding="utf-8"))
    return ReferenceRun(
        sample=np.array(raw["sample"], dtype=np.float64)[:, None],
        initial_params={name: np.array(value, dtype=np.float64) for name, value in raw["initial_params"].items()},
        epochs=np.array(raw["epochs"]),
        losses=np.array(raw["losses"], dtype=np.float64),
        target=GaussianMixture([0.1, 0.9], [-3.0, 3.0], [1.0, 1.0]),
        model=MLP(hidden=(8,), activation="sigmoid"),
        optimizer=Adam(learning_rate=0.01),
        source=raw["source"],
        licence=raw["licence"],
    )

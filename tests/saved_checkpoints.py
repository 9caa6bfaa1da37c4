"""Runs whose checkpoints, in the middle and at the end, were written in schema 1: from the one, the other must come for ever.

`python tests/saved_checkpoints.py FOLDER` writes them anew. That is for a new schema, in a folder of its own.
"""

import sys
from pathlib import Path

import numpy as np

import ismcore

DATA = Path(__file__).parent / "data"
FOLDER = DATA / "schema-1"
WINE = np.loadtxt(DATA / "winequality-red.csv", delimiter=",", usecols=(0, 1, 8))
X, JUDGES = WINE[:60], WINE[60:80]
"""Read, not drawn: the bits are the same with every machine and every version of NumPy."""

CHECKPOINTS = {
    "batches": {
        "x": X,
        "model": ismcore.MLP((4,), "tanh"),
        "objective": ismcore.ImplicitScoreMatching(0.1),
        "optimizer": ismcore.Adam(0.02),
        "schedule": ismcore.Schedule("cosine", warmup=0.1),
        "epochs": 10,
        "batch_size": 16,
        "average_decay": 0.9,
        "clip_norm": 1.0,
        "validation": 0.2,
        "patience": 9,
        "snapshots": [0, 3],
        "sample_weight": np.arange(1.0, 61.0),
        "on_nonfinite": "rollback",
        "dtype": "float64",
    },
    "draws": {
        "x": X,
        "model": ismcore.Energy(ismcore.ResidualMLP(3, 1)),
        "objective": ismcore.SlicedScoreMatching(2),
        "optimizer": ismcore.SGD(0.01, 0.9),
        "schedule": np.linspace(1e-2, 1e-3, 10),
        "epochs": 10,
        "batch_size": 25,
        "validation": JUDGES,
        "dtype": "float64",
    },
}
"""Arguments of `fit`, by the name of the file."""
STEPS = 14
"""In the middle of an epoch."""


def path(name, at="middle", folder=FOLDER):
    return Path(folder) / f"checkpoint-{name}-{at}.safetensors"


def write(folder):
    """The checkpoints of the runs, each stopped in the middle of an epoch, and at its end."""
    ismcore.training._chunk_limit = lambda problem: 1
    for name, options in CHECKPOINTS.items():
        for at, steps in (("middle", STEPS), ("end", sys.maxsize)):
            left = iter(range(steps, 0, -1))

            def stop(event, left=left):
                return ismcore.STOP if event.kind == "chunk" and next(left) == 1 else None

            given = {"backend": "autograd", **options, "checkpoint": path(name, at, folder), "callbacks": [stop]}
            ismcore.fit(given.pop("x"), **given)


if __name__ == "__main__":
    write(sys.argv[1])

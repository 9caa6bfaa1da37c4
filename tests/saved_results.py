"""Results as they were when files of a schema were first written: what those in `tests/data/schema-*` must give for ever.

`python tests/saved_results.py FOLDER` writes them anew. That is for a new schema, in a folder of its own: the files that are
there stay as they are, whatever changes in the library.
"""

import sys
from pathlib import Path

import numpy as np

import ismcore
from ismcore.coordinates import Coordinates
from ismcore.files.results import save
from ismcore.models import Standardized
from ismcore.results.result import FitResult

DATA = Path(__file__).parent / "data"
D = 3


def apply(ops, params, x):
    return params["a"] * x


OWN = ismcore.ScoreFunction(apply, {"a": np.array(-1.0)})
"""A model that no file holds; it is passed to `load`."""


def filled(model, dtype, start):
    """Parameters that are start/7, (start + 1)/7, ... one after the other: no two alike, and none exact in binary."""
    found, at = {}, start
    for name, shape in model.shapes(D).items():
        size = int(np.prod(shape))
        found[name] = np.array(np.arange(at, at + size).reshape(shape) / 7.0, dtype=dtype)
        at += size
    return found


def result(model, dtype, **changes):
    given = {
        "params": filled(model, dtype, -5),
        "model": model,
        "history": {"epoch": np.arange(1, 4), "loss": np.array([1 / 3, -np.inf, np.nan])},
        "status": "completed",
        "objective": ismcore.ImplicitScoreMatching(),
        "backend": "autograd",
        "backend_reason": "named by the caller",
        "device": "cpu",
        "dtype": dtype,
        "seed": 7,
        "coordinates": Coordinates(np.array([0.1, -20.0, 3e5]), np.array([1.0, 2.0, 1e-3])),
        "timings": {"prepare": 0.125, "run": 0.25, "total": 0.1},
        "versions": {"python": "3.11.7", "ismcore": "0.1.0", "numpy": "2.4.6", "autograd": "1.8.0"},
    }
    return FitResult(**{**given, **changes})


DEEP = ismcore.MLP((4, 2), "softplus")
RESULTS = {
    "affine": result(ismcore.Affine(), "float32"),
    "mlp": result(
        DEEP,
        "float64",
        objective=ismcore.ImplicitScoreMatching((0.1, 0.2, 0.3), ismcore.Hutchinson(2, "sphere")),
        snapshots={0: filled(DEEP, "float64", 1), 12: filled(DEEP, "float64", 2)},
        status="diverged",
        warnings=("values repeat; ü, 数",),
    ),
    "energy": result(
        ismcore.Energy(ismcore.ResidualMLP(3, 1)), "float32", objective=ismcore.SlicedScoreMatching(2, variance_reduced=False)
    ),
    "conditional": result(
        ismcore.NoiseConditional(ismcore.MLP((3,), "tanh")),
        "float32",
        objective=ismcore.NoiseConditionalScoreMatching((1.0, 0.1)),
    ),
    "standardized": result(
        Standardized(ismcore.MLP((2,), "sigmoid"), Coordinates(np.arange(3.0), np.array([0.5, 1.0, 2.0]))),
        "float32",
        objective=ismcore.DenoisingScoreMatching(0.5, noise=np.arange(6.0).reshape(2, 3)),
    ),
    "own": result(OWN, "float64"),
}
"""One result of each model and objective, by the name of its file."""
UNITS = {"mean": np.array([0.1, -20.0, 3e5]), "scale": np.array([1.0, 2.0, 1e-3])}
BEHIND_ASINH = Coordinates(**UNITS, transform="asinh", shift=np.array([0.5, 0.0, -0.25]), matrix=np.array([0.5, 1.0, 2.0]))
WHITENED = Coordinates(**UNITS, shift=np.zeros(3), matrix=np.array([[1.0, 0.5, 0.0], [0.5, 2.0, 0.0], [0.0, 0.25, 0.5]]))
SINCE_SCHEMA_2 = {
    name: result(
        Standardized(ismcore.MLP((3,), "tanh"), coordinates),
        "float32",
        coordinates=coordinates,
        feature_names=("a", "b", "ü, 数"),
        run_id="0123456789abcdef0123456789abcdef",
    )
    for name, coordinates in {"asinh": BEHIND_ASINH, "whitened": WHITENED}.items()
}
FILES = {(1, name): expected for name, expected in RESULTS.items()}
FILES |= {(2, name): expected for name, expected in (RESULTS | SINCE_SCHEMA_2).items()}
"""What every file holds, by its schema and its name."""


def path(name, schema=1):
    return DATA / f"schema-{schema}" / f"result-{name}.safetensors"


if __name__ == "__main__":
    for name, each in (RESULTS | SINCE_SCHEMA_2).items():
        save(each, Path(sys.argv[1]) / f"result-{name}.safetensors")

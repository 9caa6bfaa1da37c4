"""Functions in the backend's own framework, adopted as models: trained, saved, loaded, and given back in kind."""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

import ismcore
from ismcore.ops import Array
from ismcore.testing.kit import check
from ismcore.testing.subject import CheckFailed, NotDeclared, Subject


@dataclass(frozen=True)
class Adopted:
    """A function of the framework, of batches or of one row; it uses nothing but operators, which all frameworks have.

    psi(x) = a - b x, with parameters called as frameworks call them: the score of a normal law in each column.
    """

    id: str
    by_row: bool

    def __call__(self, params: Any, x: Array) -> Array:
        """The score, (n, d), or (d,) for one row."""
        if len(x.shape) == 1 and not self.by_row:
            raise ValueError("a batch is wanted")
        if len(x.shape) != 1 and self.by_row:
            raise ValueError("one row is wanted")
        return params["dense_1/bias:0"] - x * params["dense 1"]["kernel"]


A, B = np.array([0.25, 0.0]), np.array([1.0, 0.5])
PARAMS = {"dense_1/bias:0": A, "dense 1": {"kernel": B}}
NAMES = ("dense_1/bias:0", "dense 1.kernel")
X = 5.0 + 2.0 * np.array([[-1.5, 0.5], [1.0, -0.25], [0.25, 1.5], [-0.75, -1.0], [1.25, 0.75], [-0.25, -1.5], [0.5, 0.125]])


@check(lambda: (Adopted("batch", False), Adopted("row", True)))
def check_adopted_model(subject: Subject, case: Adopted) -> float:
    """A function in the framework is adopted, trained in the samples' units, saved and loaded, and given back in kind."""
    name = subject.name
    if name is None:
        raise NotDeclared("the class was passed in as it is, and is not installed under a name")
    model = ismcore.ScoreFunction(case, PARAMS, backend=name)
    plain: dict[str, Any] = {"dtype": subject.dtype, "device": subject.device, "progress": False, "recipe": "reference"}
    with warnings.catch_warnings(action="ignore", category=ismcore.IsmWarning):
        result = ismcore.fit(X, model=model, optimizer=ismcore.SGD(0.125), epochs=1, standardize=True, **plain)
    if set(result.params) != set(NAMES):
        raise CheckFailed(f"its parameters are called {', '.join(result.params)}, not {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder:
        result.save(os.path.join(folder, "result"))
        loaded = ismcore.load(os.path.join(folder, "result"), model=model)
    apply, params = result.native()
    with subject.working() as engine:
        native = engine.to_numpy(
            engine.map_rows(apply)(params, engine.asarray(X)) if case.by_row else apply(params, engine.asarray(X))
        )
    expected = _trained()
    tolerance = subject.tolerances
    return max(
        subject.close(result.score(X), expected, tolerance.gradient, "the score of the fit", dtype="float64"),
        subject.close(loaded.score(X), expected, tolerance.gradient, "the score of the loaded fit", dtype="float64"),
        subject.close(native, expected, tolerance.gradient, "the score that is given back"),
    )


def _trained() -> np.ndarray:
    """The score at X after one step of gradient descent on J = mean 1/2 |psi|^2 + div psi, in z = (x - mean) / scale.

    dJ/da = mean psi = a - b mean z = a,   dJ/db = -mean psi z - 1 = b mean z^2 - 1 = b - 1
    """
    mean, scale = X.mean(axis=0), X.std(axis=0)
    a, b = A - 0.125 * A, B - 0.125 * (B - 1.0)
    return np.asarray((a - b * (X - mean) / scale) / scale)

"""Functions of HIPS-autograd as models of ismcore, and fitted models as functions of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import autograd.numpy as anp
import numpy as np

from ismcore.models import ScoreFunction, takes_rows
from ismcore.ops import Array
from ismcore.results.evaluate import check_language
from ismcore.results.result import FitResult
from ismcore_autograd.calculus import ArrayCalculus

__all__ = ["adopt", "function"]


def adopt(model: ScoreFunction, sample: tuple[np.ndarray, ...]) -> ScoreFunction:
    """A `ScoreFunction` of HIPS-autograd; one of a single row is called row by row, which costs n calls a batch.

    Raises:
        ModelError: It gives neither a score nor an energy a row.
    """
    tree = model.tree(model.initial_params(0, sample[0].shape[1]))
    per_row = takes_rows(
        model.title,
        lambda: model.apply(tree, *(rows.copy() for rows in sample)),
        lambda: _over_rows(model.apply)(tree, *sample),
        len(sample[0]),
    )
    return replace(model, over_rows=_over_rows) if per_row else model


def _over_rows(apply: Callable[..., Array]) -> Callable[..., Array]:
    def batched(params: Any, *arguments: Array) -> Array:
        return anp.stack([apply(params, *(rows[i] for rows in arguments)) for i in range(arguments[0].shape[0])])

    return batched


def function(result: FitResult) -> Callable[..., Array]:
    """The fitted score as a function (x) or (x, context) of NumPy arrays, (n, d) -> (n, d), in the samples' units.

    Differentiable in x by HIPS-autograd. Always the score; `result.native()` gives an adopted energy back as an energy.

    Args:
        result: A fit on any backend, of a model that runs in HIPS-autograd.

    Raises:
        ModelError: The model is written for another framework.

    Example:
        >>> import ismcore_autograd
        >>> result = ismcore.fit(np.linspace(-1.0, 1.0, 100), model=ismcore.Affine(), epochs=1, backend="autograd")
        >>> ismcore_autograd.function(result)(np.zeros((5, 1))).shape
        (5, 1)
    """
    check_language(result.model, "autograd")
    params = {name: value.copy() for name, value in result.params.items()}

    def score(x: Array, context: Array | None = None) -> Array:
        return result.model.score(ArrayCalculus(x), params, x, context)

    return score

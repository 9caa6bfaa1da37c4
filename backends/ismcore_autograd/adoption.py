"""Fitted models as functions of NumPy arrays; functions of HIPS-autograd are adopted by the core itself."""

from __future__ import annotations

from collections.abc import Callable

from ismcore.ops import Array
from ismcore.results.evaluate import check_language
from ismcore.results.result import FitResult
from ismcore_autograd.calculus import ArrayCalculus

__all__ = ["function"]


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

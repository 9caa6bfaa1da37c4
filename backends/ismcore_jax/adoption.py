"""Networks and functions of JAX as models of ismcore, and fitted models as JAX functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ismcore.calculus import Calculus
from ismcore.errors import ModelError
from ismcore.models import Frame, Model, ScoreFunction, UserModel
from ismcore.models.function import pair
from ismcore.ops import Array, Params
from ismcore.results.evaluate import check_language
from ismcore.results.result import FitResult
from ismcore_jax.calculus import ArrayCalculus
from ismcore_jax.forms import Form, adopt_tree
from ismcore_jax.trainable import Trainable

__all__ = ["FunctionForm", "adopt", "function"]


@dataclass(frozen=True, eq=False)
class FunctionForm(Form):
    """A function (params, x) of JAX, whose params are any pytree."""

    apply: Callable[..., Array]
    kind = "ScoreFunction"
    title = ScoreFunction.title

    @property
    def key(self) -> Hashable:
        """See `Form.key`."""
        return self.apply

    def call(self, tree: Any, *arguments: Array) -> Array:
        """See `Form.call`."""
        return self.apply(tree, *arguments)

    def give(self, tree: Any, engine: Calculus, frame: Frame, into: Any) -> Any:
        """See `Form.give`."""
        if into is not None:
            raise ModelError("the parameters of a ScoreFunction cannot be changed in place; use what native() returns")
        return pair(lambda x: ArrayCalculus(jax.numpy.asarray(x)), self.apply, tree, frame)


def adopt(model: Any, sample: tuple[np.ndarray, ...]) -> UserModel:
    """A network of Flax or Equinox, a `ScoreFunction` of JAX, or a `Trainable` of one, as a model.

    Raises:
        ModelError: It is not fit to be one; the message says why.
    """
    model, trained = (model.model, model.filter_spec) if isinstance(model, Trainable) else (model, None)
    if isinstance(model, ScoreFunction):
        return adopt_tree(FunctionForm(model.apply), model.params, sample, trained=trained)
    if "equinox" in sys.modules and isinstance(model, sys.modules["equinox"].Module):
        from ismcore_jax.equinox_module import adopt_equinox

        return adopt_equinox(model, sample, trained)
    if isinstance(model, tuple) or isinstance(model, sys.modules["flax.linen"].Module):
        from ismcore_jax.flax_linen import adopt_linen

        return adopt_linen(model, sample, trained)
    from ismcore_jax.flax_nnx import adopt_nnx

    return adopt_nnx(model, sample, trained)


def function(result: FitResult) -> Callable[..., Array]:
    """The fitted score as a function (x) or (x, context) of JAX arrays, (n, d) -> (n, d), in the samples' units.

    It is a `jax.tree_util.Partial`, so a pytree of its parameters: `jax.grad` of a function of it is a gradient in them,
    `jax.jit` takes it as an argument, and `.args[0]` is their dict. Always the score; `result.native()` gives an adopted
    energy back as an energy. A float64 result asks for `jax_enable_x64`, as all float64 in JAX.

    Args:
        result: A fit on any backend, of a model that runs in JAX. A fit elsewhere comes on JAX's default device.

    Raises:
        ModelError: The model is written for another framework.

    Example:
        >>> import ismcore_jax
        >>> result = ismcore.fit(np.linspace(-1.0, 1.0, 100), model=ismcore.Affine(), epochs=1, backend="autograd")
        >>> ismcore_jax.function(result)(np.zeros((5, 1), "float32")).shape
        (5, 1)
    """
    from ismcore_jax.backend import JaxBackend

    check_language(result.model, "jax")
    engine = JaxBackend(result.dtype, result.device if result.backend == "jax" else "auto")
    with engine.scope():
        return jax.tree_util.Partial(_Apply(result.model), engine.asarrays(result.params))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Apply:
    """(params, x) -> score; equal for equal models, so that a program compiled for one serves the other."""

    model: Model

    def __call__(self, params: Params, x: Array, context: Array | None = None) -> Array:
        x = jax.numpy.asarray(x)
        return self.model.score(ArrayCalculus(x), params, x, context)

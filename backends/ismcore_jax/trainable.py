"""A network of which a part is trained. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Trainable"]


@dataclass(frozen=True, eq=False)
class Trainable:
    """A network of which only a part is trained, as a model: what the filter does not select is a constant.

        ismcore.fit(x, model=ismcore_jax.Trainable(net, filter_spec))

    Args:
        model: A network of Flax or Equinox, or a `ScoreFunction` of JAX, that has its parameters: a linen module comes bound,
            or as a pair.
        filter_spec: What is trained, as the network's framework says it:

            - Equinox: what `equinox.partition` takes, a tree of booleans or of functions (leaf) -> bool in its form, or
              a beginning of it. Of what it selects, the arrays of floats are trained.
            - NNX: a filter as of `nnx.split` and `nnx.DiffState`: a type of variable (`nnx.LoRAParam`), a function
              (path, variable) -> bool, `nnx.PathContains("head")`, `nnx.All(...)`, ...
            - linen and functions: a tree of booleans in the form of the params, or a beginning of it, as a mask of optax; or a
              function (path, value) -> bool of paths such as ("Dense_0", "kernel").

    Results hold the trained parameters alone; `native()` gives the whole network.

    Example:
        >>> import ismcore_jax
        >>> def apply(params, x):
        ...     return -x * params["inverse"] + params["shift"]
        >>> function = ismcore.ScoreFunction(apply, {"inverse": 1.0, "shift": 0.0}, backend="jax")
        >>> part = ismcore_jax.Trainable(function, {"inverse": True, "shift": False})
        >>> sorted(ismcore.fit(np.linspace(-1.0, 1.0, 100), model=part, epochs=1).params)
        ['inverse']
    """

    model: Any
    filter_spec: Any

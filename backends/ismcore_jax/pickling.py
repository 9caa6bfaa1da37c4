"""Networks on JAX in pickles. JAX's own functions say that they are at home in private modules, where others stand."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["pickled"]

_PUBLIC = ("jax.numpy", "jax.nn", "jax.scipy.special", "jax.lax", "jax.nn.initializers", "flax.linen", "flax.nnx", "equinox.nn")
"""Modules whose functions users put into networks."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """A function that a public module has, by its name there."""
        name = getattr(value, "__name__", "") if callable(value) else ""
        for module in _PUBLIC if name else ():
            if getattr(sys.modules.get(module), name, None) is value:
                return _found, (module, name)
        return NotImplemented


def _found(module: str, name: str) -> Callable[..., Any]:
    return getattr(import_module(module), name)  # type: ignore[no-any-return]


def pickled(value: Any) -> bytes:
    """A pickle of a value, for `pickle.loads`.

    Raises:
        Exception: Whatever pickle raises of what it cannot take, such as a lambda or a class in a function.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()

"""The JAX backend of ismcore, score matching for training loops of one's own, and fitted models in its own form.

Nothing is imported before it is asked for: whoever lists backends imports this package, and not JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ismcore_jax.adoption import function
    from ismcore_jax.derivatives import divergence, hutchinson_divergence, jacobian_diagonal
    from ismcore_jax.losses import (
        denoising_score_matching,
        explicit_score_matching,
        implicit_score_matching,
        sliced_score_matching,
    )
    from ismcore_jax.sharing.mesh import devices, processes
    from ismcore_jax.trainable import Trainable

__all__ = [
    "Trainable",
    "denoising_score_matching",
    "devices",
    "divergence",
    "explicit_score_matching",
    "function",
    "hutchinson_divergence",
    "implicit_score_matching",
    "jacobian_diagonal",
    "processes",
    "sliced_score_matching",
]

_HOMES = {
    "Trainable": "trainable",
    "function": "adoption",
    **dict.fromkeys(("devices", "processes"), "sharing.mesh"),
    **dict.fromkeys(("divergence", "hutchinson_divergence", "jacobian_diagonal"), "derivatives"),
}
"""Modules by what they hold; all else is a loss."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'losses')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

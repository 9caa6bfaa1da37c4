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

__all__ = [
    "denoising_score_matching",
    "divergence",
    "explicit_score_matching",
    "function",
    "hutchinson_divergence",
    "implicit_score_matching",
    "jacobian_diagonal",
    "sliced_score_matching",
]

_HOMES = {
    "denoising_score_matching": "losses",
    "divergence": "derivatives",
    "explicit_score_matching": "losses",
    "function": "adoption",
    "hutchinson_divergence": "derivatives",
    "implicit_score_matching": "losses",
    "jacobian_diagonal": "derivatives",
    "sliced_score_matching": "losses",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

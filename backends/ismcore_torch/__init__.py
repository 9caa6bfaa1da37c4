"""The torch backend of ismcore, score matching for training loops of one's own, and fitted models in its own form.

Nothing is imported before it is asked for: whoever lists backends imports this package, and not torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ismcore_torch.adoption import module
    from ismcore_torch.derivatives import divergence, hutchinson_divergence, jacobian_diagonal
    from ismcore_torch.losses import (
        denoising_score_matching,
        explicit_score_matching,
        implicit_score_matching,
        sliced_score_matching,
    )
    from ismcore_torch.sharing import processes

__all__ = [
    "denoising_score_matching",
    "divergence",
    "explicit_score_matching",
    "hutchinson_divergence",
    "implicit_score_matching",
    "jacobian_diagonal",
    "module",
    "processes",
    "sliced_score_matching",
]

_HOMES = {
    "module": "adoption",
    "processes": "sharing",
    **dict.fromkeys(("divergence", "hutchinson_divergence", "jacobian_diagonal"), "derivatives"),
}
"""Modules by what they hold; all else is a loss."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'losses')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

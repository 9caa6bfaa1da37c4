"""What torch raises while a user's own module is differentiated, as an error that names module, reason and remedy."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from ismcore.errors import IsmError, ModelError
from ismcore.models import Model
from ismcore.plugins.adoption import users_own

__all__ = ["in_words"]

P = ParamSpec("P")
T = TypeVar("T")

_REMEDIES = {
    "_cdist_backward": (
        'torch.cdist has no second derivative on up to 25 rows: pass compute_mode="use_mm_for_euclid_dist", or write '
        "(x[:, None] - c).square().sum(-1)"
    ),
    "use_reentrant=False": "use torch.utils.checkpoint.checkpoint(..., use_reentrant=False), which can be differentiated twice",
    "unpack hook": "use torch.utils.checkpoint.checkpoint(..., use_reentrant=False) outside of functions that torch.func maps",
    "donated buffers": "a compiled part is differentiated once at most: pass the module before torch.compile",
    "does not currently support double backward": (
        'a compiled part is differentiated once at most: pass the module before torch.compile, and compile="on" to fit'
    ),
    "setup_context": "give that autograd.Function a setup_context, or let the module take a batch and not one row",
    "is not implemented": (
        "torch has no second derivative of that operation: use another, or an objective that does not differentiate in x, such "
        "as ismcore.DenoisingScoreMatching"
    ),
    "_cudnn_rnn": "cuDNN has no second derivative: call it under torch.backends.cudnn.flags(enabled=False), or fit on the CPU",
}
"""What to do, by a part of torch's text; the first that is found."""


def in_words(model: Model, f: Callable[P, T]) -> Callable[P, T]:
    """The same function, in which whatever the user's module raises is a ModelError; the library's own models need none.

    Raises:
        ModelError: See above.
    """
    own, _ = users_own(model)
    if own is None:
        return f

    @wraps(f)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return f(*args, **kwargs)
        try:
            return f(*args, **kwargs)
        except (IsmError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            text, name = str(error).strip(), type(error).__name__
            remedy = next((f". Remedy: {cure}" for part, cure in _REMEDIES.items() if part in text), "")
            first = text.splitlines()[0].rstrip(".")[:300] if text else "no message"
            raise ModelError(f"{own.title} fails when it is differentiated: {name}: {first}{remedy}") from error

    return called

"""What a run tells to those who follow it: events, callbacks, and the word that ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, get_args

import numpy as np

from ismcore.errors import CallbackFailed, OptionError
from ismcore.training.run_state import Status

__all__ = ["KINDS", "STOP", "FitEvent", "Kind", "Listener", "as_listeners"]

Kind = Literal["start", "chunk", "validation", "checkpoint", "end", "error"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class _Word(Enum):
    STOP = "stop"

    def __repr__(self) -> str:
        return "ismcore.STOP"


STOP: Final = _Word.STOP
"""What a callback returns to end the run; the result is what it would be had the run been that short, status "interrupted"."""


@dataclass(frozen=True, eq=False)
class FitEvent:
    """What happened in a run.

    Attributes:
        kind: "start", "chunk" (some steps were taken), "validation" (the held-out loss was found), "checkpoint" (a file was
            written), "end", or "error" (the run is about to raise).
        epoch: Epochs done.
        epochs: Epochs asked for.
        losses: The loss of each epoch done so far, read-only.
        seconds: Time since the start, from a monotonic clock.
        status: How the run ended; "" before its end.
        validation: Held-out losses so far, by epoch.
        learning_rate: Of the next step.
        remaining: Seconds that the epochs left will take at the present speed; NaN as long as it is unknown.
        checkpoint: The file that was written.
        error: What is about to be raised.
        run: A word that the events of one run have in common, and no other run has.
    """

    kind: Kind
    epoch: int
    epochs: int
    losses: np.ndarray
    seconds: float
    status: Status | Literal[""] = ""
    validation: dict[int, float] = field(default_factory=dict)
    learning_rate: float = np.nan
    remaining: float = np.nan
    checkpoint: str = ""
    error: BaseException | None = None
    run: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The event in numbers and words that JSON can hold, with the newest losses alone; what is not finite is None."""
        numbers = {
            "loss": self.losses[-1] if len(self.losses) else np.nan,
            "validation_loss": next(reversed(self.validation.values()), np.nan),
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
            "remaining": self.remaining,
        }
        words = {"status": self.status, "checkpoint": self.checkpoint, "error": repr(self.error) if self.error else ""}
        return {
            "run": self.run,
            "kind": self.kind,
            "epoch": self.epoch,
            "epochs": self.epochs,
            **{name: float(value) if np.isfinite(value) else None for name, value in numbers.items()},
            **{name: value for name, value in words.items() if value},
        }


Listener = Callable[[FitEvent], object]


def as_listeners(callbacks: Iterable[Any]) -> list[Listener]:
    """A listener for each callback: a function of the event, or an object with some of `on_start`, ..., `on_error`.

    Raises:
        OptionError: A callback is neither.
    """
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        raise OptionError(f"callbacks must be a sequence of callbacks, such as [callback], not {callbacks!r}")
    return [_listener(callback) for callback in callbacks]


def _listener(callback: Any) -> Listener:
    methods = {kind: getattr(callback, f"on_{kind}") for kind in KINDS if callable(getattr(callback, f"on_{kind}", None))}
    if isinstance(callback, type) or not (methods or callable(callback)):
        known = ", ".join(f"on_{kind}" for kind in KINDS)
        what = "is a class: pass an object of it" if isinstance(callback, type) else "is and has none"
        raise OptionError(f"a callback must be a function of an event, or have one of {known}; {callback!r} {what}")

    def listen(event: FitEvent) -> object:
        method = methods.get(event.kind) if methods else callback
        if method is None:
            return None
        try:
            return method(event)
        except Exception as error:
            message = (
                f"callback {callback!r} failed on {event.kind!r} after epoch {event.epoch}: {error!r}; the fit up to there "
            )
            raise CallbackFailed(message + "is in this error's .result") from error

    return listen


def tell(listeners: Sequence[Listener], event: FitEvent) -> bool:
    """Pass an event to every listener; whether one of them wants the run to end."""
    return any([listener(event) is STOP for listener in listeners])

"""Learning-rate schedules: how the rate of a run changes from its first step to its last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ismcore.errors import OptionError

__all__ = ["SHAPES", "Schedule", "as_schedule"]

SHAPES = ("constant", "cosine", "exponential")


@dataclass(frozen=True)
class Schedule:
    """A factor on the optimiser's learning rate, by the share p in [0, 1) of the steps after the warm-up that are done.

        constant:     1
        cosine:       end + (1 - end) (1 + cos(pi p)) / 2        (Loshchilov & Hutter 2017, without restarts)
        exponential:  end^p

    During the warm-up, step k of w (counted from 1) has the factor k / w.

    Args:
        shape: "constant", "cosine" or "exponential".
        warmup: Length of the warm-up, as a share of all steps in [0, 1).
        end: The factor that the shape comes down to, in [0, 1]; positive for "exponential", without a meaning for "constant".

    Raises:
        OptionError: A value is none of the above.

    Example:
        >>> ismcore.Schedule("cosine", end=0.1).factors(np.arange(4), 4).round(3)
        array([1.   , 0.868, 0.55 , 0.232])
    """

    shape: str = "constant"
    warmup: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise OptionError(f"a schedule's shape must be one of {', '.join(SHAPES)}, not {self.shape!r}")
        if not _in_range(self.warmup) or self.warmup == 1.0:
            raise OptionError(f"a schedule's warmup must be a share of the steps, from 0 to below 1, not {self.warmup!r}")
        if not _in_range(self.end) or (self.shape == "exponential" and self.end == 0.0):
            low = "above 0" if self.shape == "exponential" else "from 0"
            raise OptionError(f"the end of a schedule of shape {self.shape!r} must be {low} to 1, not {self.end!r}")

    def factors(self, step: np.ndarray, total: int) -> np.ndarray:
        """The factor at each step of a run.

        Args:
            step: Numbers of the steps, from 0, (count,).
            total: Steps of the whole run; the steps beyond it keep the last factor.
        """
        warm = round(self.warmup * total)
        p = np.clip((step - warm) / max(1, total - warm), 0.0, 1.0)
        if self.shape == "cosine":
            after = self.end + (1.0 - self.end) * 0.5 * (1.0 + np.cos(np.pi * p))
        else:
            after = self.end**p if self.shape == "exponential" else np.ones_like(p)
        return np.where(step < warm, (step + 1.0) / max(1, warm), after)


def _in_range(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float | np.number) and 0.0 <= float(value) <= 1.0


def as_schedule(schedule: object, epochs: int) -> Schedule | tuple[float, ...]:
    """A schedule, or the rates of all epochs.

    Args:
        schedule: A `Schedule`, the name of a shape, or an array with one learning rate an epoch, (epochs,).
        epochs: Epochs of the run.

    Raises:
        OptionError: It is none of these.
    """
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str):
        return Schedule(schedule)
    try:
        rates = np.asarray(schedule, dtype=np.float64)
    except (TypeError, ValueError):
        rates = np.empty(0)
    if rates.shape != (epochs,) or not np.all(np.isfinite(rates) & (rates >= 0.0)):
        raise OptionError(
            f"schedule must be an ismcore.Schedule, one of {', '.join(map(repr, SHAPES))}, or {epochs} finite learning rates "
            f"from 0, one an epoch; got {schedule!r:.120}"
        )
    return tuple(rates.tolist())

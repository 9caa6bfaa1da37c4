"""Rows that a fit has set aside: neither it nor any choice on its way has seen them, so that they can judge it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ismcore.errors import FileInvalid

__all__ = ["SetAside", "check_rows"]


@dataclass(frozen=True, eq=False)
class SetAside:
    """Rows that judge a fit, and rows of the fit, to which competitors are fitted; see `FitResult.check`.

    Attributes:
        x: Rows set aside, (m, d), in [x].
        labels: (m,), from 0; rows of one label may depend on each other.
        weight: Their weights, (m,), of sum 1; None where all weigh alike.
        fitted: Rows of the fit, (k, d), in [x]: all of them, or 10,000 drawn from the seed.
        fitted_weight: Their weights, (k,), of sum 1; None where all weigh alike.
    """

    x: np.ndarray
    labels: np.ndarray
    weight: np.ndarray | None
    fitted: np.ndarray
    fitted_weight: np.ndarray | None

    def check(self, d: int) -> None:
        """Refuse arrays that do not go together, as a file may hold them.

        Raises:
            FileInvalid: The message says which.
        """
        for name, rows, weight in (("x", self.x, self.weight), ("fitted", self.fitted, self.fitted_weight)):
            check_rows(f"its rows set aside have {name}", rows, d)
            if weight is not None and (weight.shape != (len(rows),) or not np.all(weight >= 0.0) or not weight.sum() > 0.0):
                raise FileInvalid(f"its rows set aside have {name} with weights that are none")
        labels = self.labels
        if labels.shape != (len(self.x),) or labels.dtype.kind != "i" or labels.min() < 0 or labels.max() >= len(labels):
            raise FileInvalid("its rows set aside have labels that are none")


def check_rows(what: str, rows: np.ndarray, d: int) -> None:
    """Refuse rows that a file holds, where they are no samples of d columns.

    Raises:
        FileInvalid: See above.
    """
    if rows.ndim != 2 or rows.shape[1] != d or not len(rows) or rows.dtype != np.float64 or not np.isfinite(rows).all():
        raise FileInvalid(f"{what} of shape {rows.shape} and dtype {rows.dtype}, not finite rows of {d} columns in float64")

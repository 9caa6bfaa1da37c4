"""The input door: whatever a user calls samples, as one float64 array of shape (n, d), or an error that says why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ismcore.errors import SamplesError

__all__ = ["Standardizer", "as_samples", "as_weights", "check_spread"]


def as_samples(x: Any, *, dtype: str = "float64", d: int | None = None) -> np.ndarray:
    """Samples as a float64 array (n, d) of its own.

    Takes anything that NumPy can make an array of: lists, data frames, tensors on the CPU, memory maps; one-dimensional
    samples count as (n, 1).

    Args:
        x: The samples, (n, d) or (n,), in the user's units [x].
        dtype: The dtype that the computation will run in; the samples must be finite there too.
        d: The dimension that they must have, where it is already known.

    Raises:
        SamplesError: Not numbers, complex, wrong rank or dimension, no rows, or a value that is NaN or infinite.

    Example:
        >>> as_samples([1, 2, 3]).shape
        (3, 1)
    """
    array = _as_array(x)
    if array.dtype.kind == "c":
        raise SamplesError(f"samples must be real; got {array.dtype}: pass x.real, or real and imaginary part as columns")
    if array.dtype.kind not in "fiub":
        raise SamplesError(f"samples must be numbers; got {array.dtype} such as {array.ravel()[:1].tolist()}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise SamplesError(f"samples must have shape (n, d) or (n,); got {array.shape}: reshape to one row a sample")
    if 0 in array.shape:
        raise SamplesError(f"samples must have at least one row and one column; got shape {array.shape}")
    if d is not None and array.shape[1] != d:
        raise SamplesError(f"samples must have {d} columns, as the model has; got shape {array.shape}")
    # Narrowing to float32 may overflow: that is looked for below, and reported with the rows.
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(dtype)).all(axis=1)
    if not finite.all():
        rows = np.flatnonzero(~finite)
        what = "NaN or infinite values" if not np.isfinite(array).all() else f"values beyond the range of {dtype}"
        raise SamplesError(
            f"samples hold {what} in {len(rows)} of {len(array)} rows, the first at {rows[:5].tolist()}: "
            "drop or mend these rows, for example x[numpy.isfinite(x).all(axis=1)]"
        )
    return np.array(array, dtype=np.float64, order="C")


def as_weights(weights: Any, n: int) -> np.ndarray:
    """Row weights, (n,), float64, divided by their sum.

    Raises:
        SamplesError: Not n finite numbers from 0 with a positive sum.
    """
    array = np.asarray(weights, dtype=np.float64) if np.ndim(weights) == 1 else np.empty(0)
    if array.shape != (n,) or not np.all(np.isfinite(array)) or np.any(array < 0.0) or array.sum() <= 0.0:
        raise SamplesError(f"sample_weight must be {n} finite numbers from 0, not all 0; got shape {np.shape(weights)}")
    return np.asarray(array / array.sum())


def _as_array(x: Any) -> np.ndarray:
    if hasattr(x, "detach"):  # a torch tensor that requires a gradient refuses to become an array
        x = x.detach()
    try:
        array = np.asarray(x)
        return array if array.dtype != object else array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SamplesError(f"samples must be an array of numbers of shape (n, d); got {type(x).__name__}: {error}") from error


def check_spread(x: np.ndarray) -> None:
    """Refuse what no score can be fitted to: a single row, or a column that never changes.

    Raises:
        SamplesError: See above.
    """
    if len(x) < 2:
        raise SamplesError("samples must have at least two rows to fit a score to; got one")
    constant = np.flatnonzero(x.max(axis=0) == x.min(axis=0))
    if len(constant):
        raise SamplesError(
            f"column {constant[0]} of the samples is constant ({x[0, constant[0]]:g}), one of {len(constant)} such: a "
            "variable without spread has no density and no score; drop the column"
        )


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Shift and scale of each column: z = (x - mean) / scale.

    Attributes:
        mean: (d,), in units [x].
        scale: (d,), in units [x]: the standard deviation, divided by n.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, weight: np.ndarray | None = None) -> Standardizer:
        """The one that gives the columns of x, with row weights (n,) of sum 1, mean 0 and standard deviation 1.

        Raises:
            SamplesError: The values are so large that their squares overflow.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.average(x, axis=0, weights=weight)
            scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
        bad = np.flatnonzero(~np.isfinite(scale) | (scale == 0.0))
        if len(bad):
            raise SamplesError(
                f"column {bad[0]} of the samples spans {x[:, bad[0]].min():g} to {x[:, bad[0]].max():g}, which is too wide "
                "or too narrow to standardise in float64; rescale it first"
            )
        return cls(mean, scale)

    @classmethod
    def identity(cls, d: int) -> Standardizer:
        """The one that changes nothing."""
        return cls(np.zeros(d), np.ones(d))

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return bool(np.all(self.mean == 0.0) and np.all(self.scale == 1.0))

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """The samples in the user's units, (n, d), in [x]."""
        return np.asarray(z * self.scale + self.mean)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The standardised samples, (n, d), without a unit."""
        return np.asarray((x - self.mean) / self.scale)

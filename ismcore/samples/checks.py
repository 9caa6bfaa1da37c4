"""The input door: whatever a user calls samples, as one float64 array of shape (n, d), or an error that says why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import PurePath
from typing import Any

import numpy as np

from ismcore.errors import SamplesError
from ismcore.samples.sources.source import Source
from ismcore.samples.tables.frames import array_of, in_order, labels_of, names_of, numbers_of

__all__ = ["as_groups", "as_samples", "as_weights", "check_spread", "label", "label_all"]

ROUNDING = 1e3 * float(np.finfo(np.float64).eps)
"""A column that spreads by less than this share of its mean takes a few thousand values at most: it is rounding noise."""

FEWEST_EFFECTIVE = 1.5
"""Fewer effective rows have no spread."""


@np.errstate(all="ignore")  # whatever the caller's own setting: what overflows is reported, with its rows
def as_samples(
    x: Any, *, dtype: str = "float64", d: int | None = None, names: Sequence[str] | None = None, copy: bool = True
) -> np.ndarray:
    """Samples as a float64 array (n, d) of its own.

    Takes anything that NumPy can make an array of: lists, data frames, tensors on the CPU, memory maps; one-dimensional
    samples count as (n, 1). Text is not read as numbers, and what is masked is not unmasked.

    Args:
        x: The samples, (n, d) or (n,), in the user's units [x].
        dtype: The dtype that the computation will run in; the samples must be finite there too.
        d: The dimension that they must have, where it is already known.
        names: Names of the columns, (d,), where they are already known: those of a frame are put in this order.
        copy: Whether to copy what is such an array already; not where nobody else holds it.

    Raises:
        SamplesError: Not numbers, complex, masked, wrong rank or dimension, other names of columns, no rows, or a value that is
            NaN or infinite.

    Example:
        >>> as_samples([1, 2, 3]).shape
        (3, 1)
    """
    # what is looked for in other libraries' objects takes half of the time of a small array
    plain = type(x) is np.ndarray and x.dtype.kind == "f"
    array, labels = (x, None) if plain else (_as_array(x, "samples"), labels_of(x))
    if array.dtype.kind == "c":
        raise SamplesError(f"samples must be real; got {array.dtype}: pass x.real, or real and imaginary part as columns")
    if array.dtype.kind not in "fiub":
        how = ", by numpy.lib.recfunctions.structured_to_unstructured(x)" if array.dtype.names else ""
        raise SamplesError(
            f"samples must be numbers; got {array.dtype} such as {array.ravel()[:1].tolist()}: convert them first{how}"
        )
    given = array
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise SamplesError(f"samples must have shape (n, d) or (n,); got {array.shape}: reshape to one row a sample")
    if 0 in array.shape:
        raise SamplesError(f"samples must have at least one row and one column; got shape {array.shape}")
    order = in_order(labels, names if names or d is None else tuple(map(str, range(d))))
    if order is not None:
        array = array[:, order]
    if d is not None and array.shape[1] != d:
        raise SamplesError(f"samples must have {d} columns, as the model has; got shape {given.shape}{_one_point(given, d)}")
    # Narrowing to float32 may overflow, as may that of a long double to float64.
    finite = np.isfinite(array.astype(np.float64, copy=False).astype(dtype, copy=False))
    if not finite.all():
        found = names_of(x) if order is None else names
        raise SamplesError(_about_not_finite(x, array, finite.all(axis=1), dtype, found))
    return np.array(array, dtype=np.float64, order="C", copy=True if copy else None)


def _about_not_finite(x: Any, array: np.ndarray, finite: np.ndarray, dtype: str, names: Sequence[str] | None) -> str:
    """What to say of rows that are not finite, (n,), and what to do, in the words of the library that the samples came from."""
    rows, good = np.flatnonzero(~finite), np.isfinite(array)
    what = "NaN or infinite values" if not good.all() else f"values beyond the range of {dtype}"
    columns = np.flatnonzero(~good.all(axis=0)).tolist()
    where = f", in column{'s' * (len(columns) > 1)} {label_all(columns, names)}" if columns and array.shape[1] > 1 else ""
    return (
        f"samples hold {what} in {len(rows)} of {len(array)} rows, the first at {rows[:5].tolist()}{where}: "
        f"drop or mend these rows, for example {_without_rows(x, array)}"
    )


def _without_rows(x: Any, array: np.ndarray) -> str:
    """What keeps the finite rows of x, of the numbers (n, d), in the words of the library that x came from."""
    if hasattr(x, "dims") and hasattr(x, "where"):
        return f"x.where(numpy.isfinite(x)).dropna({next(iter(x.dims))!r})"
    if hasattr(x, "dropna") and np.isnan(array).any():
        return "x.dropna()"
    one = np.ndim(x) == 1
    if hasattr(x, "drop_nulls") or hasattr(x, "drop_null"):  # which leave NaN
        series = "x.is_finite()" if hasattr(x, "is_finite") else "pyarrow.compute.is_finite(x)"
        return f"x.filter({series if one else 'numpy.isfinite(x).all(axis=1)'})"
    return "x[numpy.isfinite(x)]" if one else "x[numpy.isfinite(x).all(axis=1)]"


def label(column: int, names: Sequence[str] | None) -> str:
    """A column in words: its name, quoted, or its number where it has none."""
    return repr(names[column]) if names is not None and column < len(names) else str(column)


def label_all(columns: Sequence[int], names: Sequence[str] | None, most: int = 12) -> str:
    """Columns in words, the first of them."""
    more = f" and {len(columns) - most} more" if len(columns) > most else ""
    return ", ".join(label(column, names) for column in columns[:most]) + more


def _one_point(given: np.ndarray, d: int) -> str:
    """What to pass instead, where a point (d,) was taken for d samples of one column; else ""."""
    if given.shape != (d,):
        return ""
    values = [f"{value:g}" for value in given[:3].tolist()] + ["..."] * (d > 3)
    return f", which counts as {d} samples of one column: pass one point as a row, [[{', '.join(values)}]]"


@np.errstate(all="ignore")
def as_weights(weights: Any, n: int) -> np.ndarray:
    """Row weights, (n,), float64, divided by their sum.

    Raises:
        SamplesError: Not n finite numbers from 0 with a positive sum.
    """
    array = _as_array(weights, "sample_weight")
    wanted = f"sample_weight must be {n} finite numbers from 0, not all zero"
    if array.dtype.kind not in "fiub":
        raise SamplesError(f"{wanted}; got {array.dtype}")
    if array.shape != (n,):
        raise SamplesError(f"{wanted}; got shape {array.shape}")
    array = array.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0.0)))
    if len(bad) or not array.any():
        raise SamplesError(f"{wanted}; got {array[bad[0]]} in row {bad[0]}" if len(bad) else f"{wanted}; all are zero")
    if not np.isfinite(array.sum()):
        array = array / array.max()
    return np.asarray(array / array.sum())


def as_groups(groups: Any, n: int) -> np.ndarray:
    """Labels of rows, (n,), numbered from 0.

    Raises:
        SamplesError: Not n labels, or all the same: nothing could be held out.
    """
    labels = np.asarray(groups)
    wanted = f"groups must be {n} labels, one a row, numbers or strings, and not all the same"
    if labels.shape != (n,):
        raise SamplesError(f"{wanted}; got shape {labels.shape}")
    try:
        found, number = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise SamplesError(f"{wanted}; they cannot be sorted: {error}") from error
    if len(found) < 2:
        raise SamplesError(f"{wanted}; all are {found[:1].tolist()[0]!r}")
    return np.asarray(number.reshape(-1), dtype=np.int64)


def _as_array(x: Any, what: str) -> np.ndarray:
    """An array of the numbers in x, of whatever shape.

    Raises:
        SamplesError: NumPy cannot make one, or what it makes would hide that these are no numbers.
    """
    if isinstance(x, str | PathLike):
        raise SamplesError(
            f"{what} must be an array of numbers, and {str(x)[:200]!r} is a path: ismcore.read_table({str(x)[:200]!r}) reads "
            f"the file, with the names of its columns, and gives what can be passed here{_block_by_block(str(x)[:200])}"
        )
    if isinstance(x, Source):
        raise SamplesError(
            f"{what} must be an array of numbers: a source is read block by block by ismcore.fit and resume alone"
        )
    if hasattr(x, "collect_schema") and not hasattr(x, "to_numpy"):
        raise SamplesError(f"{what} must be an array of numbers, and a {type(x).__name__} holds none yet: pass x.collect()")
    given, x = x, array_of(x)
    if isinstance(x, Iterator) or (hasattr(x, "batch_sampler") and hasattr(x, "dataset")):
        raise SamplesError(
            f"{what} must be an array of numbers, and a {type(x).__name__} is none: "
            "ismcore.fit(ismcore.sources.iterable(blocks)) trains on blocks of rows that can be iterated over again each epoch"
        )
    if isinstance(x, Mapping):
        raise SamplesError(f"{what} must be an array of numbers, and a {type(x).__name__} is none: pass a frame made of it")
    masked = int(np.ma.getmaskarray(x).sum()) if isinstance(x, np.ma.MaskedArray) else 0
    if masked:
        raise SamplesError(f"{what} must not be masked; {masked} values are: drop their rows, or fill them")
    try:
        # A torch tensor that requires a gradient refuses to become an array.
        tensor = x.detach() if hasattr(x, "detach") else x
        array = np.asarray(tensor.float() if str(getattr(x, "dtype", "")) == "torch.bfloat16" else tensor)
        names = names_of(given) if array.dtype == object and array.ndim == 2 else None
        if names is not None:
            return _columns_of(array, names)
        if array.dtype == object:
            _refuse_text(array)
        # Numbers that NumPy itself does not know, such as bfloat16, are of kind "V", as are records, which are no numbers.
        known = array.dtype != object and (array.dtype.kind != "V" or array.dtype.names is not None)
        return array if known else array.astype(np.float64)
    except SamplesError:
        raise
    except Exception as error:  # making itself an array, an object of the caller's may raise anything
        dense = ": pass x.toarray()" if hasattr(x, "toarray") else f": {error}"
        raise SamplesError(f"{what} must be an array of numbers; got {type(x).__name__}{dense}") from error


def _block_by_block(path: str) -> str:
    """How the rows of a file that memory does not hold are trained on, in words; "" of a file that is not read so."""
    kind = {".npy": "npy", ".parquet": "parquet", ".zarr": "zarr"}.get(PurePath(path).suffix.lower())
    return "" if kind is None else f"; ismcore.fit(ismcore.sources.{kind}({path!r})) reads it block by block instead"


def _columns_of(array: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The numbers in a frame, (n, d), some of whose columns are of other things, or have missing values."""
    found = np.empty(array.shape)
    for column in range(array.shape[1]):
        try:
            found[:, column] = numbers_of(array[:, column])
        except SamplesError as error:
            raise SamplesError(f"column {label(column, names)} {error}: leave it out, or convert it first") from error
    return found


def _refuse_text(array: np.ndarray) -> None:
    text = next((value for value in array.ravel() if isinstance(value, str | bytes)), None)
    if text is not None:
        raise TypeError(f"{text[:40]!r} is text; convert it first")


def check_spread(x: np.ndarray, weight: np.ndarray | None = None, names: Sequence[str] | None = None) -> None:
    """Refuse what no score can be fitted to: a single row, a column that never changes, or by the rounding of its mean alone.

    Args:
        x: Samples, (n, d).
        weight: Row weights, (n,), of sum 1: rows of weight 0 do not count.
        names: Names of the columns, (d,), to tell of them by.

    Raises:
        SamplesError: See above.
    """
    if len(x) < 2:
        raise SamplesError("samples must have at least two rows to fit a score to; got one")
    among = ""
    if weight is not None:
        if weight @ weight > 1.0 / FEWEST_EFFECTIVE:
            raise SamplesError(
                f"sample_weight leaves {1.0 / (weight @ weight):.3g} effective rows, (sum w)^2 / sum w^2, of {len(x)}: one has "
                f"nearly all the weight, the largest at {int(np.argmax(weight))}; cap the largest weights"
            )
        x = x[weight > 0.0]
        among = f" in the {len(x)} rows that have sample_weight" if not weight.all() else ""
    constant = np.flatnonzero(x.max(axis=0) == x.min(axis=0))
    if len(constant):
        numbers, values = (
            label_all(constant.tolist(), names, len(constant)),
            ", ".join(f"{value:g}" for value in x[0, constant]),
        )
        what = (
            f"column {numbers} of the samples is constant{among}"
            if len(constant) == 1
            else f"columns {numbers} are constant{among}"
        )
        # a frame is not indexed like an array
        how = ", for example by x[:, x.min(axis=0) < x.max(axis=0)]" if names is None else ""
        raise SamplesError(
            f"{what} ({values}): a variable without spread has no density and no score; drop what is constant{how}"
        )
    with np.errstate(all="ignore"):  # what overflows is refused when it is standardised
        mean, spread = np.abs(x.mean(axis=0)), x.std(axis=0)
    rounding = np.flatnonzero((spread < ROUNDING * mean) & (spread > 0.0))  # a spread of 0 is one whose squares underflow
    if len(rounding):
        named = ", ".join(
            f"{label(k, names)} (mean {mean[k]:.6g}, standard deviation {spread[k]:.1g})" for k in rounding[:10].tolist()
        )
        more = f" and {len(rounding) - 10} more" if len(rounding) > 10 else ""
        raise SamplesError(
            f"columns of the samples are constant but for the rounding of their mean: {named}{more}; drop them, or subtract "
            "what they have in common where they still have their digits"
        )

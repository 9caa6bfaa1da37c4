"""Names of the columns of frames: pandas, polars, Arrow, xarray, and whatever has `columns`; and frames of the same kind.

No library of these is imported, but for a bare stream of Arrow's: each kind is known by what it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib import import_module
from typing import Any

import numpy as np

from ismcore.errors import OptionError, SamplesError
from ismcore.samples.tables.parsed import is_missing

__all__ = ["array_of", "frame_like", "in_order", "labels_of", "names_of", "numbers_of"]


def names_of(x: Any) -> tuple[str, ...] | None:
    """The names of a frame's columns; None for what has none, or has numbers 0, 1, ... in their place.

    They are `columns` of pandas, polars and `ismcore.Table`, `column_names` of Arrow, and the labels along the second dimension
    of an xarray DataArray, or the variables of a Dataset. Labels that are no text, such as those of levels, become text.
    """
    found = _labels(x)
    return None if found == tuple(range(len(found))) else tuple(map(str, found))


def labels_of(x: Any) -> tuple[str, ...] | None:
    """The names of a frame's columns, or the numbers in their place; None for what has neither."""
    return tuple(map(str, _labels(x))) or None


def _labels(x: Any) -> tuple[Any, ...]:
    names: Any = getattr(x, "column_names", None)
    if hasattr(x, "data_vars"):
        names = list(x.data_vars)
    elif _is_labelled(x):
        names = x.coords[x.dims[1]].values.tolist() if x.dims[1] in x.coords else None
    elif names is None:
        names = getattr(x, "columns", getattr(getattr(x, "schema", None), "names", None))
    found = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else ()
    return found if all(isinstance(name, str | int | float | tuple | date | np.generic) for name in found) else ()


def _is_labelled(x: Any) -> bool:
    """Whether x is like an xarray DataArray of two dimensions."""
    return hasattr(x, "coords") and hasattr(x, "isel") and len(getattr(x, "dims", ())) == 2


def array_of(x: Any) -> Any:
    """What NumPy makes an array of samples of: x itself, a frame of an Arrow stream, or a Dataset's variables, (n, d).

    Raises:
        SamplesError: These are not all of one dimension, or a column holds dates, which some libraries make numbers of.
    """
    if hasattr(x, "__arrow_c_stream__") and not hasattr(x, "__array__"):
        x = _from_arrow(x)
    _refuse_dates(x)
    if not hasattr(x, "data_vars"):
        return x
    columns = [np.asarray(x[name]) for name in x.data_vars]
    if not columns or any(column.shape != columns[0].shape or column.ndim != 1 for column in columns):
        raise SamplesError("the variables of a Dataset must all have one dimension, that of the rows")
    return np.stack(columns, axis=1)


def _refuse_dates(x: Any) -> None:
    schema: Any = getattr(x, "schema", None)
    kinds: Mapping[Any, Any] = schema if isinstance(schema, Mapping) else {}
    if hasattr(schema, "types"):
        kinds = dict(zip(schema.names, schema.types, strict=True))
    elif hasattr(x, "data_vars"):
        kinds = {name: column.dtype for name, column in x.data_vars.items()}
    for name, kind in kinds.items():
        if str(kind).lower().startswith(("date", "time", "duration")):
            raise SamplesError(f"column {name!r} is of {kind}, and holds no numbers: leave it out, or convert it first")


def _from_arrow(x: Any) -> Any:
    """A frame of what offers itself as a stream of Arrow's, and as nothing else."""
    for name, make in (("polars", "DataFrame"), ("pyarrow", "table")):
        try:
            return getattr(import_module(name), make)(x)
        except ImportError:
            continue
    return x


def in_order(found: Sequence[str] | None, wanted: Sequence[str] | None) -> list[int] | None:
    """Where the columns wanted stand among those found; None where they stand as they should, or one side has no names.

    Names that are "0", "1", ..., in this order, are none, but where the other side is these numbers in another order.

    Raises:
        SamplesError: They are not the same; the message lists what is missing and what is extra.

    Example:
        >>> in_order(("b", "a"), ("a", "b"))
        [1, 0]
    """
    if found is None or wanted is None or tuple(found) == tuple(wanted):
        return None
    numbers = tuple(map(str, range(len(wanted))))
    if numbers in (tuple(found), tuple(wanted)) and sorted(found) != sorted(wanted):
        return None
    missing = [name for name in dict.fromkeys(wanted) if name not in found]
    extra = [name for name in dict.fromkeys(found) if name not in wanted]
    if missing or extra or sorted(found) != sorted(wanted):
        parts = [f"missing {_listed(missing)}" if missing else "", f"extra {_listed(extra)}" if extra else ""]
        what = ", ".join(part for part in parts if part) or "a name stands there more than once"
        raise SamplesError(
            f"the columns are not those of the fit, which are {_listed(wanted)}: {what}; pass these columns, in any order, or "
            "an array without names"
        )
    if len(set(wanted)) < len(wanted):
        raise SamplesError(f"the columns stand in another order, and some names more than once: {_listed(found)}")
    return [list(found).index(name) for name in wanted]


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def frame_like(x: Any, values: np.ndarray, names: Sequence[str]) -> Any:
    """A frame of the library that x is a frame of, with these values, (n, d), and names, and the index of x where it has one.

    Raises:
        OptionError: x is no frame of pandas, polars, Arrow or xarray.
    """
    columns = {name: np.ascontiguousarray(values[:, k]) for k, name in enumerate(names)}
    if hasattr(x, "data_vars"):
        (rows,) = x.dims
        return type(x)({name: (rows, column) for name, column in columns.items()}, coords=x.coords)
    if _is_labelled(x):
        rows, labels = x.dims
        coordinates = {name: x.coords[name] for name in x.coords if labels not in x.coords[name].dims}
        return type(x)(values, coords={**coordinates, labels: list(names)}, dims=(rows, labels))
    if hasattr(x, "iloc") and hasattr(x, "index"):
        return type(x)(values, columns=list(names), index=x.index)
    if hasattr(type(x), "from_pydict"):
        return type(x).from_pydict(columns)
    if type(x).__module__.startswith("polars."):
        return type(x)(columns)
    raise OptionError(f"as_frame=True is for samples in a frame of pandas, polars, Arrow or xarray, not {type(x).__name__}")


def numbers_of(values: np.ndarray, *, text: bool = False) -> np.ndarray:
    """A column of a frame, (n,), as float64, NaN where a value is missing.

    Args:
        values: The column, as its library makes an array of it.
        text: Whether text that reads as a number is one.

    Raises:
        SamplesError: It holds something else, such as text or dates; the message begins with a verb.
    """
    if values.dtype.kind in "fiub":
        return values.astype(np.float64)
    if values.dtype.kind not in "OUT":
        raise SamplesError(f"is of {values.dtype}, and holds no numbers")
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values.tolist()):
        try:
            if isinstance(value, str) and not text and not is_missing(value):
                raise TypeError("text")
            if value is not None and not is_missing(str(value)):
                found[row] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise SamplesError(f"holds {str(value)[:40]!r} in row {row}, which is no number") from None
    return found

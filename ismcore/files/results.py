"""Saving and loading results, each one file in the format of `ismcore.tensorfile`. Loading never runs anything.

Tensors:

    params.<name>                           fitted parameters, in their own dtype, bit for bit
    history.<name>                          one entry an epoch
    standardize.mean, .scale, ...           the coordinates; see `ismcore.coordinates.Coordinates`
    snapshots.<epoch>.<name>                parameters on the way
    <field>.<name>                          other arrays, such as model.coordinates.mean of a model that standardises

The content is every other field of `FitResult`, as JSON; see `ismcore.encoding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from os import PathLike
from typing import Any

import numpy as np

from ismcore.errors import BackendUnavailable, FileInvalid, IsmError, ModelError
from ismcore.files import tensorfile
from ismcore.files.atomic import path_of, write_whole
from ismcore.files.checkpoints import decode_checkpoint
from ismcore.files.encoding import Decoder, adopted_for, construct, encode, put
from ismcore.models import Standardized, check_params
from ismcore.ops import Params
from ismcore.samples.gaps import Modes
from ismcore.training.baseline import Baseline
from ismcore.training.resample import Resample
from ismcore.training.set_aside import SetAside, check_rows
from ismcore.training.settings import check_names

__all__ = ["load", "save"]

TENSORS = frozenset({"params", "history", "snapshots"})
"""The fields of `FitResult` that are tensors under names of their own."""


def save(result: Any, path: str | PathLike[str], *, rows: bool = True) -> None:
    """Write a result as one file, whole or not at all. Equal results give equal bytes, but for their timings.

    Args:
        result: The result.
        path: The file; one that is already there is replaced.
        rows: Whether it is to hold the rows that the result keeps, `kept` and `test`; see `FitResult.save`.

    Raises:
        ModelError: The result holds something that a file cannot name, such as an objective of your own.
        ParameterError: The parameters are not those of the model, or not finite, so that `load` would refuse them.
        OSError: The folder is missing, full or not writable; what was there before is as it was.

    Example:
        >>> import tempfile, ismcore
        >>> result = ismcore.fit(np.linspace(-1.0, 1.0, 100), model=ismcore.Affine(), backend="autograd", epochs=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(result, f"{folder}/fit.safetensors")
        ...     ismcore.load(f"{folder}/fit.safetensors").model
        Affine()
    """
    result = _checked(result if rows else replace(result, kept=None, test=None))
    tensors: Params = {}
    groups: dict[str, Mapping[str, np.ndarray]] = {
        "params": result.params,
        "history": result.history,
        **{f"snapshots.{epoch}": params for epoch, params in result.snapshots.items()},
    }
    for group, arrays in groups.items():
        for name, array in arrays.items():
            put(tensors, f"{group}.{name}", array)
    stored = [f.name for f in fields(result) if f.name not in TENSORS]
    content = {
        name: encode(getattr(result, name), "standardize" if name == "coordinates" else name, tensors) for name in stored
    }
    write_whole(path, tensorfile.pack("result", content, tensors))


def load(kind: Any, path: str | PathLike[str], model: Any = None) -> Any:
    """Read a result that `save` wrote, verified to the last bit. Nothing in the file is ever run.

    Of a checkpoint, the result is that of the run up to there, with status "interrupted" if it had not ended: it has the modes
    of the samples, and no rows. A file from before modes were counted has none, which `notes` says.

    Args:
        kind: The class of results.
        path: The file.
        model: The model as it was passed to `fit`, where a file cannot hold it, as with a `ScoreFunction` or a network of
            torch, Flax or Equinox; it says what is computed, and its own parameters do not matter.

    Raises:
        FileInvalid: The file is truncated or altered, written by a newer ismcore, or no result; the message says which.
        ModelError: The file needs `model`, or is a fit of another one.
        BackendUnavailable: The framework of `model` is missing.
        OSError: There is no such file, or it cannot be read.
    """
    name = path_of(path)
    try:
        found = tensorfile.read_any(name)
        content, tensors = found.content, found.tensors
        if found.kind == "checkpoint":
            return decode_checkpoint(content, tensors, model).result(kind)
        if found.kind != "result":
            raise FileInvalid(f"it holds a {found.kind!r}, not a 'result'")
        return _checked(_result(kind, content, Decoder(tensors, adopted_for(model, content.get("objective"), tensors))))
    except BackendUnavailable:  # for the model that was passed: nothing is wrong with the file
        raise
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except (IsmError, RecursionError) as error:
        raise FileInvalid(f"{name} cannot be loaded: {error}") from error


def _checked(result: Any) -> Any:
    """The result, its parameters in the model's order, once they are known to be the model's."""
    d = result.d
    snapshots = {epoch: check_params(result.model, result.snapshots[epoch], d) for epoch in sorted(result.snapshots)}
    resamples = tuple(replace(member, params=check_params(member.model, member.params, d)) for member in result.resamples)
    return replace(result, params=check_params(result.model, result.params, d), snapshots=snapshots, resamples=resamples)


def _result(kind: Any, content: dict[str, Any], decoder: Decoder) -> Any:
    coordinates = content.pop("coordinates", None)
    arrays = {
        "params": decoder.take_group("params"),
        "history": decoder.take_group("history"),
        "coordinates": decoder.coordinates(coordinates),
        "snapshots": decoder.take_snapshots(),
    }
    twice = TENSORS & content.keys()
    if twice:
        raise FileInvalid(f"it holds {sorted(twice)[0]} where only arrays have a place")
    result = construct(kind, arrays | {name: decoder.decode(value) for name, value in content.items()})
    decoder.check_all_taken()
    _check_arrays(result)
    if "modes" not in content:  # a file from before they were counted
        result = result._with_modes(None, counted=False)
    trained = result.model.inner if isinstance(result.model, Standardized) else result.model
    if decoder.model is not None and not decoder.model_used and decoder.model not in (trained, result.model):
        raise ModelError(f"the fit is of {result.model!r}; model= is {decoder.model!r}")
    return result


def _check_arrays(result: Any) -> None:
    if {"epoch", "loss"} - result.history.keys() or len({array.shape for array in result.history.values()}) != 1:
        raise FileInvalid("its history lacks epochs or losses, or does not have one of each an epoch")
    if not isinstance(result.baseline, Baseline | None):
        raise FileInvalid(f"its baseline is {str(result.baseline)[:80]!r}")
    if not isinstance(result.test, SetAside | None):
        raise FileInvalid(f"its rows set aside are {str(result.test)[:80]!r}")
    if result.test is not None:
        result.test.check(result.d)
    if not isinstance(result.kept, np.ndarray | None) or not isinstance(result.modes, Modes | None):
        raise FileInvalid(f"its rows kept, or its modes, are {str(result.kept)[:80]!r} and {str(result.modes)[:80]!r}")
    if result.kept is not None:
        check_rows("its rows kept are", result.kept, result.d)
    if result.modes is not None:
        result.modes.check(result.d)
    for member in result.resamples:
        if not isinstance(member, Resample):
            raise FileInvalid(f"one of its resamples is {str(member)[:80]!r}")
        if isinstance(member.model, Standardized) and member.model.coordinates.d != result.d:
            raise FileInvalid(f"a resample has {member.model.coordinates.d} columns, and the fit {result.d}")
    check_names(result.run_id, result.feature_names, result.d)
    if result.dtype not in ("float32", "float64"):
        raise FileInvalid(f"its dtype is {result.dtype!r}, neither 'float32' nor 'float64'")

"""Checkpoints: what a file of a run on its way holds, to go on with it to the same bits; `checkpoint_writer` writes them.

A file in the format of `ismcore.tensorfile`, of kind "checkpoint":

    state.<part>.<name>, anchor.<part>.<name>       parameters, moments and average; see `ismcore.problem.TrainState`
    best.<name>, snapshots.<epoch>.<name>           parameters
    history.losses, .rates, .open_losses            see `ismcore.training.RunState`
    history.validation_epochs, .validation_losses
    standardize.mean, .scale, ...                   the coordinates; see `ismcore.coordinates.Coordinates`
    others.<k>.<name>                               the same arrays of a fit's other candidates, where it is one in folds
    modes.<name>                                    modes of the samples that lie apart; see `FitResult.modes`

Its content holds the settings of the fit, the rest of the run_state, versions, and fingerprints of the samples. Nothing random
needs to be in it: every draw is a function of the seed and the number of its step or epoch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.errors import (
    BackendUnavailable,
    FileInvalid,
    IsmError,
    ModelError,
    OptionError,
    ParameterError,
    printable,
)
from ismcore.files import tensorfile
from ismcore.files.atomic import check_kept, newest_valid
from ismcore.files.encoding import Decoder, adopted_for
from ismcore.models import Model, check_params, joined, parted
from ismcore.ops import Params
from ismcore.optimizers.state import STATE_PARTS, TrainState
from ismcore.samples.gaps import Modes
from ismcore.training.run_state import Best, RollbackPoint, RunState, Status
from ismcore.training.settings import Settings

__all__ = [
    "Checkpoint",
    "Stored",
    "as_checkpoint",
    "decode_checkpoint",
    "read_checkpoint",
]


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often a run is written to disk; it is at its end in any case, also where that is Ctrl-C or a time-out.

    Args:
        path: The file. The one before it stays as `PATH.previous1`, and so on.
        every: Seconds from one to the next, from 0: after every chunk of steps. The first comes within a second.
        keep: How many files to keep, from 1.
        rows: Whether result files that the command writes of this run may hold rows of the samples. `ismcore fit --no-rows`
            says that they may not, and `ismcore resume` then writes none either. Where a run that had rows goes on without
            them, older files of it are removed. A checkpoint itself holds none, and what `fit` and `resume` return has them
            in any case, see `FitResult.save`.

    Raises:
        OptionError: A value is none of these.
    """

    path: str | PathLike[str]
    every: float = 30.0
    keep: int = 2
    rows: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | PathLike) or not os.fspath(self.path):
            raise OptionError(f"a checkpoint's path must be a path, not {self.path!r}")
        if isinstance(self.every, bool) or not isinstance(self.every, int | float) or not 0.0 <= self.every < np.inf:
            raise OptionError(f"a checkpoint's every must be seconds from 0, not {self.every!r}")
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or self.keep < 1:
            raise OptionError(f"a checkpoint's keep must be a whole number from 1, not {self.keep!r}")
        if not isinstance(self.rows, bool):
            raise OptionError(f"a checkpoint's rows must be True or False, not {self.rows!r}")


def as_checkpoint(checkpoint: Any, *, rows: bool = True) -> Checkpoint | None:
    """A checkpoint from what was passed for one: itself, a path, or None; without `rows`, one of a run without them.

    Raises:
        OptionError: It is none of these.
        FileNotWritten: Nothing can be written there.
    """
    if checkpoint is None:
        return None
    found = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    # The path once: a change of folder on the way changes nothing.
    return replace(found, path=check_kept(found.path), rows=found.rows and rows)


@dataclass(frozen=True, eq=False)
class Stored:
    """What a checkpoint holds; `counted` says whether it knows of modes, which those of 0.2.0 do not."""

    settings: Settings
    run_state: RunState
    coordinates: Coordinates
    fingerprints: dict[str, str]
    held_out: int
    versions: dict[str, str]
    candidate: int = 0
    others: tuple[RunState, ...] = ()
    rows: bool = True
    modes: Modes | None = None
    counted: bool = False

    @property
    def run_states(self) -> list[RunState]:
        """That of every candidate that has begun, in their order."""
        return [*self.others[: self.candidate], self.run_state, *self.others[self.candidate :]]

    def result(self, kind: Any) -> Any:
        """What the run has come to, without rows of the samples and the advice that `fit` gives on them.

        Raises:
            ModelError: It is a fit in folds, whose members are weighed by the samples.
        """
        if self.settings.ensemble:
            raise ModelError(
                "a checkpoint of a fit in folds holds its members, which the samples weigh: ismcore.resume(path, x) gives the "
                "result, and result.save(path) keeps it"
            )
        about = self.settings, self.coordinates, self.run_state, self.held_out
        found = kind.of(*about, timings={"total": sum(self.run_state.timings.values())}, versions=self.versions)
        return found._with_modes(self.modes, counted=self.counted)


def read_checkpoint(path: str | PathLike[str], model: Any = None) -> tuple[Stored, Path, tuple[str, ...]]:
    """The newest checkpoint at the path that is whole, the file that it was read from, and what was wrong with newer ones.

    Args:
        path: As it was given to `fit(checkpoint=...)`.
        model: The model, where a file cannot hold it.

    Raises:
        FileInvalid: None is whole; the message names each, with the reason.
        FileNotFoundError: There is none.
        ModelError: The model must be passed, or is another one.
        BackendUnavailable: The framework of `model` is missing.
    """
    found = newest_valid(path, lambda candidate: _read(candidate, model))
    refused = tuple(_passed_over(name, error, found.path) for name, error in found.refused.items())
    return found.value, found.path, refused


def _passed_over(name: Path, error: Exception, taken: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name} is missing: the older {taken} was taken"
    return f"{name} was passed over: {error}"


def _read(path: Path, model: Any) -> Stored:
    try:
        return decode_checkpoint(*tensorfile.read(os.fspath(path), "checkpoint"), model)
    except BackendUnavailable:  # for the model that was passed: nothing is wrong with the file
        raise
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (IsmError, RecursionError) as error:
        raise FileInvalid(f"it cannot be gone on with: {error}") from error


def decode_checkpoint(content: dict[str, Any], tensors: Params, model: Any) -> Stored:
    """What content and tensors of a verified file stand for.

    Raises:
        FileInvalid: Something is missing, unknown or of another type.
    """
    settings_content = content.get("settings")
    objective = settings_content.get("objective") if isinstance(settings_content, dict) else None
    decoder = Decoder(tensors, adopted_for(model, objective, tensors))
    try:
        settings = decoder.decode(content["settings"])
        if not isinstance(settings, Settings):
            raise FileInvalid(f"its settings are {type(settings).__name__}")
        if decoder.model is not None and not decoder.model_used and decoder.model != settings.model.canonical():
            raise ModelError(f"the run is of model {settings.model!r}; model= is {decoder.model!r}")
        coordinates = decoder.coordinates(content.get("coordinates"))
        number = int(content.get("candidate", 0))
        run_state, *others = _run_states(content, decoder, settings, number, coordinates.d)
        stored = Stored(
            settings=settings,
            run_state=run_state,
            coordinates=coordinates,
            fingerprints=_words(content["fingerprints"]),
            held_out=int(content["held_out"]),
            versions=_words(content["versions"]),
            candidate=number,
            others=tuple(others),
            rows=content.get("rows", True) is True,
            modes=_modes(decoder.decode(content.get("modes")), coordinates.d),
            counted="modes" in content,
        )
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, IsmError):
            raise
        raise FileInvalid(f"it lacks or misplaces {error}") from error
    decoder.check_all_taken()
    stored.run_state.check(settings.plan, settings.optimizer)
    if stored.held_out < 0:
        raise FileInvalid(f"its number of held-out rows is {stored.held_out}")
    return stored


def _modes(found: Any, d: int) -> Modes | None:
    if not isinstance(found, Modes | None):
        raise FileInvalid(f"its modes are {str(found)[:80]!r}")
    if found is not None:
        found.check(d)
    return found


def _words(content: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in content.items()}


def _run_states(content: dict[str, Any], decoder: Decoder, settings: Settings, number: int, d: int) -> list[RunState]:
    """The state of the run, and those of the other candidates, where there are several."""
    models = [candidate.model.canonical() for candidate in settings.candidates] or [settings.model.canonical()]
    contents = content.get("others", [])
    if not 0 <= number < len(models) or len(contents) >= len(models):
        raise FileInvalid(f"its candidate {number} and {len(contents)} others are not those of a fit with {len(models)}")
    decoders = [Decoder(decoder.take_group(f"others.{k}"), decoder.model) for k in range(len(contents))]
    order = [number, *(k for k in range(len(models)) if k != number)]
    folds = bool(settings.ensemble)
    found = [_run_state(content, decoder, models[number], d, folds=folds)]
    for k, one, own in zip(order[1:], contents, decoders, strict=False):
        found.append(_run_state(one, own, models[k], d, folds=folds))
        own.check_all_taken()
    return found


def _members_checked(model: Model, arrays: Params, d: int) -> Params:
    count = len({name.split(".")[1] for name in arrays})
    return joined([check_params(model, part, d) for part in parted(arrays, count)])


def _run_state(content: dict[str, Any], decoder: Decoder, model: Model, d: int, *, folds: bool = False) -> RunState:
    def tree(arrays: Params) -> Params:
        try:
            if folds:
                return _members_checked(model, arrays, d)
            return check_params(model, arrays, d)  # in the model's order: sums depend on it
        except ParameterError as error:
            if decoder.model_used:
                raise ModelError(f"model= is not the model of the run: {error}") from error
            raise

    def state(step: Any, group: str) -> TrainState:
        parts: dict[str, Params] = {part: {} for part in STATE_PARTS}
        for name, array in decoder.take_group(group).items():
            part, _, parameter = name.partition(".")
            parts[part][parameter] = array
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise FileInvalid(f"its number of steps is {step!r:.80}")
        return TrainState(step, **{part: tree(found) for part, found in parts.items() if found or part == "params"})

    history = decoder.take_group("history")
    rollback_point, best = content["anchor"], content["best"]
    epochs, losses = history["validation_epochs"], history["validation_losses"]
    done = history["losses"].shape
    if len(done) != 1 or history["rates"].shape != done or not np.all((epochs >= 1) & (epochs <= done[0])):
        raise FileInvalid("its history does not have one loss and one rate an epoch, or validates epochs that are not done")
    if content["status"] not in ("", *get_args(Status)):
        raise FileInvalid(f"its status, {content['status']!r}, is none that a run has")
    return RunState(
        state=state(content["step"], "state"),
        losses=history["losses"],
        rates=history["rates"],
        open_losses=history["open_losses"],
        validation={int(epoch): float(loss) for epoch, loss in zip(epochs, losses, strict=True)},
        best=None if best is None else Best(int(best[0]), float(best[1]), tree(decoder.take_group("best"))),
        snapshots={epoch: tree(kept) for epoch, kept in decoder.take_snapshots().items()},
        rate_factor=float(content["rate_factor"]),
        rollbacks=int(content["rollbacks"]),
        rollback_point=None
        if rollback_point is None
        else RollbackPoint(int(rollback_point[0]), state(rollback_point[1], "anchor")),
        status=content["status"],
        failure=printable(str(content["failure"])),
        warnings=tuple(printable(str(text)) for text in content["warnings"]),
        timings={str(name): float(value) for name, value in content["timings"].items()},
    )

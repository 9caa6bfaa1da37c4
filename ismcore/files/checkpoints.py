"""Checkpoints: a run on disk, whole or not at all, and going on with it to the same bits.

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
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.errors import (
    BackendUnavailable,
    FileInvalid,
    FileNotWritten,
    IsmError,
    ModelError,
    OptionError,
    ParameterError,
    printable,
)
from ismcore.files import tensorfile
from ismcore.files.atomic import check_kept, newest_valid, previous_files, write_first, write_kept
from ismcore.files.encoding import Decoder, adopted_for, encode
from ismcore.models import Model, check_params, joined, parted
from ismcore.ops import Params
from ismcore.optimizers.state import STATE_PARTS, TrainState
from ismcore.samples.gaps import Modes
from ismcore.training.run_state import Best, RollbackPoint, RunState, Status
from ismcore.training.settings import Settings
from ismcore.training.warning import warn_now

FIRST_AFTER = 1.0
"""Seconds from the start of a run to its first checkpoint, at most."""

__all__ = [
    "Checkpoint",
    "CheckpointWriter",
    "Stored",
    "as_checkpoint",
    "decode_checkpoint",
    "is_there_already",
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


class CheckpointWriter:
    """Writes the run_state of one run, when it is time.

    A file that cannot be written costs the run nothing: it is said once, and the old file stays.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: Settings,
        coordinates: Coordinates,
        fingerprints: dict[str, str],
        held_out: int,
        versions: dict[str, str],
        modes: Modes | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._settings, self._coordinates, self._modes = settings, coordinates, modes
        self._about = {"fingerprints": fingerprints, "held_out": held_out, "versions": versions}
        self._last = time.monotonic() - max(0.0, checkpoint.every - FIRST_AFTER)
        self._newest_is_good, self._is_start, self._older_may_have_rows = False, False, not checkpoint.rows
        self.candidate = 0
        self.others: list[RunState] = []
        """The candidate that runs, and where the others stand, of a fit in folds."""

    def check(self, run_state: RunState) -> None:
        """Find out before the run whether it can be written at all.

        Raises:
            ModelError: The fit holds something that a file cannot, such as an objective of the user's own.
        """
        self._pack(run_state)

    def reserve(self, run_state: RunState) -> None:
        """Write the start of a new run, so that its path is its own from then on; older files of other runs are set aside.

        Raises:
            OptionError: There is a file already, as of a run that began at the same time.
            FileNotWritten: It cannot be written.
        """
        try:
            aside = write_first(self._checkpoint.path, self._pack(run_state))
        except FileExistsError:
            raise OptionError(is_there_already(self._checkpoint.path)) from None
        if aside:
            self._say(run_state, f"older checkpoints of another run at this path were renamed to {', '.join(map(str, aside))}")
        self._newest_is_good, self._is_start, self._older_may_have_rows = True, True, False

    def forget_rows(self, run_state: RunState) -> None:
        """Write a run that goes on without rows, also one that has ended, where a file at its path says that it has some."""
        if self._older_may_have_rows and _with_rows(self._checkpoint.path):
            self(run_state, force=True)

    def __call__(self, run_state: RunState, force: bool) -> str:
        """See `ismcore.training.Saver`."""
        if not force and time.monotonic() - self._last < self._checkpoint.every:
            return ""
        try:
            good = not self._is_start and (self._newest_is_good or _is_whole(self._checkpoint.path))
            write_kept(self._checkpoint.path, self._pack(run_state), self._checkpoint.keep, keep_newest=good)
            self._newest_is_good, self._is_start = True, False
            self._remove_with_rows()
        except FileNotWritten as error:
            self._say(run_state, f"the checkpoint {error}")
            return ""
        finally:
            self._last = time.monotonic()
        return os.fspath(self._checkpoint.path)

    def _remove_with_rows(self) -> None:
        """Remove older files by which a run without rows would have some again, once a newer one is written.

        Raises:
            FileNotWritten: One cannot be removed.
        """
        if self._older_may_have_rows:
            for name in set(_with_rows(self._checkpoint.path)) & set(previous_files(self._checkpoint.path)):
                try:
                    name.unlink(missing_ok=True)
                except OSError as error:
                    raise FileNotWritten(error.errno, "of a run with rows cannot be removed", os.fspath(name)) from error
            self._older_may_have_rows = False

    def _say(self, run_state: RunState, text: str) -> None:
        if text not in run_state.warnings:
            run_state.warnings += (text,)
            warn_now(text)

    def _pack(self, run_state: RunState) -> bytes:
        tensors = _tensors(run_state)
        content = {
            "settings": encode(self._settings, "settings", tensors),
            "coordinates": encode(self._coordinates, "standardize", tensors),
            "modes": encode(self._modes, "modes", tensors),
            "rows": self._checkpoint.rows,
            **self._about,
            **_numbers(run_state),
        }
        if self._settings.ensemble:
            content |= {"candidate": self.candidate, "others": [_numbers(other) for other in self.others]}
            for k, other in enumerate(self.others):
                tensors |= {f"others.{k}.{name}": value for name, value in _tensors(other).items()}
        return tensorfile.pack("checkpoint", content, tensors)


def _numbers(run_state: RunState) -> dict[str, Any]:
    point, best = run_state.rollback_point, run_state.best
    return {
        "step": run_state.state.step,
        "anchor": None if point is None else [point.epoch, point.state.step],
        "best": None if best is None else [best.epoch, best.loss],
        "rate_factor": run_state.rate_factor,
        "rollbacks": run_state.rollbacks,
        "status": run_state.status,
        "failure": run_state.failure,
        "warnings": list(run_state.warnings),
        "timings": dict(run_state.timings),
    }


def is_there_already(path: str | PathLike[str]) -> str:
    """Why a new run cannot begin at a path, and what to do."""
    return f"{path} is there already: go on with it by ismcore.resume({os.fspath(path)!r}, x), remove it, or name another file"


def _is_whole(path: str | PathLike[str]) -> bool:
    """Whether a file is worth to be kept: one that cannot be read shall not displace one that can."""
    try:
        tensorfile.read_any(os.fspath(path))
    except (IsmError, OSError):
        return False
    return True


def _with_rows(path: str | PathLike[str]) -> list[Path]:
    """Whole checkpoints at a path, the older ones among them, by which result files of the run may hold rows."""
    found = []
    for name in (Path(os.path.realpath(path)), *previous_files(path)):
        with suppress(IsmError, OSError):
            if tensorfile.read(os.fspath(name), "checkpoint")[0].get("rows", True) is True:
                found.append(name)
    return found


def _tensors(run_state: RunState) -> Params:
    validation = run_state.validation
    found: Params = {
        "history.losses": run_state.losses,
        "history.rates": run_state.rates,
        "history.open_losses": run_state.open_losses,
        "history.validation_epochs": np.array(list(validation), dtype=np.int64),
        "history.validation_losses": np.array(list(validation.values()), dtype=np.float64),
    }
    trees = {"state": run_state.state.arrays()}
    if run_state.rollback_point is not None:
        trees["anchor"] = run_state.rollback_point.state.arrays()
    if run_state.best is not None:
        trees["best"] = run_state.best.params
    trees |= {f"snapshots.{epoch}": kept for epoch, kept in run_state.snapshots.items()}
    return found | {f"{tree}.{name}": value for tree, arrays in trees.items() for name, value in arrays.items()}


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

"""Checkpoints as a run writes them on its way, whole or not at all; what one holds stands in `ismcore.files.checkpoints`."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ismcore.coordinates import Coordinates
from ismcore.errors import FileNotWritten, IsmError, OptionError
from ismcore.files import tensorfile
from ismcore.files.atomic import previous_files, write_first, write_kept
from ismcore.files.checkpoints import Checkpoint
from ismcore.files.encoding import encode
from ismcore.ops import Params
from ismcore.samples.gaps import Modes
from ismcore.training.run_state import RunState
from ismcore.training.settings import Settings
from ismcore.training.warning import warn_now

__all__ = ["CheckpointWriter", "is_there_already"]

FIRST_AFTER = 1.0
"""Seconds from the start of a run to its first checkpoint, at most."""


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

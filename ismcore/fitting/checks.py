"""What `fit` refuses before it trains: arguments that do not go together, networks that do not train, unequal processes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import sha256

import numpy as np

from ismcore.backend.contract import Backend
from ismcore.backend.processes import shared, shared_by
from ismcore.errors import OptionError
from ismcore.fitting.options import Request
from ismcore.fitting.selection import StartingPoint, start_of
from ismcore.optimizers.state import TrainState
from ismcore.plugins.adoption import users_own
from ismcore.plugins.probing import probe_network
from ismcore.samples.sources import LANES
from ismcore.training.settings import Data, Samples, Settings

__all__ = ["check_run", "check_shared", "probe"]

OF_EACH = ("run_id", "device", "backend_reason", "warnings", "notes", "plan")
"""Settings that need not be the same in processes that share a fit; the plan's are looked at one by one."""


def check_run(request: Request, settings: Settings, samples: Samples) -> None:
    """Refuse arguments that do not go together.

    Raises:
        OptionError: The message says which, and why.
    """
    restarts, checkpoint = request.restarts, request.checkpoint
    if isinstance(restarts, bool) or not isinstance(restarts, int | np.integer) or restarts < 1:
        raise OptionError(f"restarts must be a whole number from 1, not {restarts!r}")
    if restarts > 1 and (request.initial_params is not None or users_own(settings.model)[0] is not None):
        raise OptionError(
            "restarts begin at parameters drawn from the seed: with initial_params, or a network of your own, that "
            "has its own, there is one start"
        )
    if restarts > 1 and not settings.validation and samples.validation_x is None:
        raise OptionError(
            "restarts are judged by held-out rows, and none are held out: pass validation=0.2, or validation samples"
        )
    if restarts > 1 and checkpoint is not None:
        raise OptionError("a checkpoint holds one run: fit once for each seed, each with a checkpoint of its own, not restarts")
    if not settings.optimizer.runs_whole:
        return
    for name, wrong in {
        "checkpoint": checkpoint is not None,
        "batch_size": settings.batch_size is not None,
        "average_decay": settings.plan.average_decay is not None,
        "clip_norm": settings.clip_norm is not None,
        "on_nonfinite='rollback'": settings.plan.on_nonfinite == "rollback",
    }.items():
        if wrong:
            raise OptionError(
                f"optimizer=LBFGS() takes no {name}: it runs as a whole, over all rows; use ismcore.Adam() for that"
            )


def probe(
    engine: Backend,
    settings: Settings,
    samples: Samples,
    start: StartingPoint | None = None,
    *,
    allow_nonsmooth: bool = False,
) -> tuple[str, ...]:
    """Refuse a network of the user's own that cannot be trained: see `ismcore.plugins.probing.probe_network`.

    It sees samples as they are trained on. The library's own models need no probe.

    Args:
        engine: Where the model is to be trained.
        settings: Of the fit.
        samples: To train on.
        start: The parameters to look at, if not those that it starts from by itself.
        allow_nonsmooth: Let models that are not smooth pass; their derivatives are not compared.

    Returns:
        Warnings about the model, in words.

    Raises:
        ModelError: The message says what was found, and what to do.
    """
    if users_own(settings.model)[0] is None:
        return ()
    problem = Data.of(settings, samples).problem
    params = start_of(settings, problem, 0, start).params
    with shared_by(None):  # each process for itself
        return probe_network(engine, problem, params, allow_nonsmooth=allow_nonsmooth)


def check_shared(engine: Backend, settings: Settings, samples: Samples, starts: Callable[[], Sequence[TrainState]]) -> None:
    """Refuse what several processes cannot share, and a fit that is not the same in each; nothing where there is one.

    Args:
        engine: Where to compute.
        settings: Of the fit.
        samples: Of the fit.
        starts: Gives the states that it begins with, or goes on from.

    Raises:
        OptionError: The message says what.
    """
    processes = shared()
    if processes is None:
        return
    world, parts, against = processes.world, processes.parts, ""
    if engine.name != processes.backend:
        against = f"backend {engine.name!r} has no part in their sums; use backend={processes.backend!r}"
    elif settings.optimizer.runs_whole:
        against = f"{type(settings.optimizer).__name__} takes no single steps; use ismcore.Adam()"
    elif settings.compile != "auto":
        against = f"compile={settings.compile!r} takes steps that are not shared; leave it at 'auto'"
    elif samples.survey is not None and world > LANES:
        against = f"a step has rows of {LANES} blocks of a source, one a process at least"
    elif (rows := settings.batch_size or samples.n) < 2 * parts:
        against = f"a step of {rows} rows is less than two a {'process' if parts == world else 'device'}"
    if against:
        raise OptionError(f"{f'{world} processes' if world > 1 else f'{parts} devices'} cannot share this fit: {against}")
    marks = _marks(settings, samples, starts())
    table = processes.gather(list(marks.values()))
    if other := [name for name, column in zip(marks, table.T, strict=True) if len(set(column)) > 1]:
        raise OptionError(f"the {world} processes that share this fit must have the same {', '.join(other)}, and have not")


def _marks(settings: Settings, samples: Samples, starts: Sequence[TrainState]) -> dict[str, float]:
    """A number for each thing that processes must have alike, by its name; settings by what they print, without addresses."""
    begun = sha256()
    for state in starts:
        begun.update(f"{state.step}".encode())
        for name, value in sorted(state.arrays().items()):
            begun.update(f"{name} {np.shape(value)}".encode() + np.asarray(value, dtype=np.float64).tobytes())
    told = {name: value for name, value in (vars(settings) | vars(settings.plan)).items() if name not in OF_EACH}
    texts = {"samples": sorted(samples.fingerprints().items()), "starting parameters": begun.hexdigest(), **told}
    plain = {name: re.sub(" at 0x[0-9a-f]+", "", f"{value!r}") for name, value in texts.items()}
    return {name: float(int.from_bytes(sha256(text.encode()).digest()[:6], "big")) for name, text in plain.items()}

"""Many fits over the workers of any executor: seeds, settings, groups of a table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from ismcore.backend.processes import shared
from ismcore.errors import IsmWarning, OptionError, WorkerLost
from ismcore.fitting.fit import fit
from ismcore.results.result import FitResult

__all__ = ["SweptFit", "sweep"]

Executors = Executor | Callable[[], Executor]


@dataclass(frozen=True)
class SweptFit:
    """One fit of `ismcore.sweep`.

    Attributes:
        name: Its key, or its number from 0.
        arguments: What `fit` was called with, the common ones too.
        result: The fit; None if it failed.
        error: Why it failed; None if it did not.
        attempts: How often it was begun: more than once where a worker died.
    """

    name: Hashable
    arguments: Mapping[str, Any]
    result: FitResult | None
    error: Exception | None
    attempts: int


def sweep(
    fits: Iterable[Mapping[str, Any]] | Mapping[Hashable, Mapping[str, Any]],
    *,
    executor: Executors | None = None,
    attempts: int = 2,
    **common: Any,
) -> list[SweptFit]:
    """Fit once for each mapping of arguments, and give all back, in their order, those that failed too.

    Each fit is `ismcore.fit(**common, **arguments)`, with no line of progress unless that is asked for, and has the bits that
    it has alone. Where workers are processes, arguments and results travel by pickle; so x is sent with each fit.

    A worker that dies, killed for its memory or by a fault of a framework, breaks a pool of processes. Then all fits that have
    not ended are done again in a new pool, at most `attempts` times, and after that each in a pool of its own, so that a fit
    that kills its worker each time is known by name and costs no other fit.

    Args:
        fits: Arguments of each fit; or those by a name, such as the group of a table.
        executor: Anything with the interface of `concurrent.futures.Executor`, which is left open; or a function without
            arguments that makes one, which is closed again. Only such a function lets fits go on after a pool broke. None for
            this process, one after another.
        attempts: How often a fit is begun together with others before it is alone in its pool, from 1.
        **common: Arguments of all fits.

    Raises:
        OptionError: An argument is given twice, or `attempts` is none; or processes share the fits of this context.

    Warns:
        IsmWarning: Some fits failed, or were warned of. Their warnings are in `result.warnings`. Where a filter has it raised,
            all fits are in its `result`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 1))
        >>> plain = {"model": ismcore.Affine(), "epochs": 5, "validation": 0, "backend": "autograd"}
        >>> [swept.result.status for swept in ismcore.sweep([{"seed": s} for s in range(3)], x=x, **plain)]
        ['completed', 'completed', 'completed']
    """
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise OptionError(f"attempts must be a whole number from 1, not {attempts!r}")
    if shared() is not None:
        raise OptionError("the fits of a sweep are not shared by processes: call it outside of processes()")
    work = _Work(_arguments(fits, common))
    if executor is None:
        for name, arguments in work.arguments.items():
            work.end(name, 1, *_outcome(partial(fit, **arguments)))
    elif isinstance(executor, Executor) or not callable(executor):
        _run(work, executor, work.left(), 1)
        work.give_up("its pool broke, and executor= is a pool and no function that makes a new one")
    else:
        _rounds(work, executor, attempts)
    found = work.swept()
    _say(found)
    return found


def _arguments(fits: Any, common: Mapping[str, Any]) -> dict[Hashable, dict[str, Any]]:
    """The arguments of each fit by name, the common ones and no progress among them."""
    named = dict(fits) if isinstance(fits, Mapping) else dict(enumerate(fits))
    for name, arguments in named.items():
        if not isinstance(arguments, Mapping):
            raise OptionError(f"fits must be mappings of arguments of fit, and {name!r} is {arguments!r:.80}")
        if twice := sorted(set(arguments) & set(common)):
            raise OptionError(f"{', '.join(twice)} is given for all fits and for {name!r} too")
    return {name: {"progress": False, **common, **arguments} for name, arguments in named.items()}


class _Work:
    """The fits, and which have ended, and how."""

    def __init__(self, arguments: dict[Hashable, dict[str, Any]]) -> None:
        self.arguments = arguments
        self._ended: dict[Hashable, SweptFit] = {}

    def left(self) -> list[Hashable]:
        """Names of those that have not ended."""
        return [name for name in self.arguments if name not in self._ended]

    def end(self, name: Hashable, attempts: int, result: FitResult | None, error: Exception | None) -> None:
        """Keep how a fit ended."""
        if error is not None:
            error.add_note(f"in the fit {name!r} of a sweep")
        self._ended[name] = SweptFit(name, self.arguments[name], result, error, attempts)

    def give_up(self, reason: str, attempts: int = 1) -> None:
        """End those that are left, for their worker died."""
        for name in self.left():
            self.end(name, attempts, None, WorkerLost(f"a worker died before the fit {name!r} had ended: {reason}"))

    def swept(self) -> list[SweptFit]:
        """All, in their order."""
        return [self._ended[name] for name in self.arguments]


def _rounds(work: _Work, make: Callable[[], Executor], attempts: int) -> None:
    """All together, so often; then those that are left, each in a pool of its own."""
    for attempt in range(1, attempts + 1):
        if left := work.left():
            with _pool(make) as pool:
                _run(work, pool, left, attempt)
    for name in work.left():
        with _pool(make) as pool:
            _run(work, pool, [name], attempts + 1)
        if name in work.left():
            lost = WorkerLost(f"the worker of the fit {name!r} died {attempts + 1} times, the last time alone in its pool")
            work.end(name, attempts + 1, None, lost)


@contextmanager
def _pool(make: Callable[[], Executor]) -> Iterator[Executor]:
    pool = make()
    with pool if hasattr(pool, "__exit__") else nullcontext():
        yield pool


def _run(work: _Work, pool: Executor, names: Iterable[Hashable], attempt: int) -> None:
    """Fits in a pool; those that it broke under are left."""
    futures: dict[Future[FitResult], Hashable] = {}
    try:
        for name in names:
            futures[pool.submit(fit, **work.arguments[name])] = name
    except BrokenExecutor:
        pass
    try:
        for future in as_completed(futures):
            result, error = _outcome(future.result)
            if not isinstance(error, BrokenExecutor):
                work.end(futures[future], attempt, result, error)
    finally:
        for future in futures:
            future.cancel()


def _outcome(call: Callable[[], FitResult]) -> tuple[FitResult | None, Exception | None]:
    try:
        return call(), None
    except Exception as error:  # it is kept beside the arguments that led to it
        return None, error


def _say(found: list[SweptFit]) -> None:
    """Warns of fits that failed and of warnings of fits; the fits are in a warning that is raised."""
    failed = [(swept.name, swept.error) for swept in found if swept.error is not None]
    warned = [(swept.name, swept.result.warnings[0]) for swept in found if swept.result is not None and swept.result.warnings]
    for some, what in ((failed, "failed"), (warned, "were warned of")):
        if some:
            name, text = some[0]
            message = f"{len(some)} of {len(found)} fits {what}; {name!r}: {text}"
            warnings.warn(IsmWarning(message, result=found), stacklevel=3)

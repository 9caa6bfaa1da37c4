"""What `fit` finds out of a module or function that the user brings, before it trains one that cannot be trained."""

from __future__ import annotations

from ismcore.backend.contract import Backend
from ismcore.backend.processes import shared_by
from ismcore.fitting.selection import StartingPoint, start_of
from ismcore.plugins.adoption import users_own
from ismcore.plugins.probing import probe_network
from ismcore.training.settings import Data, Samples, Settings

__all__ = ["probe"]


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

"""What a fit makes of a source: some rows in memory, for all that looks at samples, and refusals of what needs all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ismcore.errors import OptionError
from ismcore.samples.checks import as_samples, check_spread
from ismcore.samples.diagnosis import Diagnosis
from ismcore.samples.sources import LANES, Source
from ismcore.samples.sources.survey import surveyed
from ismcore.training.settings import Samples, Settings

__all__ = ["about_source", "apart", "check_source", "samples_of_source", "short_gap"]

NO_ROWS = "the rows of a source are in memory a window at a time: "


def samples_of_source(
    source: Source, validation: Any, names: tuple[str, ...] | None, share: float, seed: int, **refused: Any
) -> Samples:
    """Samples of a source, read once for it.

    Args:
        source: The source.
        validation: Validation samples, (m, d), or what is none.
        names: Names of the columns, (d,), that it must have, where a fit begins with some.
        share: Of the rows, to hold out.
        seed: Source of the choice of rows.
        refused: Arguments of one value a row.

    Raises:
        OptionError: One of these was given, or the columns have other names.
        SamplesError: A block cannot be used; the message names it.
    """
    for name, value in refused.items():
        if value is not None:
            raise OptionError(f"{NO_ROWS}{name}= has one value for each of all rows and cannot be given with one")
    if names is not None and source.names is not None and source.names != names:
        raise OptionError(f"the fit began with the columns {', '.join(names)}, and the source has {', '.join(source.names)}")
    survey = surveyed(source, share, seed)
    names = names or source.names
    check_spread(np.stack([survey.least, survey.most]), None, names)
    validation_x = survey.held_out if len(survey.held_out) else None
    if validation is not None and np.ndim(validation):
        validation_x = as_samples(validation, d=source.shape[1], names=names)
    return Samples(survey.sample, None, validation_x, None, names, survey=survey)


def apart(samples: Samples, diagnosis: Diagnosis, begun: Mapping[str, str] | None = None) -> Samples:
    """The samples of a source with rows that depend on those held out left out of training; others as they are.

    A run that goes on has the gap with which it began, by its fingerprints: elsewhere the time may be rounded otherwise.
    """
    if samples.survey is None:
        return samples
    time = 0 if diagnosis.series is None else diagnosis.series.time
    survey = samples.survey.with_gap(time)
    if begun is not None and "gap" in begun:
        survey = replace(survey, gap=int(begun["gap"] or 0))
    return replace(samples, survey=survey)


def short_gap(samples: Samples) -> tuple[str, ...]:
    """A warning in words where rows are trained on that depend on those held out, as blocks are too small for the gap."""
    survey = samples.survey
    if survey is None or survey.gap >= survey.time or not survey.held:
        return ()
    enough = survey.roomy()
    larger = "give " if enough is None else f"give the source block_rows={enough}, or "
    return (
        f"rows of the source depend on each other over {survey.time} rows, and only {survey.gap} on either side of those held "
        f"out are not trained on, as blocks have {survey.source.layout.width} rows: the held-out loss may be too low, and "
        f"training end too late; {larger}validation= as rows from elsewhere",
    )


def check_source(settings: Settings, samples: Samples) -> None:
    """Refuse what cannot be done with the rows of a source.

    Raises:
        OptionError: The message says what, and what to do.
    """
    if samples.survey is None:
        return
    against = ""
    if settings.optimizer.runs_whole:
        against = f"optimizer={type(settings.optimizer).__name__}() sees all at every step; use ismcore.Adam()"
    elif settings.ensemble > 1:
        against = f"ensemble={settings.ensemble} parts them into folds; use ensemble=1, the default for many rows"
    elif settings.batch_size is None and samples.survey.source.layout.windows > 1:
        against = "a step cannot take all; give batch_size= as a number of rows"
    elif settings.batch_size is not None and settings.batch_size < LANES:
        against = f"a step takes rows of {LANES} blocks, so that batch_size must be at least that, not {settings.batch_size}"
    elif settings.test:
        against = "test= can be rows beside them, (m, d), and no share or number of them"
    if against:
        raise OptionError(NO_ROWS + against)


def about_source(samples: Samples) -> tuple[str, ...]:
    """What was read of a source before training, in words; nothing for samples in memory."""
    survey = samples.survey
    if survey is None:
        return ()
    said = f"{survey.n} rows of a source: mean and range of each column are those of all rows"
    said += f"; what is found in samples, and the normal law, are of {len(survey.sample)} of those trained on"
    if survey.held:
        said += (
            f"; {survey.held} were held out, a run of rows one after another in each of {survey.source.layout.blocks} blocks"
        )
    return (said,)

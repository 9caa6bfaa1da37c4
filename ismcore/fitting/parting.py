"""What the caller gave as arrays, checked, and the rows of it that are set aside before anything is fitted or chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ismcore.errors import OptionError
from ismcore.fitting.sourced import samples_of_source
from ismcore.results.result import FitResult
from ismcore.samples.checks import as_groups, as_samples, as_weights, check_spread
from ismcore.samples.diagnosis import Diagnosis, diagnosis_of
from ismcore.samples.gaps import Modes
from ismcore.samples.sources import Source
from ismcore.samples.splitting import HoldOut, batch_labels, held_out_rows
from ismcore.samples.tables.frames import names_of
from ismcore.samples.ties import mostly_shared
from ismcore.seeds import stream
from ismcore.training.set_aside import SetAside
from ismcore.training.settings import Samples, share_of

__all__ = ["about_validation", "kept_of", "parted", "samples_of", "share_to_set_aside"]

MOST_KEPT = 1000
"""Rows of the fit that every result keeps, for chains to start at."""
MOST_FITTED = 10_000
"""Rows of the fit that are kept beside those set aside: more than a competitor is fitted to do not help it."""


def samples_of(
    x: Any,
    sample_weight: Any,
    validation: Any,
    groups: Any,
    names: tuple[str, ...] | None,
    *,
    share: float = 0.0,
    seed: int = 0,
) -> Samples:
    """The arrays as they came, checked, their columns in the order of the names, where the fit begins with some.

    Of a source the share given is held out, by a choice drawn from the seed: see `samples_of_source`.
    """
    if isinstance(x, Source):
        return samples_of_source(x, validation, names, share, seed, sample_weight=sample_weight, groups=groups)
    array = as_samples(x, names=names)
    names = names or names_of(x)
    weight = None if sample_weight is None else as_weights(sample_weight, len(array))
    check_spread(array, weight, names)
    validation_x = None
    if validation is not None and np.ndim(validation):
        validation_x = as_samples(validation, d=array.shape[1], names=names)
    return Samples(array, weight, validation_x, None if groups is None else as_groups(groups, len(array)), names)


def share_to_set_aside(test: Any, n: int) -> float:
    """The share of n rows that `test` asks for, a share in (0, 1) or a count; 0 where it is None, or rows itself.

    A count is half a row less, so that rounding does not make it one more.

    Raises:
        OptionError: It is none of these.
    """
    if test is None or np.ndim(test) > 0 or hasattr(test, "__len__"):
        return 0.0
    count = isinstance(test, int | np.integer) and not isinstance(test, bool)
    if count and 1 <= test < n:
        return (float(test) - 0.5) / n
    if isinstance(test, float | np.floating) and 0.0 < test < 1.0:
        return float(test)
    raise OptionError(
        f"test must be a share of the rows in (0, 1), a number of rows from 1 to {n - 1}, or rows of shape (m, d), not {test!r}"
    )


def parted(samples: Samples, test: Any, share: float, seed: int, dtype: Any) -> Samples:
    """The samples without those set aside, which stand beside them.

    Rows of one group, near-copies and equal rows are never parted. Of a series short blocks are set aside, and rows within a
    correlation time of them are left out.

    Args:
        samples: What the caller gave.
        test: As given to `fit`, for the rows where it is some.
        share: See `share_to_set_aside`; of a source none can be set aside, which `check_source` says.
        seed: Source of the choice.
        dtype: That of the fit, in which rows can be equal.

    Raises:
        SamplesError: What is left, or what is set aside, cannot be used.
        OptionError: Most rows given as `test` are among those of the fit.
    """
    if not share or samples.survey is not None:
        return samples if share or test is None else _beside(samples, test, seed)
    x, weight, groups = samples.x, samples.weight, samples.groups
    diagnosis = diagnosis_of(x, dtype, weight)
    how = diagnosis.holdout if groups is None else HoldOut("groups", by_weight=diagnosis.effective is not None)
    split = held_out_rows(x, share, seed, how, weight=weight, groups=groups)
    kept, aside = np.flatnonzero(split.trained), np.flatnonzero(split.held_out)
    weights = [share_of(weight, rows, what) for rows, what in ((kept, "left to fit"), (aside, "set aside"))]
    check_spread(x[kept], weights[0], samples.names)
    of_groups = None if groups is None else _relabelled(groups[kept])
    left = replace(samples, x=x[kept], weight=weights[0], groups=of_groups)
    return replace(left, test=_set_aside(x[aside], batch_labels(x, how, groups)[aside], weights[1], left, seed))


def about_validation(samples: Samples) -> tuple[str, ...]:
    """A warning, in words, where validation samples are rows that the fit is trained on."""
    if samples.validation_x is None or samples.survey is not None or not _trained_on(samples.validation_x, samples):
        return ()
    return (
        "most rows of validation= are rows of x too, or most rows of x are among them: the epoch is chosen by rows that are "
        "trained on, and the held-out loss judges nothing; pass others, or a share of x to leave out, as in validation=0.2",
    )


def _trained_on(rows: np.ndarray, samples: Samples) -> bool:
    """Whether rows, (m, d), are mostly those of the fit that have weight, or the other way round; values that repeat may be."""
    x = samples.x if samples.weight is None else samples.x[samples.weight > 0.0]
    return mostly_shared(rows, x) and not diagnosis_of(x).has_atoms


def _beside(samples: Samples, test: Any, seed: int) -> Samples:
    rows = as_samples(test, d=samples.x.shape[1], names=samples.names)
    if _trained_on(rows, samples):
        raise OptionError(
            "most rows of test are rows of x too, or most rows of x are among them: rows that a fit is trained on judge "
            "nothing, so pass others, or a share of x to set aside, as in test=0.2"
        )
    return replace(samples, test=_set_aside(rows, batch_labels(rows, diagnosis_of(rows).holdout), None, samples, seed))


def _set_aside(x: np.ndarray, labels: np.ndarray, weight: np.ndarray | None, left: Samples, seed: int) -> SetAside:
    some = np.arange(len(left.x))
    if len(some) > MOST_FITTED:
        some = np.sort(stream(seed, "set aside").choice(len(some), MOST_FITTED, replace=False))
    return SetAside(x, _relabelled(labels), weight, left.x[some], share_of(left.weight, some, "left to fit"))


def _relabelled(labels: np.ndarray) -> np.ndarray:
    return np.asarray(np.unique(labels, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def kept_of(result: FitResult, samples: Samples, diagnosis: Diagnosis, seed: int) -> FitResult:
    """The result with what it keeps of the samples: rows set aside, rows of the fit, and modes far apart with their shares."""
    rows = _drawn(samples, diagnosis.modes, seed)
    return replace(result, test=samples.test, kept=rows)._with_modes(diagnosis.modes)


def _drawn(samples: Samples, modes: Modes | None, seed: int) -> np.ndarray:
    """At most 1,000 rows of the fit, (k, d), that weigh alike: all, or drawn by weight, so that each mode has its share.

    Rows stand in random order, one mode after the other, and are taken at equal steps of the sum of their weights, from a
    random start: row i of weight w_i about 1000 w_i times.
    """
    x, rng = samples.x, stream(seed, "kept rows")
    if samples.weight is None and len(x) <= MOST_KEPT:
        return np.array(x)
    order = np.lexsort((rng.random(len(x)), np.zeros(len(x)) if modes is None else modes.number(x)))
    ends = np.cumsum(np.ones(len(x)) if samples.weight is None else samples.weight[order])
    at = np.searchsorted(ends, (np.arange(MOST_KEPT) + rng.random()) * (ends[-1] / MOST_KEPT), side="right")
    return np.array(x[np.sort(order[np.minimum(at, len(x) - 1)])])

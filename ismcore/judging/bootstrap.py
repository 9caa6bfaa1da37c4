"""`ismcore.bootstrap`: a fit, and fits of resamples of its rows, which give its score a standard error."""

from __future__ import annotations

import warnings
from collections.abc import Sized
from dataclasses import replace
from typing import Any

import numpy as np

from ismcore.errors import IsmWarning, OptionError
from ismcore.fitting.fit import fit
from ismcore.results.result import FitResult
from ismcore.samples.checks import as_groups, as_samples, as_weights
from ismcore.samples.diagnosis import diagnosis_of
from ismcore.samples.splitting import batch_labels
from ismcore.seeds import stream
from ismcore.training.resample import Resample

__all__ = ["bootstrap"]

ALONE = ("checkpoint", "callbacks", "restarts", "snapshots", "test")
"""Options of `fit` that are for the fit itself, and not for those of resamples."""


def bootstrap(
    x: Any, *, resamples: int = 10, seed: int = 0, sample_weight: Any = None, groups: Any = None, **options: Any
) -> FitResult:
    """Fit a score, and fit it again to resamples of the rows: `result.standard_error(points)` is its standard error.

    A resample is n rows drawn from x with replacement: row i counts c_i times, and is given the weight c_i, so that every fit
    has the rows of the first, in one shape, and rows that count often are on one side of the split. Rows that depend on each
    other are drawn together: those of one group, near-copies, and blocks of five correlation times of a series. Each fit has a
    seed of its own, so that the standard error is over samples and starts.

    Args:
        x: Samples, (n, d) or (n,), in [x].
        resamples: How many, from 2.
        seed: Source of all randomness; the fit itself is that of `fit(x, seed=seed)`.
        sample_weight: Weight of each row, (n,); a resample multiplies it by c_i.
        groups: Label of each row, (n,).
        **options: Further arguments of `fit`. Checkpoint, callbacks, restarts, snapshots and test rows are of the fit alone.

    Returns:
        The fit of x, with `resamples`.

    Raises:
        OptionError: Less than two resamples; `validation` samples, which would be the same in all; `test=` as a share or a
            number, by which each fit would set other rows aside.
        And what `fit` raises.

    Source: Efron (1979), Ann. Stat. 7:1-26; Kuensch (1989), Ann. Stat. 17:1217-1241, for blocks.

    Cost: 1 + resamples fits.

    Example:
        >>> x = np.random.default_rng(0).normal(size=400)
        >>> result = ismcore.bootstrap(x, model=ismcore.Affine(), backend="autograd", epochs=100)
        >>> error = result.standard_error([0.0]).item()  # of the mean over the variance: 1 / sqrt(400)
        >>> 0.025 < error < 0.1
        True
    """
    if isinstance(resamples, bool) or not isinstance(resamples, int | np.integer) or resamples < 2:
        raise OptionError(f"resamples must be a whole number from 2, not {resamples!r}")
    if isinstance(options.get("validation"), Sized):
        raise OptionError("validation samples would be the same for every resample: give a share of the rows")
    if options.get("test") is not None and np.ndim(options["test"]) == 0:
        raise OptionError("every resample would set other rows aside: give test= the rows themselves, or check(x_new)")
    rows = as_samples(x, names=getattr(options.get("initial_params"), "feature_names", None))
    weight = None if sample_weight is None else as_weights(sample_weight, len(rows))
    given = None if groups is None else as_groups(groups, len(rows))
    labels = batch_labels(rows, diagnosis_of(rows, weight=weight).holdout, given)
    result = fit(x, seed=seed, sample_weight=sample_weight, groups=groups, **options)
    again = {name: value for name, value in options.items() if name not in ALONE}
    members = []
    for number in range(int(resamples)):
        counts = _counts(labels, seed, number)
        counted = counts if weight is None else counts * weight
        with warnings.catch_warnings():  # what the rows are warned of, the first fit has said
            warnings.simplefilter("ignore", IsmWarning)
            member = fit(rows, seed=_seed(seed, number), sample_weight=counted, groups=groups, **again)
        members.append(Resample(member.model, member.params))
    return replace(result, resamples=tuple(members))


def _counts(labels: np.ndarray, seed: int, number: int) -> np.ndarray:
    """How often each row is drawn, (n,): as many labels as there are, with replacement, each with all of its rows."""
    units = int(labels.max()) + 1
    drawn = stream(seed, "bootstrap", number).multinomial(units, np.full(units, 1.0 / units))
    return np.asarray(drawn[labels], dtype=np.float64)


def _seed(seed: int, number: int) -> int:
    return int(stream(seed, "bootstrap seed", number).integers(2**31))

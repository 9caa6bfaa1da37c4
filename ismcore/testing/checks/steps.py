"""What a step is told beside its rate: which rows, with what weights, how long a gradient, how slow an average."""

from __future__ import annotations

from dataclasses import replace

from ismcore.testing.cases import TrainingCase, average_cases, batch_cases, clip_cases, weighted_cases
from ismcore.testing.checks.training import follow
from ismcore.testing.kit import check
from ismcore.testing.subject import Subject

RATES = (0.05, 0.04, 0.03, 0.05, 0.04, 0.03, 0.02)
"""As many steps as two epochs of three batches, and one more."""


@check(batch_cases)
def check_batches(subject: Subject, case: TrainingCase) -> float:
    """Each step sees the rows that it is given, by their weights in that step, and what the objective holds for them."""
    return follow(subject, case, RATES, subject.tolerances.steps)


@check(weighted_cases)
def check_weighted_batches(subject: Subject, case: TrainingCase) -> float:
    """Networks follow the rows' weights, some of them 0, in batches of unequal size: the default fit takes such steps."""
    return follow(subject, case, RATES[:3], subject.tolerances.steps)


@check(batch_cases)
def check_batches_begin_anywhere(subject: Subject, case: TrainingCase) -> float:
    """A run goes on in the middle of an epoch, in whatever chunks the steps are taken."""
    return follow(subject, case, RATES, subject.tolerances.steps, begun=2, cut=3)


@check(clip_cases)
def check_clipping(subject: Subject, case: TrainingCase) -> float:
    """A gradient that is longer than the limit, all parameters in one vector, is scaled down to it; a shorter one is not."""
    return follow(subject, case, RATES, subject.tolerances.steps)


@check(clip_cases)
def check_preparation_is_fresh_for_another_limit(subject: Subject, case: TrainingCase) -> float:
    """A problem that differs in the limit on gradients alone, or has none, is trained as it is."""
    cases = [replace(case, clip_norm=limit) for limit in (case.clip_norm, 0.125, None)]
    return max(follow(subject, each, RATES[:3], subject.tolerances.steps) for each in cases)


@check(average_cases)
def check_average(subject: Subject, case: TrainingCase) -> float:
    """The average moves after each update, by that step's own decay, and changes nothing else."""
    return follow(subject, case, RATES, subject.tolerances.steps)


@check(average_cases)
def check_average_goes_on(subject: Subject, case: TrainingCase) -> float:
    """An average begun elsewhere goes on here, whatever it is, and from chunk to chunk."""
    return follow(subject, case, RATES, subject.tolerances.steps, begun=3, cut=5)

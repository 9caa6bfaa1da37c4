"""What a step is told beside its rate: which rows, with what weights, how long a gradient, how slow an average."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ismcore.testing.checks.training import advance, begin, compare_states, expected, follow
from ismcore.testing.kit import check
from ismcore.testing.scenarios import TrainingCase, average_cases, batch_cases, clip_cases
from ismcore.testing.subject import Subject

RATES = (0.05, 0.04, 0.03, 0.05, 0.04, 0.03, 0.02)
"""As many steps as two epochs of three batches, and one more."""


@check(batch_cases)
def check_batches(subject: Subject, case: TrainingCase) -> float:
    """Each step sees the rows that it is given, by their weights in that step, and what the objective holds for them."""
    return follow(subject, case, RATES, subject.tolerances.steps)


@check(batch_cases)
def check_batches_begin_anywhere(subject: Subject, case: TrainingCase) -> float:
    """A run goes on in the middle of an epoch, in whatever chunks the steps are taken."""
    losses, right = expected(case, RATES)
    run = begin(subject, case, expected(case, RATES[:2])[1])
    found = np.concatenate([advance(run, case, 2, RATES[2:3]), advance(run, case, 3, RATES[3:])])
    return max(
        subject.close(found, losses[2:], subject.tolerances.steps, "the losses of steps 3 to 7", dtype="float64"),
        compare_states(subject, run.state(), right, subject.tolerances.steps, "after 2 steps elsewhere and 1 + 4 here"),
    )


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
    losses, right = expected(case, RATES)
    run = begin(subject, case, expected(case, RATES[:3])[1])
    found = np.concatenate([advance(run, case, 3, RATES[3:5]), advance(run, case, 5, RATES[5:])])
    return max(
        subject.close(found, losses[3:], subject.tolerances.steps, "the losses of steps 4 to 7", dtype="float64"),
        compare_states(subject, run.state(), right, subject.tolerances.steps, "after 3 steps elsewhere and 2 + 2 here"),
    )

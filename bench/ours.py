"""Our side: every fit that is measured goes through `fit` below."""

from __future__ import annotations

import numpy as np

import ismcore

ALONE = {"recipe": "reference"}
"""What switches off, in `ismcore.fit`, the work that the programs by hand do not do either."""
COMPILED = "on"
"""`compile=` of `ismcore.fit` that compiles whether or not it pays."""


def fit(case, backend, epochs, *, dtype="float32", device="cpu", objective=None, compile="auto"):
    """The public fit of a case: nothing standardised, held out or shown."""
    return ismcore.fit(
        case.x,
        backend=backend,
        model=case.model,
        objective=objective or case.objective,
        optimizer=ismcore.Adam(case.rate),
        initial_params=case.params,
        sample_weight=case.row_weight,
        epochs=epochs,
        dtype=dtype,
        device=device,
        compile=compile,
        standardize=False,
        progress=False,
        **ALONE,
    )


def squared_score():
    """1/2 |psi|^2 alone, as an objective: explicit score matching to the score 0."""
    return ismcore.ExplicitScoreMatching(np.zeros_like)


def step_seconds(result):
    """Seconds a step of a warm fit: all that its loop took, with what happens between its chunks, over its steps."""
    return result.timings["run"] / len(result.history["loss"])

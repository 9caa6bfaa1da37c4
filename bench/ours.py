"""Our side: every fit that is measured goes through `fit` below."""

from __future__ import annotations

import numpy as np

import ismcore

ALONE = {"recipe": "reference"}
"""What switches off, in `ismcore.fit`, the work that the programs by hand do not do either."""
COMPILED = "on"
"""`compile=` of `ismcore.fit` that compiles whether or not it pays."""
BATCHES = 10
"""So many times the rows of a case are there, where it is run in batches as large as the case."""


def fit(case, backend, epochs, *, dtype="float32", device="cpu", objective=None, compile="auto", copies=1, **options):
    """The public fit of a case: nothing standardised, held out or shown. The rows may be there in so many copies."""
    return ismcore.fit(
        np.tile(case.x, (copies, 1)),
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
        **options,
    )


def squared_score():
    """1/2 |psi|^2 alone, as an objective: explicit score matching to the score 0."""
    return ismcore.ExplicitScoreMatching(np.zeros_like)


def sliced():
    """One Rademacher probe a row in place of the exact divergence."""
    return ismcore.SlicedScoreMatching(1)


def added(case):
    """Options of `fit` by the name of what they add to a step; all but the last three change no loss."""
    probes = np.random.default_rng(0).choice((-1.0, 1.0), (1, *case.x.shape))
    return {
        "clipping": {"clip_norm": 1e30},
        "averaging": {"average_decay": 0.99},
        "a callback": {"callbacks": (lambda event: None,)},
        "batches": {"copies": BATCHES, "batch_size": len(case.x)},
        "probes given": {"objective": ismcore.SlicedScoreMatching(probes=probes)},
        "probes drawn": {"objective": sliced()},
    }


def step_seconds(result, steps):
    """Seconds a step of a warm fit: all that its loop took, with what happens between its chunks, over its steps."""
    return result.timings["run"] / steps

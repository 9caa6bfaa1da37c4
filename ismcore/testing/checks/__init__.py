"""The checks, one promise each. Importing this package fills the list that `ismcore.testing.all_checks` gives."""

from ismcore.testing.checks import (
    adoption,
    arrays,
    derivatives,
    fits,
    loop,
    objectives,
    operations,
    optional,
    process,
    repeats,
    routes,
    scale,
    sessions,
    steps,
    training,
)

__all__ = [
    "adoption",
    "arrays",
    "derivatives",
    "fits",
    "loop",
    "objectives",
    "operations",
    "optional",
    "process",
    "repeats",
    "routes",
    "scale",
    "sessions",
    "steps",
    "training",
]

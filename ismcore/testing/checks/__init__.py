"""The checks, one promise each. Importing this package fills the list that `ismcore.testing.all_checks` gives."""

from ismcore.testing.checks import arrays, derivatives, objectives, optional, process, routes, sessions, steps, training

__all__ = ["arrays", "derivatives", "objectives", "optional", "process", "routes", "sessions", "steps", "training"]

"""Randomness: named streams of one seed, so that equal seeds mean equal fits in every backend."""

import numpy as np

from ismcore.errors import OptionError

__all__ = ["stream"]


def stream(seed: int, name: str, number: int = 0) -> np.random.Generator:
    """The generator that the stream `name` of `seed` starts from; streams of one name may be numbered.

    Streams are independent children of `numpy.random.SeedSequence(seed)`. Each use of randomness has a name of its own
    ("init", "shuffle", ...), so that a new use never shifts the draws of another.

    Example:
        >>> stream(0, "init").random() == stream(0, "init").random()
        True
        >>> stream(0, "init").random() == stream(0, "shuffle").random()
        False
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise OptionError(f"seed must be a whole number from 0, not {seed!r}")
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=(*name.encode(), number)))

"""All that training carries from one step to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ismcore.ops import Params

__all__ = ["STATE_PARTS", "TrainState"]

STATE_PARTS = ("params", "first_moment", "second_moment", "average")


@dataclass(frozen=True, eq=False)
class TrainState:
    """All that training carries from one step to the next, in a form that any backend can go on from.

    Attributes:
        step: Steps taken so far.
        params: Parameters, as the model sees the (standardised) samples.
        first_moment: Running mean of the gradient (Adam's m, SGD's velocity); empty where the optimiser keeps none.
        second_moment: Running mean of the squared gradient (Adam's v); empty likewise.
        average: Exponential moving average of the parameters; empty where none is kept.
    """

    step: int
    params: Params
    first_moment: Params = field(default_factory=dict)
    second_moment: Params = field(default_factory=dict)
    average: Params = field(default_factory=dict)

    def arrays(self) -> Params:
        """Every array, named after its place: "params.layers.0.weight", ..."""
        return {f"{part}.{name}": value for part in STATE_PARTS for name, value in getattr(self, part).items()}

    @property
    def finite(self) -> bool:
        """Whether every number is; asked of all arrays at once, as each question takes microseconds."""
        values = [value for part in STATE_PARTS for value in getattr(self, part).values()]
        return not values or bool(np.isfinite(np.concatenate(values, axis=None)).all())

    @property
    def evaluation_params(self) -> Params:
        """The parameters to use: their average where one is kept."""
        return self.average or self.params

    def astype(self, dtype: str) -> TrainState:
        """The same state with every array a copy of its own, in the dtype."""

        def cast(tree: Params) -> Params:
            return {name: np.array(value, dtype=dtype) for name, value in tree.items()}

        return TrainState(self.step, **{part: cast(getattr(self, part)) for part in STATE_PARTS})

    def copy(self) -> TrainState:
        """The same state with every array a copy of its own."""
        return self.astype(next(iter(self.params.values())).dtype.name)

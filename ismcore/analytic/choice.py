"""Which closed formula serves a model."""

from __future__ import annotations

from itertools import pairwise

from ismcore.analytic.energies import DeepEnergy, ShallowEnergy
from ismcore.analytic.routes import Route
from ismcore.analytic.scores import OneHidden, TwoHiddenDiagonal, TwoHiddenTrace
from ismcore.analytic.tangents import PrecomputedTrace, Tangents
from ismcore.models import MLP, Energy, Model

__all__ = ["find_route"]


PRECOMPUTED_NUMBERS = 2**22
"""What a formula makes of the weights has at most about so many numbers; some five arrays of that size are held at once."""


def find_route(model: Model, d: int, *, trace: bool, n: int | None = None) -> Route | None:
    """The cheapest closed formula for the divergence or the diagonal of a model's Jacobian, or None where there is none.

    Args:
        model: The model.
        d: Dimensions.
        trace: Whether the divergence is wanted, or the diagonal.
        n: Rows; None for many.
    """
    if isinstance(model, MLP):
        widths = model.hidden
        if len(widths) == 1:
            return OneHidden(model, trace=trace)
        if trace and len(widths) == 2:
            return TwoHiddenTrace(model, trace=True)
        if len(widths) == 2 and (n is None or n >= widths[0]) and d * widths[0] * widths[1] <= PRECOMPUTED_NUMBERS:
            return TwoHiddenDiagonal(model, trace=False)
        products = [a * b for a, b in pairwise(widths)]
        if trace and widths[0] * sum(products[1:]) < d * sum(products):
            return PrecomputedTrace(model, trace=True)
        return Tangents(model, trace=trace)
    if isinstance(model, Energy) and isinstance(model.net, MLP):
        family = ShallowEnergy if len(model.net.hidden) == 1 else DeepEnergy
        return family(model.net, trace=trace)
    return None

"""What a closed formula gives, and the forward pass that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ismcore.activations import get_activation
from ismcore.models import MLP
from ismcore.ops import Array, Ops
from ismcore.problem import Params

__all__ = ["FOLDED", "Layers", "Route", "outer", "transposed"]

FOLDED = "folded"
"""Name, in what `Route.pullback` gives, of the gradient in what `Route.fold` gave."""


class Route(ABC):
    """Closed formulas for a family of networks.

    Args:
        net: The network.
        trace: Whether the second quantity is the divergence, (n,), or the Jacobian diagonal, (n, d).
    """

    def __init__(self, net: MLP, *, trace: bool) -> None:
        self.net = net
        self.trace = trace

    def fold(self, ops: Ops, params: Params) -> Any:
        """What depends on the weights alone, found once for all rows; None where there is nothing such."""
        return None

    @abstractmethod
    def forward(self, ops: Ops, params: Params, folded: Any, x: Array) -> tuple[Array, Array, Any]:
        """Score (n, d); divergence (n,) or Jacobian diagonal (n, d); residuals for `pullback`."""

    @abstractmethod
    def pullback(self, ops: Ops, params: Params, x: Array, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """Gradient in the parameters of sum(psi_bar * psi) + sum(second_bar * second); the cotangents count as constants.

        What `fold` gave counts as a constant too; its own gradient is there by the name `FOLDED`, if it gave something.
        """

    def unfold(self, ops: Ops, params: Params, folded: Any, folded_bar: Array) -> Params:
        """Gradient in the weights through `fold`, given that of what it gave, summed over all rows."""
        raise NotImplementedError(f"{type(self).__name__} folds nothing")

    def numbers_a_row(self, d: int) -> int:
        """About how many numbers the forward pass and the pullback keep for each row."""
        return 8 * sum(self.net.hidden) + 4 * d

    def directions(self, d: int) -> int:
        """How many tangents go through the layers for each row; 1 for none."""
        return 1


@dataclass(frozen=True)
class Layers:
    """Weights, biases and the forward pass of an MLP.

    Attributes:
        weights: W_1 ... W_{L+1}.
        h: h_0 = x, ..., h_L.
        jets: sigma and its derivatives at z_1 ... z_L.
    """

    weights: list[Array]
    h: list[Array]
    jets: list[tuple[Array, ...]]

    @classmethod
    def of(cls, ops: Ops, net: MLP, params: Params, x: Array, *, order: int) -> Layers:
        """Run the hidden layers at x, with the first `order` derivatives of sigma."""
        jet = get_activation(net.activation).jet
        count = len(net.hidden) + 1
        weights = [params[f"layers.{k}.weight"] for k in range(count)]
        h, jets = [x], []
        for k in range(count - 1):
            z = h[-1] @ transposed(ops, weights[k]) + params[f"layers.{k}.bias"]
            jets.append(tuple(islice(jet(ops, z), order + 1)))
            h.append(jets[-1][0])
        return cls(weights, h, jets)

    def pullback(self, ops: Ops, z_bars: list[Array], h_bar: Array | None) -> Params:
        """Gradient of the hidden layers, given cotangents from outside the forward pass.

        Args:
            ops: Operations.
            z_bars: Of z_1 ... z_L, through the derivatives of sigma.
            h_bar: Of h_L, through the output; None for none.
        """
        found: Params = {}
        for k in reversed(range(len(z_bars))):
            z_bar = z_bars[k] if h_bar is None else z_bars[k] + h_bar * self.jets[k][1]
            found[f"layers.{k}.weight"] = transposed(ops, z_bar) @ self.h[k]
            found[f"layers.{k}.bias"] = ops.sum(z_bar, axis=0)
            if k:
                h_bar = z_bar @ self.weights[k]
        return found


def transposed(ops: Ops, matrix: Array) -> Array:
    """A matrix's transpose."""
    return ops.permute_dims(matrix, (1, 0))


def outer(ops: Ops, bar: Array, tangent: Array) -> Array:
    """Sum over rows and directions of bar (n, k, out) times tangent (n, k, in): (out, in)."""
    rows = bar.shape[0] * bar.shape[1]
    flat = ops.reshape(bar, (rows, bar.shape[2]))
    return transposed(ops, flat) @ ops.reshape(tangent, (rows, tangent.shape[2]))

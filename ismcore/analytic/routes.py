"""What a closed formula gives, and the forward pass that all of them share.

Inside a formula a sample is a column: activations are (H, n), tangents (H, d, n) or (H, n, d), so that z = W h + b is written
as in the literature, and element-wise loops run along the samples, however narrow the network. Updates in place (`+=`, `*=`)
save a tenth of the time in NumPy; `ismcore.ops` says what may be updated so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from ismcore.models import MLP
from ismcore.models.activations import get_activation
from ismcore.ops import Array, Ops, Params

__all__ = [
    "FOLDED",
    "Axes",
    "Layers",
    "Route",
    "flat",
    "least_rows",
    "product",
    "pulled",
    "row_times",
    "times_column",
    "transposed",
    "turned",
    "unflat",
]

LEAST_PRODUCTS = 512
"""Each block multiplies at least this many tangents by the weights."""
LEAST_ROWS = 4
"""Each block of tangents has at least this many rows: XLA is slow at sums next to an axis of length 1."""
FOLDED = "folded"
"""Name, in what `Route.pullback` gives, of the gradient in what `Route.fold` gave."""


class Route(ABC):
    """Closed formulas for a family of networks.

    Args:
        net: The network.
        trace: Whether the second quantity is the divergence, (n,), or the Jacobian diagonal, (d, n).

    Attributes:
        across: Weights that are multiplied, entry by entry, by the transpose of others, and so are their gradients, which
            `pullback` and `unfold` therefore give transposed: where the rows are few, turning them takes a third of a step.
    """

    across: tuple[str, ...] = ()

    def __init__(self, net: MLP, *, trace: bool) -> None:
        self.net = net
        self.trace = trace

    def fold(self, ops: Ops, params: Params) -> Any:
        """What depends on the weights alone, found once for all rows; None where there is nothing such."""
        return None

    @abstractmethod
    def forward(self, ops: Ops, params: Params, folded: Any, x: Array) -> tuple[Array, Array, Any]:
        """Score (d, n); divergence (n,) or Jacobian diagonal (d, n); residuals for `pullback`.

        The samples x are (d, n).
        """

    @abstractmethod
    def pullback(self, ops: Ops, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """Gradient in the parameters of sum(psi_bar * psi) + sum(second_bar * second); the cotangents count as constants.

        What `fold` gave counts as a constant too; its own gradient is there by the name `FOLDED`, if it gave something.
        """

    def unfold(self, ops: Ops, params: Params, folded: Any, folded_bar: Array) -> Params:
        """Gradient in the weights through `fold`, given that of what it gave, summed over all rows."""
        raise NotImplementedError(f"{type(self).__name__} folds nothing")

    def numbers_a_row(self, d: int) -> int:
        """About how many numbers the forward pass and the pullback keep for each row."""
        return 8 * sum(self.net.hidden) + 4 * d

    def least_rows(self, d: int) -> int:
        """Fewest rows of a block: thinner products, with a sum of gradients after each, cost more than the cache saves."""
        return 512


@dataclass(frozen=True)
class Layers:
    """Weights, biases and the forward pass of an MLP.

    Attributes:
        weights: W_1 ... W_{L+1}.
        h: h_0 = x, ..., h_L, each (H, n).
        jets: sigma and its derivatives at z_1 ... z_L.
    """

    weights: list[Array]
    h: list[Array]
    jets: list[tuple[Array, ...]]

    @classmethod
    def of(cls, ops: Ops, net: MLP, params: Params, x: Array, *, order: int, first: Array | None = None) -> Layers:
        """Run the hidden layers at x, with the first `order` derivatives of sigma; `first` is W_1^T, where it is at hand."""
        jet = get_activation(net.activation).jet
        count = len(net.hidden) + 1
        weights = [params[f"layers.{k}.weight"] for k in range(count)]
        h, jets = [x], []
        for k in range(count - 1):
            z = product(weights[k], h[-1]) if k or first is None else pulled(ops, first, x)
            z += params[f"layers.{k}.bias"][:, None]
            jets.append(tuple(islice(jet(ops, z), order + 1)))
            h.append(jets[-1][0])
        return cls(weights, h, jets)

    def pullback(self, ops: Ops, z_bars: list[Array], h_bar: Array | None, across: tuple[str, ...] = ()) -> Params:
        """Gradient of the hidden layers, given cotangents from outside the forward pass.

        Args:
            ops: Operations.
            z_bars: Of z_1 ... z_L, through the derivatives of sigma.
            h_bar: Of h_L, through the output; None for none. It is overwritten.
            across: Weights whose gradient is to be transposed: see `Route.across`.
        """
        found: Params = {}
        for k in reversed(range(len(z_bars))):
            z_bar = z_bars[k]
            if h_bar is not None:
                z_bar = _plus_product(ops, z_bar, h_bar, self.jets[k][1])
            weight, h = f"layers.{k}.weight", self.h[k]
            found[weight] = h @ transposed(ops, z_bar) if weight in across else z_bar @ transposed(ops, h)
            found[f"layers.{k}.bias"] = ops.sum(z_bar, axis=1)
            if k:
                h_bar = pulled(ops, self.weights[k], z_bar)
        return found


def product(a: Array, b: Array) -> Array:
    """The product of two matrices; where the inner dimension is 1, BLAS takes ten times as long as an outer product."""
    return a * b if a.shape[1] == 1 else a @ b


def row_times(row: Array, matrix: Array) -> Array:
    """The product of a vector (k,) with a matrix (k, n), (n,): `@` takes matrices alone."""
    return (row[None, :] @ matrix)[0, :]


def times_column(matrix: Array, column: Array) -> Array:
    """The product of a matrix (k, n) with a vector (n,), (k,): `@` takes matrices alone."""
    return (matrix @ column[:, None])[:, 0]


def _plus_product(ops: Ops, x: Array, a: Array, b: Array) -> Array:
    """The sum x + a b, in the place of a. By the operations' own `plus_product`, where they have one."""
    own = getattr(ops, "plus_product", None)
    if own:
        return own(x, 1.0, a, b)
    a *= b
    a += x
    return a


def pulled(ops: Ops, matrix: Array, bar: Array) -> Array:
    """M^T bar: the cotangent of v, given that of M v. By the operations' own `pulled`, where they have one."""
    own = getattr(ops, "pulled", None)
    return own(matrix, bar) if own else product(transposed(ops, matrix), bar)


def transposed(ops: Ops, matrix: Array) -> Array:
    """A matrix's transpose."""
    return ops.permute_dims(matrix, (1, 0))


def turned(ops: Ops, matrix: Array) -> Array:
    """A matrix's transpose in memory of its own: what is made with a mere view is laid out like the view, and then slow."""
    a, b = matrix.shape
    if 1 in (a, b):
        return ops.reshape(matrix, (b, a))
    return ops.reshape(ops.reshape(transposed(ops, matrix), (a * b,)), (b, a))


class Axes(NamedTuple):
    """Where directions and rows lie in tangents, (H, d, n) or (H, n, d): the longer one last, since loops run along it."""

    directions: int
    rows: int

    @classmethod
    def of(cls, d: int, n: int) -> Axes:
        """For d directions and n rows."""
        return cls(1, 2) if d <= n else cls(2, 1)

    def of_rows(self, values: Array) -> Array:
        """(H, n) beside tangents: the same in all directions."""
        return values[:, None, :] if self.rows == 2 else values[:, :, None]

    def of_directions(self, values: Array) -> Array:
        """(H, d) beside tangents: the same in all rows."""
        return values[:, :, None] if self.rows == 2 else values[:, None, :]

    def arranged(self, ops: Ops, values: Array) -> Array:
        """(d, n) as tangents have these axes, or back again."""
        return values if self.rows == 2 else transposed(ops, values)


def least_rows(directions: int) -> int:
    """Fewest rows of a block of tangents in so many directions."""
    return max(-(-LEAST_PRODUCTS // directions), LEAST_ROWS)


def flat(ops: Ops, tangents: Array) -> Array:
    """Tangents as one matrix, (H, d n): a product with weights is then one for all directions and rows."""
    return ops.reshape(tangents, (tangents.shape[0], tangents.shape[1] * tangents.shape[2]))


def unflat(ops: Ops, matrix: Array, like: Array) -> Array:
    """A matrix (H, d n) as tangents with the last two axes of others: the inverse of `flat`."""
    return ops.reshape(matrix, (matrix.shape[0], like.shape[1], like.shape[2]))

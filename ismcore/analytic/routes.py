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
    "PRECOMPUTED",
    "Axes",
    "Layers",
    "Route",
    "copied_transpose",
    "flat",
    "least_rows",
    "matmul_t",
    "product",
    "row_times",
    "times_column",
    "transposed",
    "unflat",
]

LEAST_PRODUCTS = 512
"""Each block multiplies at least this many tangents by the weights."""
LEAST_ROWS = 4
"""Each block of tangents has at least this many rows: XLA is slow at sums next to an axis of length 1."""
PRECOMPUTED = "precomputed"
"""Name, in what `Route.pullback` gives, of the gradient in what `Route.precompute` gave."""


class Route(ABC):
    """Closed formulas for a family of networks.

    A cotangent is called `a_bar`: the gradient of the loss in a, of a's shape, summed over the rows where a belongs to no row.

    Args:
        net: The network.
        trace: Whether the second quantity is the divergence, (n,), or the Jacobian diagonal, (d, n).

    Attributes:
        transposed_weights: Names of the weights that are multiplied, entry by entry, by the transpose of others. So are their
            gradients, which `pullback` and `pullback_precomputed` therefore give transposed, (in, out): where the rows are
            few, to transpose them takes a third of a step.
    """

    transposed_weights: tuple[str, ...] = ()

    def __init__(self, net: MLP, *, trace: bool) -> None:
        self.net = net
        self.trace = trace

    def precompute(self, ops: Ops, params: Params) -> Any:
        """What depends on the weights alone, found once for all rows; None where there is nothing such.

        An array, or a tuple of which the first array is what the rows are multiplied by: each route says which, and of which
        shape.
        """
        return None

    @abstractmethod
    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, Any]:
        """Score and second quantity of each row, and what `pullback` needs of the way there.

        Args:
            ops: Operations.
            params: Weights (out, in) and biases (out,).
            precomputed: What `precompute` gave.
            x: Samples, (d, n).

        Returns:
            psi, (d, n), in 1/[x]; the divergence, (n,), or the Jacobian diagonal, (d, n), in 1/[x]^2; and the residuals, a
            tuple whose fields and shapes each route names.
        """

    @abstractmethod
    def pullback(self, ops: Ops, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """Gradient in the parameters of sum(psi_bar * psi) + sum(second_bar * second); the cotangents count as constants.

        What `precompute` gave counts as a constant too; the gradient in it (in its first array, if it is a tuple) is there by
        the name `PRECOMPUTED`, if it gave something.

        Args:
            ops: Operations.
            residuals: What `forward` gave.
            psi_bar: (d, n).
            second_bar: (n,) or (d, n), as the second quantity is.
        """

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """Gradient in the weights through `precompute`, given that in what it gave, summed over all rows, of its shape."""
        raise NotImplementedError(f"{type(self).__name__} precomputes nothing")

    def numbers_a_row(self, d: int) -> int:
        """About how many numbers the forward pass and the pullback keep for each row."""
        return 8 * sum(self.net.hidden) + 4 * d

    def least_rows(self, d: int) -> int:
        """Fewest rows of a block: thinner products, with a sum of gradients after each, cost more than the cache saves."""
        return 512


@dataclass(frozen=True)
class Layers:
    """Weights and the forward pass of an MLP: z_l = W_l h_{l-1} + b_l, h_l = sigma(z_l), h_0 = x.

    Attributes:
        weights: W_1 ... W_{L+1}, (H_l, H_{l-1}) each, with H_0 = d; W_l is `layers.{l - 1}.weight`.
        h: h_0 ... h_L, (H_l, n) each.
        jets: For each of z_1 ... z_L sigma and its first derivatives there, (H_l, n) each.
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
            z = product(weights[k], h[-1]) if k or first is None else matmul_t(ops, first, x)
            z += params[f"layers.{k}.bias"][:, None]
            jets.append(tuple(islice(jet(ops, z), order + 1)))
            h.append(jets[-1][0])
        return cls(weights, h, jets)

    def pullback(self, ops: Ops, z_bars: list[Array], h_bar: Array | None, transposed_weights: tuple[str, ...] = ()) -> Params:
        """Gradient in the hidden layers' weights and biases, given cotangents from outside the forward pass.

        From the last layer to the first, with d_l = sigma'(z_l) and c_l the cotangent of z_l from outside:

            z_bar_l     = c_l + d_l * h_bar_l       h_l = sigma(z_l)
            W_bar_l     = z_bar_l h_{l-1}^T         z_l = W_l h_{l-1} + b_l
            b_bar_l     = sum_n z_bar_l
            h_bar_{l-1} = W_l^T z_bar_l

        Args:
            ops: Operations.
            z_bars: c_1 ... c_L, (H_l, n) each: through the derivatives of sigma.
            h_bar: h_bar_L, (H_L, n): through the output; None for none. It is overwritten.
            transposed_weights: Weights whose gradient is to be transposed: see `Route.transposed_weights`.
        """
        found: Params = {}
        for k in reversed(range(len(z_bars))):
            z_bar = z_bars[k]
            if h_bar is not None:
                z_bar = _plus_product(ops, z_bar, h_bar, self.jets[k][1])
            weight, h = f"layers.{k}.weight", self.h[k]
            found[weight] = h @ transposed(ops, z_bar) if weight in transposed_weights else z_bar @ transposed(ops, h)
            found[f"layers.{k}.bias"] = ops.sum(z_bar, axis=1)
            if k:
                h_bar = matmul_t(ops, self.weights[k], z_bar)
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


def matmul_t(ops: Ops, matrix: Array, bar: Array) -> Array:
    """M^T bar: the cotangent of v, given that of M v. By the operations' own `matmul_t`, where they have one."""
    own = getattr(ops, "matmul_t", None)
    return own(matrix, bar) if own else product(transposed(ops, matrix), bar)


def transposed(ops: Ops, matrix: Array) -> Array:
    """A matrix's transpose."""
    return ops.permute_dims(matrix, (1, 0))


def copied_transpose(ops: Ops, matrix: Array) -> Array:
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

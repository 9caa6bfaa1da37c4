"""Closed formulas for networks of any depth that give the score itself, by tangents: derivatives that go from layer to layer.

The letters are those of `scores.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ismcore.analytic.routes import (
    PRECOMPUTED,
    Axes,
    Layers,
    copied_transpose,
    flat,
    least_rows,
    matmul_t,
    transposed,
    unflat,
)
from ismcore.analytic.scores import ScoreRoute
from ismcore.ops import Array, Ops, Params

__all__ = ["PrecomputedTrace", "Tangents"]


class TangentRoute(ScoreRoute):
    """Tangents that go from a layer on: V_l = W_l T_{l-1}, T_l = d_l * V_l; what the two families below share.

    Both are (H_l, d, n) or (H_l, n, d), see `Axes`; with `PrecomputedTrace` the directions are H_1, not d.
    """

    @staticmethod
    def push(ops: Ops, layers: Layers, axes: Axes, first: int, tangents: Array) -> tuple[list[Array], list[Array]]:
        """All V_l and T_l after layer l = first + 1, given its own tangents T_{first+1}, with which the second list begins."""
        v, t = [], [tangents]
        for weight, jet in zip(layers.weights[first + 1 : -1], layers.jets[first + 1 :], strict=True):
            v.append(unflat(ops, weight @ flat(ops, t[-1]), t[-1]))
            t.append(axes.of_rows(jet[1]) * v[-1])
        return v, t

    @staticmethod
    def pull(
        ops: Ops, layers: Layers, axes: Axes, first: int, v: list[Array], t: list[Array], t_bar: Array
    ) -> tuple[Array, list[Array], dict[int, Array]]:
        """The reverse of `push`.

        From l = L to first + 2:

            c_l         = dd_l * (sum_i T_bar_l[:, i] V_l[:, i])
            V_bar_l     = d_l * T_bar_l
            W_bar_l     = sum_n V_bar_l T_{l-1}^T
            T_bar_{l-1} = W_l^T V_bar_l

        Args:
            ops: Operations.
            layers: The forward pass.
            axes: Where directions and rows lie.
            first: As for `push`.
            v: What it gave first.
            t: What it gave second.
            t_bar: T_bar_L, of the shape of T_L.

        Returns:
            T_bar_{first+1}, of the shape of that; the later c_l, (H_l, n) each; and W_bar_{k+1}, (H_{k+1}, H_k), by k.
        """
        z_bars: list[Array] = []
        weight_bars: dict[int, Array] = {}
        for k in reversed(range(first + 1, len(layers.jets))):
            _, d, dd = layers.jets[k]
            at = k - first - 1
            z_bars.insert(0, ops.sum(t_bar * v[at], axis=axes.directions) * dd)
            v_bar = flat(ops, axes.of_rows(d) * t_bar)
            weight_bars[k] = v_bar @ transposed(ops, flat(ops, t[at]))
            t_bar = unflat(ops, matmul_t(ops, layers.weights[k], v_bar), t[at])
        return t_bar, z_bars, weight_bars


class _TangentResiduals(NamedTuple):
    """What `Tangents.forward` keeps.

    Attributes:
        layers: The forward pass, with two derivatives of sigma.
        axes: Where directions and rows lie.
        last: W_{L+1}^T as tangents, one row for all: (H_L, d, 1) or (H_L, 1, d).
        v: V_2 ... V_L, (H_l, d, n) or (H_l, n, d) each.
        t: T_1 ... T_L, likewise.
    """

    layers: Layers
    axes: Axes
    last: Array
    v: list[Array]
    t: list[Array]


class Tangents(TangentRoute):
    """Any depth, by the tangents T_l[:, i] = d h_l / d x_i.

    T_1 = d1 * W_1 for every row; T_l = d_l * (W_l T_{l-1}); J_ii = W_{L+1}[i] . T_L[:, i].
    """

    def numbers_a_row(self, d: int) -> int:
        """See `Route.numbers_a_row`."""
        return 4 * d * sum(self.net.hidden)

    def least_rows(self, d: int) -> int:
        """See `Route.least_rows`."""
        return least_rows(d)

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, _TangentResiduals]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        axes = Axes.of(*x.shape)
        first = axes.of_rows(layers.jets[0][1]) * axes.of_directions(layers.weights[0])
        v, t = self.push(ops, layers, axes, 0, first)
        last = axes.of_directions(copied_transpose(ops, layers.weights[-1]))
        diagonal = axes.arranged(ops, ops.sum(t[-1] * last, axis=0))
        second = ops.sum(diagonal, axis=0) if self.trace else diagonal
        return self.output(params, layers), second, _TangentResiduals(layers, axes, last, v, t)

    def pullback(self, ops: Ops, residuals: _TangentResiduals, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`; of a divergence second_bar_i is the same for all i.

        T_bar_L[:, i]  = second_bar_i W_{L+1}[i], from which `pull` goes down to T_bar_1
        W_bar_{L+1}[i] = sum_n second_bar_i T_L[:, i]
        c_1            = dd1 * (sum_i T_bar_1[:, i] W_1[:, i])
        W_bar_1        = sum_n d1 * T_bar_1
        """
        layers, axes, last, v, t = residuals
        _, d1, dd1 = layers.jets[0]
        if not self.trace:
            second_bar = axes.arranged(ops, second_bar)
        else:
            second_bar = axes.of_rows(second_bar[None, :])
        last_bar = transposed(ops, ops.sum(second_bar * t[-1], axis=axes.rows))
        t_bar, z_bars, weight_bars = self.pull(ops, layers, axes, 0, v, t, second_bar * last)
        z_bar = ops.sum(t_bar * axes.of_directions(layers.weights[0]), axis=axes.directions) * dd1
        weight_bars[0] = ops.sum(t_bar * axes.of_rows(d1), axis=axes.rows)
        weight_bars[len(layers.jets)] = last_bar
        return self.finish(ops, layers, psi_bar, [z_bar, *z_bars], weight_bars)


class _PrecomputedResiduals(NamedTuple):
    """What `PrecomputedTrace.forward` keeps; the directions are the units of the first layer.

    Attributes:
        layers: The forward pass, with two derivatives of sigma.
        axes: Where directions and rows lie.
        through: A^T as tangents, one row for all: (H_L, H_1, 1) or (H_L, 1, H_1).
        start: B, (H_2, H_1, n) or (H_2, n, H_1).
        v: V_3 ... V_L, (H_l, H_1, n) or (H_l, n, H_1) each.
        t: T_2 ... T_L, likewise.
    """

    layers: Layers
    axes: Axes
    through: Array
    start: Array
    v: list[Array]
    t: list[Array]


class PrecomputedTrace(TangentRoute):
    """Divergence for d above the widths, with one tangent for each unit j of the first layer.

    tr(W_{L+1} D_L ... W_2 D_1 W_1) = tr(D_L ... W_2 D_1 A) with A = W_1 W_{L+1}, (H_1, H_L), which is found once:
    B[:, j] = W_2[:, j] d1[j]; T_2 = d2 * B; T_l = d_l * (W_l T_{l-1}); and the divergence is sum_j A[j] . T_L[:, j].
    """

    def precompute(self, ops: Ops, params: Params) -> Array:
        """A, (H_1, H_L)."""
        return params["layers.0.weight"] @ params[f"layers.{len(self.net.hidden)}.weight"]

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`: W_bar_1 = A_bar W_{L+1}^T and W_bar_{L+1} = W_1^T A_bar."""
        first, last = "layers.0.weight", f"layers.{len(self.net.hidden)}.weight"
        return {first: precomputed_bar @ transposed(ops, params[last]), last: transposed(ops, params[first]) @ precomputed_bar}

    def numbers_a_row(self, d: int) -> int:
        """See `Route.numbers_a_row`."""
        return 4 * self.net.hidden[0] * sum(self.net.hidden[1:]) + 4 * d

    def least_rows(self, d: int) -> int:
        """See `Route.least_rows`."""
        return least_rows(self.net.hidden[0])

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, _PrecomputedResiduals]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        d1, d2 = layers.jets[0][1], layers.jets[1][1]
        axes = Axes.of(*d1.shape)
        start = axes.of_directions(layers.weights[1]) * axes.arranged(ops, d1)
        v, t = self.push(ops, layers, axes, 1, axes.of_rows(d2) * start)
        through = axes.of_directions(copied_transpose(ops, precomputed))
        divergence = ops.sum(axes.arranged(ops, ops.sum(t[-1] * through, axis=0)), axis=0)
        return self.output(params, layers), divergence, _PrecomputedResiduals(layers, axes, through, start, v, t)

    def pullback(self, ops: Ops, residuals: _PrecomputedResiduals, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`.

        T_bar_L[:, j] = second_bar A[j], from which `pull` goes down to T_bar_2
        A_bar[j]      = sum_n second_bar T_L[:, j]
        c_2           = dd2 * (sum_j T_bar_2[:, j] B[:, j])
        B_bar         = d2 * T_bar_2
        c_1[j]        = dd1[j] sum_k B_bar[k, j] W_2[k, j]
        W_bar_2[k, j] = sum_n B_bar[k, j] d1[j]
        """
        layers, axes, through, start, v, t = residuals
        (_, d1, dd1), (_, d2, dd2) = layers.jets[:2]
        second_bar = axes.of_rows(second_bar[None, :])
        through_bar = transposed(ops, ops.sum(second_bar * t[-1], axis=axes.rows))
        t_bar, z_bars, weight_bars = self.pull(ops, layers, axes, 1, v, t, second_bar * through)
        z2_bar = ops.sum(t_bar * start, axis=axes.directions) * dd2
        start_bar = axes.of_rows(d2) * t_bar
        z1_bar = axes.arranged(ops, ops.sum(start_bar * axes.of_directions(layers.weights[1]), axis=0)) * dd1
        weight_bars[1] = ops.sum(start_bar * axes.arranged(ops, d1), axis=axes.rows)
        return {**self.finish(ops, layers, psi_bar, [z1_bar, z2_bar, *z_bars], weight_bars), PRECOMPUTED: through_bar}

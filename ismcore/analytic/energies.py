"""Closed formulas for energies: psi = -grad U, with the Jacobian minus the Hessian of U."""

from __future__ import annotations

from typing import Any

from ismcore.analytic.routes import (
    PRECOMPUTED,
    Axes,
    Layers,
    Route,
    flat,
    least_rows,
    matmul_t,
    row_times,
    times_column,
    transposed,
    unflat,
)
from ismcore.ops import Array, Ops, Params

__all__ = ["DeepEnergy", "ShallowEnergy"]


class ShallowEnergy(Route):
    """U = a . sigma(W x + b): psi = -W^T (a sigma'(z)), and the diagonal is -(W * W)^T (a sigma''(z))."""

    def precompute(self, ops: Ops, params: Params) -> Array:
        """W * W, (H, d), or its row sums, (H,)."""
        squares = params["layers.0.weight"] * params["layers.0.weight"]
        return ops.sum(squares, axis=1) if self.trace else squares

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`."""
        return {
            "layers.0.weight": 2.0 * params["layers.0.weight"] * (precomputed_bar[:, None] if self.trace else precomputed_bar)
        }

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=3)
        weight, a = layers.weights
        _, d1, d2, _ = layers.jets[0]
        downhill = -transposed(ops, a)
        slope, bend = downhill * d1, downhill * d2
        second = row_times(precomputed, bend) if self.trace else transposed(ops, precomputed) @ bend
        return matmul_t(ops, weight, slope), second, (params, layers, precomputed, downhill, slope, bend)

    def pullback(self, ops: Ops, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        params, layers, squares, downhill, slope, bend = residuals
        _, d1, d2, d3 = layers.jets[0]
        slope_bar = layers.weights[0] @ psi_bar
        if not self.trace:
            bend_bar = squares @ second_bar
            squares_bar = bend @ transposed(ops, second_bar)
        else:
            bend_bar = second_bar * squares[:, None]
            squares_bar = times_column(bend, second_bar)
        z_bar = slope_bar * d2
        z_bar += bend_bar * d3
        z_bar *= downhill
        found: Params = {PRECOMPUTED: squares_bar, **layers.pullback(ops, [z_bar], None)}
        found["layers.0.weight"] += slope @ transposed(ops, psi_bar)
        slope_bar *= d1
        slope_bar += bend_bar * d2
        found["layers.1.weight"] = -ops.sum(slope_bar, axis=1)[None, :]
        found["layers.1.bias"] = 0.0 * params["layers.1.bias"]
        return found


class DeepEnergy(Route):
    """Any depth.

    With g_l = dU/dh_l and S_l[k, i] = d z_l[k] / d x_i:  d^2 U / d x_i^2 = sum_l sum_k g_l[k] sigma''(z_l[k]) S_l[k, i]^2.
    S_1 = W_1 for every row; S_{l+1} = W_{l+1} (sigma'(z_l) * S_l); g_L = the last weight; g_{l-1} = W_l^T (g_l sigma'(z_l)).
    """

    def numbers_a_row(self, d: int) -> int:
        """See `Route.numbers_a_row`."""
        return 6 * d * sum(self.net.hidden)

    def least_rows(self, d: int) -> int:
        """See `Route.least_rows`."""
        return least_rows(d)

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers, axes = Layers.of(ops, self.net, params, x, order=3), Axes.of(*x.shape)
        depth = len(layers.jets)
        g = [transposed(ops, layers.weights[-1])]
        e = [g[0] * layers.jets[-1][1]]
        for k in reversed(range(1, depth)):
            g.insert(0, matmul_t(ops, layers.weights[k], e[0]))
            e.insert(0, g[0] * layers.jets[k - 1][1])
        q = [g[k] * layers.jets[k][2] for k in range(depth)]
        slopes = [axes.of_directions(layers.weights[0])]
        passed: list[Array] = []
        for k in range(1, depth):
            passed.append(axes.of_rows(layers.jets[k - 1][1]) * slopes[-1])
            slopes.append(unflat(ops, layers.weights[k] @ flat(ops, passed[-1]), passed[-1]))
        squares = layers.weights[0] * layers.weights[0]
        curvature = matmul_t(ops, squares, q[0])
        for k in range(1, depth):
            bent = slopes[k] * slopes[k]
            bent *= axes.of_rows(q[k])
            curvature += axes.arranged(ops, ops.sum(bent, axis=0))
        second = ops.sum(curvature, axis=0) if self.trace else curvature
        return -matmul_t(ops, layers.weights[0], e[0]), -second, (params, layers, axes, squares, g, e, q, slopes, passed)

    def pullback(self, ops: Ops, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        params, layers, axes, squares, g, e, q, slopes, passed = residuals
        depth = len(layers.jets)
        # as an array (d, n), also where it is one number a row
        r = 0.0 * psi_bar - second_bar if self.trace else -second_bar
        weight_bars, d1_bars, q_bars = self._curvature_bars(ops, layers, axes, squares, q, slopes, passed, r)

        # psi and the recurrence of g, from the first layer to the last
        e_bar = -(layers.weights[0] @ psi_bar)
        weight_bars[0] -= e[0] @ transposed(ops, psi_bar)
        z_bars: list[Array] = []
        for k in range(depth):
            _, d1, d2, d3 = layers.jets[k]
            g_bar = q_bars[k] * d2
            g_bar += e_bar * d1
            inner = e_bar * g[k]
            inner += d1_bars[k]
            inner *= d2
            inner += q_bars[k] * g[k] * d3
            z_bars.append(inner)
            if k + 1 < depth:
                weight_bars[k + 1] += e[k + 1] @ transposed(ops, g_bar)
                e_bar = layers.weights[k + 1] @ g_bar
        found: Params = layers.pullback(ops, z_bars, None)
        for k, weight_bar in enumerate(weight_bars):
            found[f"layers.{k}.weight"] += weight_bar
        found[f"layers.{depth}.weight"] = ops.sum(g_bar, axis=1)[None, :]
        found[f"layers.{depth}.bias"] = 0.0 * params[f"layers.{depth}.bias"]
        return found

    @staticmethod
    def _curvature_bars(
        ops: Ops, layers: Layers, axes: Axes, squares: Array, q: list[Array], slopes: list[Array], passed: list[Array], r: Array
    ) -> tuple[list[Array], list[Array], list[Array]]:
        """Cotangents through the curvature, given its own r, (d, n): of the weights, of sigma'(z_l), of g_l sigma''(z_l)."""
        depth = len(layers.jets)
        q_bars = [squares @ r]
        weight_bars: list[Array] = [2.0 * layers.weights[0] * (q[0] @ transposed(ops, r)), *[None] * (depth - 1)]
        d1_bars: list[Array] = [0.0] * depth
        carried: Array = 0.0
        r = axes.arranged(ops, r)
        for k in reversed(range(1, depth)):
            slope_bar = r * slopes[k]
            q_bars.insert(1, ops.sum(slope_bar * slopes[k], axis=axes.directions))
            slope_bar *= 2.0 * axes.of_rows(q[k])
            slope_bar += carried
            slope_bar = flat(ops, slope_bar)
            weight_bars[k] = slope_bar @ transposed(ops, flat(ops, passed[k - 1]))
            carried = unflat(ops, matmul_t(ops, layers.weights[k], slope_bar), passed[k - 1])
            d1_bars[k - 1] = ops.sum(carried * slopes[k - 1], axis=axes.directions)
            carried = carried * axes.of_rows(layers.jets[k - 1][1])
        if depth > 1:
            weight_bars[0] += ops.sum(carried, axis=axes.rows)
        return weight_bars, d1_bars, q_bars

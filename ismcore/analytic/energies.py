"""Closed formulas for energies: psi = -grad U, with the Jacobian minus the Hessian of U."""

from __future__ import annotations

from typing import Any

from ismcore.analytic.routes import FOLDED, Layers, Route, outer, transposed
from ismcore.ops import Array, Ops
from ismcore.problem import Params

__all__ = ["DeepEnergy", "ShallowEnergy"]


class ShallowEnergy(Route):
    """U = a . sigma(W x + b): psi = -(a sigma'(z)) @ W, and the diagonal is -(a sigma''(z)) @ (W * W)."""

    def fold(self, ops: Ops, params: Params) -> Array:
        """W * W, (H, d), or its row sums, (H,)."""
        squares = params["layers.0.weight"] * params["layers.0.weight"]
        return ops.sum(squares, axis=1) if self.trace else squares

    def unfold(self, ops: Ops, params: Params, folded: Any, folded_bar: Array) -> Params:
        """See `Route.unfold`."""
        return {"layers.0.weight": 2.0 * params["layers.0.weight"] * (folded_bar[:, None] if self.trace else folded_bar)}

    def forward(self, ops: Ops, params: Params, folded: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=3)
        weight, a = layers.weights
        _, d1, d2, _ = layers.jets[0]
        return -((a * d1) @ weight), -((a * d2) @ folded), (layers, folded)

    def pullback(self, ops: Ops, params: Params, x: Array, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, squares = residuals
        weight, a = layers.weights
        _, d1, d2, d3 = layers.jets[0]
        e_bar = -(psi_bar @ transposed(ops, weight))
        if self.trace:
            q_bar = -(second_bar[:, None] * squares)
            squares_bar = -(second_bar @ (a * d2))
        else:
            q_bar = -(second_bar @ transposed(ops, squares))
            squares_bar = -(transposed(ops, a * d2) @ second_bar)
        found: Params = {FOLDED: squares_bar, **layers.pullback(ops, [a * (e_bar * d2 + q_bar * d3)], None)}
        found["layers.0.weight"] = found["layers.0.weight"] - transposed(ops, a * d1) @ psi_bar
        found["layers.1.weight"] = ops.sum(e_bar * d1 + q_bar * d2, axis=0)[None, :]
        found["layers.1.bias"] = 0.0 * params["layers.1.bias"]
        return found


class DeepEnergy(Route):
    """Any depth.

    With g_l = dU/dh_l and S_l[n, i] = d z_l / d x_i:  d^2 U / d x_i^2 = sum_l sum_k g_l[k] sigma''(z_l[k]) S_l[i, k]^2.
    S_1 = W_1^T for every row; S_{l+1} = (sigma'(z_l) * S_l) W_{l+1}^T; g_L = the last weight; g_{l-1} = (g_l sigma'(z_l)) W_l.
    """

    def numbers_a_row(self, d: int) -> int:
        """See `Route.numbers_a_row`."""
        return 6 * d * sum(self.net.hidden)

    def directions(self, d: int) -> int:
        """See `Route.directions`."""
        return d

    def forward(self, ops: Ops, params: Params, folded: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=3)
        depth = len(layers.jets)
        g = [ops.broadcast_to(layers.weights[-1], layers.h[-1].shape)]
        for k in reversed(range(1, depth)):
            g.insert(0, (g[0] * layers.jets[k][1]) @ layers.weights[k])
        psi = -((g[0] * layers.jets[0][1]) @ layers.weights[0])
        slopes = [transposed(ops, layers.weights[0])[None]]
        passed: list[Array] = []
        for k in range(1, depth):
            passed.append(layers.jets[k - 1][1][:, None, :] * slopes[-1])
            slopes.append(passed[-1] @ transposed(ops, layers.weights[k]))
        curvature = (g[0] * layers.jets[0][2]) @ (layers.weights[0] * layers.weights[0])
        for k in range(1, depth):
            q = (g[k] * layers.jets[k][2])[:, None, :]
            curvature = curvature + ops.sum(q * slopes[k] * slopes[k], axis=2)
        second = ops.sum(curvature, axis=1) if self.trace else curvature
        return psi, -second, (layers, g, slopes, passed)

    def pullback(self, ops: Ops, params: Params, x: Array, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, g, slopes, passed = residuals
        depth = len(layers.jets)
        r = -(second_bar[:, None] * (0.0 * psi_bar + 1.0) if self.trace else second_bar)
        weight_bars, d1_bars, q_bars = self._curvature_bars(ops, layers, g, slopes, passed, r)

        # psi and the recurrence of g, from the first layer to the last
        e_bar = -(psi_bar @ transposed(ops, layers.weights[0]))
        weight_bars[0] = weight_bars[0] - transposed(ops, g[0] * layers.jets[0][1]) @ psi_bar
        z_bars: list[Array] = []
        for k in range(depth):
            _, d1, d2, d3 = layers.jets[k]
            g_bar = q_bars[k] * d2 + e_bar * d1
            z_bars.append((d1_bars[k] + e_bar * g[k]) * d2 + q_bars[k] * g[k] * d3)
            if k + 1 < depth:
                e_next = g[k + 1] * layers.jets[k + 1][1]
                weight_bars[k + 1] = weight_bars[k + 1] + transposed(ops, e_next) @ g_bar
                e_bar = g_bar @ transposed(ops, layers.weights[k + 1])
        found: Params = layers.pullback(ops, z_bars, None)
        for k, weight_bar in enumerate(weight_bars):
            found[f"layers.{k}.weight"] = found[f"layers.{k}.weight"] + weight_bar
        found[f"layers.{depth}.weight"] = ops.sum(g_bar, axis=0)[None, :]
        found[f"layers.{depth}.bias"] = 0.0 * params[f"layers.{depth}.bias"]
        return found

    @staticmethod
    def _curvature_bars(
        ops: Ops, layers: Layers, g: list[Array], slopes: list[Array], passed: list[Array], r: Array
    ) -> tuple[list[Array], list[Array], list[Array]]:
        """Cotangents through the curvature, given its own r, (n, d): of the weights, of sigma'(z_l), of g_l sigma''(z_l)."""
        depth = len(layers.jets)
        first = layers.weights[0]
        q = [g[k] * layers.jets[k][2] for k in range(depth)]
        q_bars = [r @ transposed(ops, first * first)]
        q_bars += [ops.sum(r[:, :, None] * slopes[k] * slopes[k], axis=1) for k in range(1, depth)]
        weight_bars: list[Array] = [2.0 * first * (transposed(ops, q[0]) @ r)] + [None] * (depth - 1)
        d1_bars: list[Array] = [None] * (depth - 1) + [0.0 * q[-1]]
        carried: Array = 0.0
        for k in reversed(range(1, depth)):
            slope_bar = 2.0 * r[:, :, None] * q[k][:, None, :] * slopes[k] + carried
            weight_bars[k] = outer(ops, slope_bar, passed[k - 1])
            passed_bar = slope_bar @ layers.weights[k]
            d1_bars[k - 1] = ops.sum(passed_bar * slopes[k - 1], axis=1)
            carried = layers.jets[k - 1][1][:, None, :] * passed_bar
        if depth > 1:
            weight_bars[0] = weight_bars[0] + transposed(ops, ops.sum(carried, axis=0))
        return weight_bars, d1_bars, q_bars

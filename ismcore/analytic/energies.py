"""Closed formulas for energies: psi = -grad U, with the Jacobian minus the Hessian of U."""

from __future__ import annotations

from typing import Any, NamedTuple

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


class _ShallowResiduals(NamedTuple):
    """What `ShallowEnergy.forward` keeps, in the letters of the class.

    Attributes:
        params: The parameters.
        layers: The forward pass, with three derivatives of sigma.
        q: Q, (H, d), or its row sums, (H,).
        minus_a: -a, (H, 1).
        s: (H, n).
        c: (H, n).
    """

    params: Params
    layers: Layers
    q: Array
    minus_a: Array
    s: Array
    c: Array


class ShallowEnergy(Route):
    """U = a . sigma(z), z = W x + b: psi = W^T s and the diagonal Q^T c, with s = -a sigma'(z), c = -a sigma''(z), Q = W * W.

    The divergence is q . c with q the row sums of Q. W is (H, d), a and q are (H,), s and c (H, n).
    """

    def precompute(self, ops: Ops, params: Params) -> Array:
        """Q, (H, d), or its row sums q, (H,)."""
        squares = params["layers.0.weight"] * params["layers.0.weight"]
        return ops.sum(squares, axis=1) if self.trace else squares

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`: W_bar = 2 W * Q_bar, in which each column of Q_bar is q_bar for the divergence."""
        q_bar = precomputed_bar[:, None] if self.trace else precomputed_bar
        return {"layers.0.weight": 2.0 * params["layers.0.weight"] * q_bar}

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, _ShallowResiduals]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=3)
        weight, a = layers.weights
        _, d1, d2, _ = layers.jets[0]
        minus_a = -transposed(ops, a)
        s, c = minus_a * d1, minus_a * d2
        second = row_times(precomputed, c) if self.trace else transposed(ops, precomputed) @ c
        return matmul_t(ops, weight, s), second, _ShallowResiduals(params, layers, precomputed, minus_a, s, c)

    def pullback(self, ops: Ops, residuals: _ShallowResiduals, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`.

        s_bar = W psi_bar
        c_bar = Q second_bar                                    divergence: q second_bar^T
        Q_bar = c second_bar^T                                  divergence: q_bar = sum_n c second_bar
        z_bar = -a (sigma''(z) s_bar + sigma'''(z) c_bar)
        W_bar = s psi_bar^T + z_bar x^T
        b_bar = sum_n z_bar
        a_bar = -sum_n (sigma'(z) s_bar + sigma''(z) c_bar)
        """
        params, layers, q, minus_a, s, c = residuals
        _, d1, d2, d3 = layers.jets[0]
        s_bar = layers.weights[0] @ psi_bar
        if not self.trace:
            c_bar = q @ second_bar
            q_bar = c @ transposed(ops, second_bar)
        else:
            c_bar = second_bar * q[:, None]
            q_bar = times_column(c, second_bar)
        z_bar = s_bar * d2
        z_bar += c_bar * d3
        z_bar *= minus_a
        found: Params = {PRECOMPUTED: q_bar, **layers.pullback(ops, [z_bar], None)}
        found["layers.0.weight"] += s @ transposed(ops, psi_bar)
        s_bar *= d1
        s_bar += c_bar * d2
        found["layers.1.weight"] = -ops.sum(s_bar, axis=1)[None, :]
        if self.net.output_bias:
            found["layers.1.bias"] = 0.0 * params["layers.1.bias"]
        return found


class _DeepResiduals(NamedTuple):
    """What `DeepEnergy.forward` keeps, in the letters of the class; a list begins with its l = 1.

    Attributes:
        params: The parameters.
        layers: The forward pass, with three derivatives of sigma.
        axes: Where directions and rows lie in S and P.
        squares: W_1 * W_1, (H_1, d).
        g: g_1 ... g_L, (H_l, n) each; the last is (H_L, 1).
        e: e_1 ... e_L, (H_l, n) each.
        q: q_1 ... q_L, (H_l, n) each.
        s: S_1 ... S_L, (H_l, d, n) or (H_l, n, d) each; the first has one row for all.
        p: P_1 ... P_{L-1}, likewise, of all rows.
    """

    params: Params
    layers: Layers
    axes: Axes
    squares: Array
    g: list[Array]
    e: list[Array]
    q: list[Array]
    s: list[Array]
    p: list[Array]


class DeepEnergy(Route):
    """Any depth: psi = -W_1^T e_1, and the diagonal is -sum_l sum_k q_l[k] S_l[k, i]^2.

    Backwards g_l = dU/dh_l and e_l = dU/dz_l:   g_L = W_{L+1}^T;  e_l = sigma'(z_l) * g_l;  g_{l-1} = W_l^T e_l.
    Forwards S_l[k, i] = d z_l[k] / d x_i:       S_1 = W_1 for every row;  P_l = sigma'(z_l) * S_l;  S_{l+1} = W_{l+1} P_l.
    And                                          q_l = sigma''(z_l) * g_l.
    """

    def numbers_a_row(self, d: int) -> int:
        """See `Route.numbers_a_row`."""
        return 6 * d * sum(self.net.hidden)

    def least_rows(self, d: int) -> int:
        """See `Route.least_rows`."""
        return least_rows(d)

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, _DeepResiduals]:
        """See `Route.forward`."""
        layers, axes = Layers.of(ops, self.net, params, x, order=3), Axes.of(*x.shape)
        depth = len(layers.jets)
        g = [transposed(ops, layers.weights[-1])]
        e = [g[0] * layers.jets[-1][1]]
        for k in reversed(range(1, depth)):
            g.insert(0, matmul_t(ops, layers.weights[k], e[0]))
            e.insert(0, g[0] * layers.jets[k - 1][1])
        q = [g[k] * layers.jets[k][2] for k in range(depth)]
        s = [axes.of_directions(layers.weights[0])]
        p: list[Array] = []
        for k in range(1, depth):
            p.append(axes.of_rows(layers.jets[k - 1][1]) * s[-1])
            s.append(unflat(ops, layers.weights[k] @ flat(ops, p[-1]), p[-1]))
        squares = layers.weights[0] * layers.weights[0]
        curvature = matmul_t(ops, squares, q[0])
        for k in range(1, depth):
            terms = s[k] * s[k]
            terms *= axes.of_rows(q[k])
            curvature += axes.arranged(ops, ops.sum(terms, axis=0))
        second = ops.sum(curvature, axis=0) if self.trace else curvature
        residuals = _DeepResiduals(params, layers, axes, squares, g, e, q, s, p)
        return -matmul_t(ops, layers.weights[0], e[0]), -second, residuals

    def pullback(self, ops: Ops, residuals: _DeepResiduals, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`.

        With q_bar_l, d_bar_l and further terms of W_bar_l from `_curvature_bars` for r = -second_bar, from l = 1 to L:

            e_bar_1     = -W_1 psi_bar
            W_bar_1     = -e_1 psi_bar^T
            g_bar_l     = sigma'(z_l) e_bar_l + sigma''(z_l) q_bar_l
            c_l         = sigma''(z_l) (g_l e_bar_l + d_bar_l) + sigma'''(z_l) g_l q_bar_l
            W_bar_{l+1} = e_{l+1} g_bar_l^T                             l < L
            e_bar_{l+1} = W_{l+1} g_bar_l                               l < L
            W_bar_{L+1} = sum_n g_bar_L^T

        The c_l, cotangents of z_l from outside the forward pass, go through `Layers.pullback`.
        """
        params, layers, _, _, g, e, *_ = residuals
        depth = len(layers.jets)
        # as an array (d, n), also where it is one number a row
        r = 0.0 * psi_bar - second_bar if self.trace else -second_bar
        weight_bars, d1_bars, q_bars = self._curvature_bars(ops, residuals, r)
        e_bar = -(layers.weights[0] @ psi_bar)
        weight_bars[0] -= e[0] @ transposed(ops, psi_bar)
        z_bars: list[Array] = []
        for k in range(depth):
            _, d1, d2, d3 = layers.jets[k]
            g_bar = q_bars[k] * d2
            g_bar += e_bar * d1
            z_bar = e_bar * g[k]
            z_bar += d1_bars[k]
            z_bar *= d2
            z_bar += q_bars[k] * g[k] * d3
            z_bars.append(z_bar)
            if k + 1 < depth:
                weight_bars[k + 1] += e[k + 1] @ transposed(ops, g_bar)
                e_bar = layers.weights[k + 1] @ g_bar
        found: Params = layers.pullback(ops, z_bars, None)
        for k, weight_bar in enumerate(weight_bars):
            found[f"layers.{k}.weight"] += weight_bar
        found[f"layers.{depth}.weight"] = ops.sum(g_bar, axis=1)[None, :]
        if self.net.output_bias:
            found[f"layers.{depth}.bias"] = 0.0 * params[f"layers.{depth}.bias"]
        return found

    @staticmethod
    def _curvature_bars(ops: Ops, residuals: _DeepResiduals, r: Array) -> tuple[list[Array], list[Array], list[Array]]:
        """Cotangents through sum_l sum_k q_l[k] S_l[k, i]^2, given its own r_i, (d, n).

        From l = L to 1, with P_bar_L = 0:

            q_bar_l     = sum_i r_i S_l[:, i]^2
            S_bar_l     = 2 r_i q_l S_l + sigma'(z_l) P_bar_l
            W_bar_l     = sum_n S_bar_l P_{l-1}^T                       l > 1
            P_bar_{l-1} = W_l^T S_bar_l                                 l > 1
            d_bar_{l-1} = sum_i P_bar_{l-1} S_{l-1}                     l > 1, of d_l = sigma'(z_l); d_bar_L = 0
            W_bar_1     = sum_n S_bar_1 = 2 W_1 * (q_1 r^T) + sum_n sigma'(z_1) P_bar_1

        Returns:
            W_bar_1 ... W_bar_L, (H_l, H_{l-1}) each; d_bar_1 ... d_bar_L and q_bar_1 ... q_bar_L, (H_l, n) each.
        """
        _, layers, axes, squares, _, _, q, s, p = residuals
        depth = len(layers.jets)
        q_bars = [squares @ r]
        weight_bars: list[Array] = [2.0 * layers.weights[0] * (q[0] @ transposed(ops, r)), *[None] * (depth - 1)]
        d1_bars: list[Array] = [0.0] * depth
        p_term: Array = 0.0  # sigma'(z_l) P_bar_l
        r = axes.arranged(ops, r)
        for k in reversed(range(1, depth)):
            s_bar = r * s[k]
            q_bars.insert(1, ops.sum(s_bar * s[k], axis=axes.directions))
            s_bar *= 2.0 * axes.of_rows(q[k])
            s_bar += p_term
            s_bar = flat(ops, s_bar)
            weight_bars[k] = s_bar @ transposed(ops, flat(ops, p[k - 1]))
            p_bar = unflat(ops, matmul_t(ops, layers.weights[k], s_bar), p[k - 1])
            d1_bars[k - 1] = ops.sum(p_bar * s[k - 1], axis=axes.directions)
            p_term = p_bar * axes.of_rows(layers.jets[k - 1][1])
        if depth > 1:
            weight_bars[0] += ops.sum(p_term, axis=axes.rows)
        return weight_bars, d1_bars, q_bars

"""Closed formulas for networks of one and two hidden layers that give the score itself; `tangents.py` has those of any depth.

Throughout d1, d2, ... are sigma'(z_1), sigma'(z_2), ... and dd1, dd2, ... sigma''(z_1), sigma''(z_2), ..., (H_l, n) each, and
c_l is the part of the cotangent of z_l that comes through them, (H_l, n): `ScoreRoute.finish` adds what comes through psi.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ismcore.analytic.routes import (
    PRECOMPUTED,
    Layers,
    Route,
    copied_transpose,
    matmul_t,
    row_times,
    times_column,
    transposed,
)
from ismcore.ops import Array, Ops, Params

__all__ = ["OneHidden", "ScoreRoute", "TwoHiddenDiagonal", "TwoHiddenTrace"]


class ScoreRoute(Route):
    """The output layer, which all of these share."""

    def output(self, params: Params, layers: Layers) -> Array:
        """Psi = W_{L+1} h_L + b_{L+1}, (d, n); without b_{L+1} where the network has none."""
        psi = layers.weights[-1] @ layers.h[-1]
        if not self.net.output_bias:
            return psi
        psi += params[f"layers.{len(layers.jets)}.bias"][:, None]
        return psi

    def finish(
        self, ops: Ops, layers: Layers, psi_bar: Array, z_bars: list[Array], weight_bars: dict[int, Array] | None = None
    ) -> Params:
        """All gradients, given the cotangents from beside the forward pass.

            h_bar_L     = W_{L+1}^T psi_bar, which goes through `Layers.pullback`
            W_bar_{L+1} = psi_bar h_L^T
            b_bar_{L+1} = sum_n psi_bar

        Args:
            ops: Operations.
            layers: The forward pass.
            psi_bar: (d, n).
            z_bars: c_1 ... c_L, (H_l, n) each.
            weight_bars: What is to be added to W_bar_{k+1}, of its shape, by k.
        """
        found = layers.pullback(ops, z_bars, matmul_t(ops, layers.weights[-1], psi_bar), self.transposed_weights)
        last = f"layers.{len(layers.jets)}"
        found[f"{last}.weight"] = psi_bar @ transposed(ops, layers.h[-1])
        for k, weight_bar in (weight_bars or {}).items():
            found[f"layers.{k}.weight"] += weight_bar
        if self.net.output_bias:
            found[f"{last}.bias"] = ops.sum(psi_bar, axis=1)
        return found


class OneHidden(ScoreRoute):
    """J = W2 diag(d1) W1: the diagonal is M d1 with M = W2 * W1^T, (d, H), and the divergence m . d1, m its column sums, (H,).

    Residuals: the forward pass, and M or m.
    """

    transposed_weights = ("layers.0.weight",)

    def precompute(self, ops: Ops, params: Params) -> tuple[Array, Array]:
        """M, (d, H), or m, (H,); and the W1^T in it, (d, H)."""
        first = copied_transpose(ops, params["layers.0.weight"])
        mix = params["layers.1.weight"] * first
        return (ops.sum(mix, axis=0) if self.trace else mix), first

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`; for the divergence each row of M_bar is m_bar.

        W1_bar^T = M_bar * W2
        W2_bar   = M_bar * W1^T
        """
        return {
            "layers.0.weight": precomputed_bar * params["layers.1.weight"],
            "layers.1.weight": precomputed_bar * precomputed[1],
        }

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, tuple[Layers, Array]]:
        """See `Route.forward`."""
        mix, first = precomputed
        layers = Layers.of(ops, self.net, params, x, order=2, first=first)
        d1 = layers.jets[0][1]
        second = row_times(mix, d1) if self.trace else mix @ d1
        return self.output(params, layers), second, (layers, mix)

    def pullback(self, ops: Ops, residuals: tuple[Layers, Array], psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`.

        c_1   = dd1 * (M^T second_bar)          divergence: dd1 * (m second_bar^T)
        M_bar = second_bar d1^T                 divergence: m_bar = sum_n d1 second_bar
        """
        layers, mix = residuals
        _, d1, dd1 = layers.jets[0]
        if not self.trace:
            z_bar = matmul_t(ops, mix, second_bar)
            z_bar *= dd1
            mix_bar = second_bar @ transposed(ops, d1)
        else:
            z_bar = mix[:, None] * dd1
            z_bar *= second_bar
            mix_bar = times_column(d1, second_bar)
        return {**self.finish(ops, layers, psi_bar, [z_bar]), PRECOMPUTED: mix_bar}


class _TwoHiddenResiduals(NamedTuple):
    """What the routes of two hidden layers keep.

    Attributes:
        layers: The forward pass, with two derivatives of sigma.
        mix: M, (H2, H1), or all M_i, (d H2, H1).
        u: u = M d1, (H2, n), or all u_i = M_i d1, (d, H2, n).
    """

    layers: Layers
    mix: Array
    u: Array


class TwoHiddenTrace(ScoreRoute):
    """Divergence d2 . u with u = M d1, M = W2 * T and T = (W1 W3)^T, (H2, H1): no factor d for a row."""

    def precompute(self, ops: Ops, params: Params) -> tuple[Array, Array]:
        """M and T, both (H2, H1)."""
        through = transposed(ops, params["layers.0.weight"] @ params["layers.2.weight"])
        return params["layers.1.weight"] * through, through

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`.

        T_bar^T = (M_bar * W2)^T                of W1 W3, (H1, H2)
        W1_bar  = T_bar^T W3^T
        W2_bar  = M_bar * T
        W3_bar  = W1^T T_bar^T
        """
        w1, w2, w3 = (params[f"layers.{k}.weight"] for k in range(3))
        _, through = precomputed
        product_bar = transposed(ops, precomputed_bar * w2)
        return {
            "layers.0.weight": product_bar @ transposed(ops, w3),
            "layers.1.weight": precomputed_bar * through,
            "layers.2.weight": transposed(ops, w1) @ product_bar,
        }

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, _TwoHiddenResiduals]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        mix, _ = precomputed
        u = mix @ layers.jets[0][1]
        divergence = ops.sum(u * layers.jets[1][1], axis=0)
        return self.output(params, layers), divergence, _TwoHiddenResiduals(layers, mix, u)

    def pullback(self, ops: Ops, residuals: _TwoHiddenResiduals, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`.

        u_bar = second_bar d2
        c_1   = dd1 * (M^T u_bar)
        c_2   = dd2 * (second_bar u)
        M_bar = u_bar d1^T
        """
        layers, mix, u = residuals
        (_, d1, dd1), (_, d2, dd2) = layers.jets
        u_bar = second_bar * d2
        z1_bar = matmul_t(ops, mix, u_bar)
        z1_bar *= dd1
        z2_bar = second_bar * u
        z2_bar *= dd2
        return {**self.finish(ops, layers, psi_bar, [z1_bar, z2_bar]), PRECOMPUTED: u_bar @ transposed(ops, d1)}


class TwoHiddenDiagonal(ScoreRoute):
    """J_ii = d2 . u_i with u_i = M_i d1, M_i = W2 * T_i and T_i = (W1[:, i] W3[i])^T, (H2, H1).

    The weights are scaled, once, and not the tangents of every row. The products take as long as those of `Tangents`; of
    fourteen passes over numbers (d, H, n) beside them five remain.
    """

    def precompute(self, ops: Ops, params: Params) -> tuple[Array, Array]:
        """All M_i, one below the other, (d H2, H1), and all T_i, (d, H2, H1)."""
        w1, w2, w3 = (params[f"layers.{k}.weight"] for k in range(3))
        through = w3[:, :, None] * copied_transpose(ops, w1)[:, None, :]
        return ops.reshape(through * w2, (w3.shape[0] * w3.shape[1], w2.shape[1])), through

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`; j counts the units of the first layer, k those of the second.

        T_bar_i      = M_bar_i * W2
        W1_bar[j, i] = sum_k T_bar_i[k, j] W3[i, k]
        W2_bar       = sum_i M_bar_i * T_i
        W3_bar[i, k] = sum_j T_bar_i[k, j] W1[j, i]
        """
        w1, w2, w3 = (params[f"layers.{k}.weight"] for k in range(3))
        _, through = precomputed
        mix_bar = ops.reshape(precomputed_bar, tuple(through.shape))
        through_bar = mix_bar * w2
        return {
            "layers.0.weight": transposed(ops, ops.sum(through_bar * w3[:, :, None], axis=1)),
            "layers.1.weight": ops.sum(mix_bar * through, axis=0),
            "layers.2.weight": ops.sum(through_bar * transposed(ops, w1)[:, None, :], axis=2),
        }

    def numbers_a_row(self, d: int) -> int:
        """See `Route.numbers_a_row`."""
        return 2 * d * self.net.hidden[1]

    def least_rows(self, d: int) -> int:
        """See `Route.least_rows`."""
        return 128

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, _TwoHiddenResiduals]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        mix, through = precomputed
        (_, d1, _), (_, d2, _) = layers.jets
        u = ops.reshape(mix @ d1, (through.shape[0], through.shape[1], d1.shape[1]))
        return self.output(params, layers), ops.sum(u * d2, axis=1), _TwoHiddenResiduals(layers, mix, u)

    def pullback(self, ops: Ops, residuals: _TwoHiddenResiduals, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`.

        u_bar_i = second_bar_i d2
        c_1     = dd1 * (sum_i M_i^T u_bar_i)
        c_2     = dd2 * (sum_i second_bar_i u_i)
        M_bar_i = u_bar_i d1^T
        """
        layers, mix, u = residuals
        (_, d1, dd1), (_, d2, dd2) = layers.jets
        bar = second_bar[:, None, :]
        u_bar = ops.reshape(bar * d2, (mix.shape[0], d1.shape[1]))
        z1_bar = matmul_t(ops, mix, u_bar)
        z1_bar *= dd1
        z2_bar = ops.sum(bar * u, axis=0) * dd2
        return {**self.finish(ops, layers, psi_bar, [z1_bar, z2_bar]), PRECOMPUTED: u_bar @ transposed(ops, d1)}

"""Closed formulas for networks that give the score itself."""

from __future__ import annotations

from typing import Any

from ismcore.analytic.routes import (
    PRECOMPUTED,
    Axes,
    Layers,
    Route,
    copied_transpose,
    flat,
    least_rows,
    matmul_t,
    row_times,
    times_column,
    transposed,
    unflat,
)
from ismcore.ops import Array, Ops, Params

__all__ = ["OneHidden", "PrecomputedTrace", "Tangents", "TwoHiddenDiagonal", "TwoHiddenTrace"]


class ScoreRoute(Route):
    """The output layer, which all of these share."""

    def output(self, params: Params, layers: Layers) -> Array:
        """Psi = W_{L+1} h_L + b_{L+1}, (d, n)."""
        psi = layers.weights[-1] @ layers.h[-1]
        psi += params[f"layers.{len(layers.jets)}.bias"][:, None]
        return psi

    def finish(
        self, ops: Ops, layers: Layers, psi_bar: Array, z_bars: list[Array], weight_bars: dict[int, Array] | None = None
    ) -> Params:
        """All gradients, given the cotangents of z_l and those of weights, by layer, from beside the forward pass."""
        found = layers.pullback(ops, z_bars, matmul_t(ops, layers.weights[-1], psi_bar), self.transposed_weights)
        last = f"layers.{len(layers.jets)}"
        found[f"{last}.weight"] = psi_bar @ transposed(ops, layers.h[-1])
        for k, weight_bar in (weight_bars or {}).items():
            found[f"layers.{k}.weight"] += weight_bar
        found[f"{last}.bias"] = ops.sum(psi_bar, axis=1)
        return found


class OneHidden(ScoreRoute):
    """J = W2 diag(d1) W1: the diagonal is (W2 * W1^T) d1, and the divergence the product of its column sums with d1."""

    transposed_weights = ("layers.0.weight",)

    def precompute(self, ops: Ops, params: Params) -> tuple[Array, Array]:
        """W2 * W1^T, (d, H), or its column sums, (H,); and the W1^T in it."""
        first = copied_transpose(ops, params["layers.0.weight"])
        mix = params["layers.1.weight"] * first
        return (ops.sum(mix, axis=0) if self.trace else mix), first

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`."""
        return {
            "layers.0.weight": precomputed_bar * params["layers.1.weight"],
            "layers.1.weight": precomputed_bar * precomputed[1],
        }

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        mix, first = precomputed
        layers = Layers.of(ops, self.net, params, x, order=2, first=first)
        d1 = layers.jets[0][1]
        second = row_times(mix, d1) if self.trace else mix @ d1
        return self.output(params, layers), second, (layers, mix)

    def pullback(self, ops: Ops, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, mix = residuals
        _, d1, d2 = layers.jets[0]
        if not self.trace:
            z_bar = matmul_t(ops, mix, second_bar)
            z_bar *= d2
            mix_bar = second_bar @ transposed(ops, d1)
        else:
            z_bar = mix[:, None] * d2
            z_bar *= second_bar
            mix_bar = times_column(d1, second_bar)
        return {**self.finish(ops, layers, psi_bar, [z_bar]), PRECOMPUTED: mix_bar}


class TwoHiddenTrace(ScoreRoute):
    """Divergence d2^T M d1 with M = W2 * (W1 W3)^T: no factor d for a row."""

    def precompute(self, ops: Ops, params: Params) -> tuple[Array, Array]:
        """M, and the (W1 W3)^T in it, both (H2, H1)."""
        through = transposed(ops, params["layers.0.weight"] @ params["layers.2.weight"])
        return params["layers.1.weight"] * through, through

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`."""
        w1, w2, w3 = (params[f"layers.{k}.weight"] for k in range(3))
        _, through = precomputed
        through_bar = transposed(ops, precomputed_bar * w2)
        return {
            "layers.0.weight": through_bar @ transposed(ops, w3),
            "layers.1.weight": precomputed_bar * through,
            "layers.2.weight": transposed(ops, w1) @ through_bar,
        }

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        mix, _ = precomputed
        carried = mix @ layers.jets[0][1]
        return self.output(params, layers), ops.sum(carried * layers.jets[1][1], axis=0), (layers, mix, carried)

    def pullback(self, ops: Ops, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, mix, carried = residuals
        (_, d1, dd1), (_, d2, dd2) = layers.jets
        weighted = second_bar * d2
        z1_bar = matmul_t(ops, mix, weighted)
        z1_bar *= dd1
        z2_bar = second_bar * carried
        z2_bar *= dd2
        return {**self.finish(ops, layers, psi_bar, [z1_bar, z2_bar]), PRECOMPUTED: weighted @ transposed(ops, d1)}


class TwoHiddenDiagonal(ScoreRoute):
    """J_ii = d2^T M_i d1 with M_i = W2 * (W1[:, i] W3[i])^T: the weights are scaled, once, and not the tangents of every row.

    The products take as long as those of `Tangents`; of fourteen passes over numbers (d, H, n) beside them five remain.
    """

    def precompute(self, ops: Ops, params: Params) -> tuple[Array, Array]:
        """All M_i, one below the other, (d H2, H1), and the (W1[:, i] W3[i])^T in them, (d, H2, H1)."""
        w1, w2, w3 = (params[f"layers.{k}.weight"] for k in range(3))
        through = w3[:, :, None] * copied_transpose(ops, w1)[:, None, :]
        return ops.reshape(through * w2, (w3.shape[0] * w3.shape[1], w2.shape[1])), through

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`."""
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

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        mix, through = precomputed
        (_, d1, _), (_, d2, _) = layers.jets
        carried = ops.reshape(mix @ d1, (through.shape[0], through.shape[1], d1.shape[1]))
        return self.output(params, layers), ops.sum(carried * d2, axis=1), (layers, mix, carried)

    def pullback(self, ops: Ops, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, mix, carried = residuals
        (_, d1, dd1), (_, d2, dd2) = layers.jets
        bar = second_bar[:, None, :]
        weighted = ops.reshape(bar * d2, (mix.shape[0], d1.shape[1]))
        z1_bar = matmul_t(ops, mix, weighted)
        z1_bar *= dd1
        z2_bar = ops.sum(bar * carried, axis=0) * dd2
        return {**self.finish(ops, layers, psi_bar, [z1_bar, z2_bar]), PRECOMPUTED: weighted @ transposed(ops, d1)}


class TangentRoute(ScoreRoute):
    """Tangents T_l that go from a layer on: T_l = d_l * (W_l T_{l-1}); what the two families below share."""

    @staticmethod
    def push(ops: Ops, layers: Layers, axes: Axes, first: int, tangents: Array) -> tuple[list[Array], list[Array]]:
        """All W_l T_{l-1} after layer `first`, and all T_l from it on."""
        before, after = [], [tangents]
        for weight, jet in zip(layers.weights[first + 1 : -1], layers.jets[first + 1 :], strict=True):
            before.append(unflat(ops, weight @ flat(ops, after[-1]), after[-1]))
            after.append(axes.of_rows(jet[1]) * before[-1])
        return before, after

    @staticmethod
    def pull(
        ops: Ops, layers: Layers, axes: Axes, first: int, before: list[Array], after: list[Array], bar: Array
    ) -> tuple[Array, list[Array], dict[int, Array]]:
        """Given the cotangent of the last T: that of T_first, those of the later z_l, and of the weights between."""
        z_bars: list[Array] = []
        weight_bars: dict[int, Array] = {}
        for k in reversed(range(first + 1, len(layers.jets))):
            _, d, dd = layers.jets[k]
            at = k - first - 1
            z_bars.insert(0, ops.sum(bar * before[at], axis=axes.directions) * dd)
            before_bar = flat(ops, axes.of_rows(d) * bar)
            weight_bars[k] = before_bar @ transposed(ops, flat(ops, after[at]))
            bar = unflat(ops, matmul_t(ops, layers.weights[k], before_bar), after[at])
        return bar, z_bars, weight_bars


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

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        axes = Axes.of(*x.shape)
        first = axes.of_rows(layers.jets[0][1]) * axes.of_directions(layers.weights[0])
        before, after = self.push(ops, layers, axes, 0, first)
        last = axes.of_directions(copied_transpose(ops, layers.weights[-1]))
        diagonal = axes.arranged(ops, ops.sum(after[-1] * last, axis=0))
        second = ops.sum(diagonal, axis=0) if self.trace else diagonal
        return self.output(params, layers), second, (layers, axes, last, before, after)

    def pullback(self, ops: Ops, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, axes, last, before, after = residuals
        _, d1, dd1 = layers.jets[0]
        if not self.trace:
            second_bar = axes.arranged(ops, second_bar)
        else:
            second_bar = axes.of_rows(second_bar[None, :])
        last_bar = transposed(ops, ops.sum(second_bar * after[-1], axis=axes.rows))
        bar, z_bars, weight_bars = self.pull(ops, layers, axes, 0, before, after, second_bar * last)
        z_bar = ops.sum(bar * axes.of_directions(layers.weights[0]), axis=axes.directions) * dd1
        weight_bars[0] = ops.sum(bar * axes.of_rows(d1), axis=axes.rows)
        weight_bars[len(layers.jets)] = last_bar
        return self.finish(ops, layers, psi_bar, [z_bar, *z_bars], weight_bars)


class PrecomputedTrace(TangentRoute):
    """Divergence for d above the widths, with one tangent for each unit of the first layer.

    tr(W_{L+1} D_L ... W_2 D_1 W_1) = tr(D_L ... W_2 D_1 (W_1 W_{L+1})), the product in brackets being found once.
    """

    def precompute(self, ops: Ops, params: Params) -> Array:
        """W_1 W_{L+1}, (H1, HL)."""
        return params["layers.0.weight"] @ params[f"layers.{len(self.net.hidden)}.weight"]

    def pullback_precomputed(self, ops: Ops, params: Params, precomputed: Any, precomputed_bar: Array) -> Params:
        """See `Route.pullback_precomputed`."""
        first, last = "layers.0.weight", f"layers.{len(self.net.hidden)}.weight"
        return {first: precomputed_bar @ transposed(ops, params[last]), last: transposed(ops, params[first]) @ precomputed_bar}

    def numbers_a_row(self, d: int) -> int:
        """See `Route.numbers_a_row`."""
        return 4 * self.net.hidden[0] * sum(self.net.hidden[1:]) + 4 * d

    def least_rows(self, d: int) -> int:
        """See `Route.least_rows`."""
        return least_rows(self.net.hidden[0])

    def forward(self, ops: Ops, params: Params, precomputed: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        d1, d2 = layers.jets[0][1], layers.jets[1][1]
        axes = Axes.of(*d1.shape)
        start = axes.of_directions(layers.weights[1]) * axes.arranged(ops, d1)
        before, after = self.push(ops, layers, axes, 1, axes.of_rows(d2) * start)
        through = axes.of_directions(copied_transpose(ops, precomputed))
        divergence = ops.sum(axes.arranged(ops, ops.sum(after[-1] * through, axis=0)), axis=0)
        return self.output(params, layers), divergence, (layers, axes, through, start, before, after)

    def pullback(self, ops: Ops, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, axes, through, start, before, after = residuals
        (_, d1, dd1), (_, d2, dd2) = layers.jets[:2]
        second_bar = axes.of_rows(second_bar[None, :])
        through_bar = transposed(ops, ops.sum(second_bar * after[-1], axis=axes.rows))
        bar, z_bars, weight_bars = self.pull(ops, layers, axes, 1, before, after, second_bar * through)
        z2_bar = ops.sum(bar * start, axis=axes.directions) * dd2
        start_bar = axes.of_rows(d2) * bar
        z1_bar = axes.arranged(ops, ops.sum(start_bar * axes.of_directions(layers.weights[1]), axis=0)) * dd1
        weight_bars[1] = ops.sum(start_bar * axes.arranged(ops, d1), axis=axes.rows)
        return {**self.finish(ops, layers, psi_bar, [z1_bar, z2_bar, *z_bars], weight_bars), PRECOMPUTED: through_bar}

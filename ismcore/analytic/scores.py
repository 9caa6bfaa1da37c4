"""Closed formulas for networks that give the score itself."""

from __future__ import annotations

from typing import Any

from ismcore.analytic.routes import FOLDED, Layers, Route, outer, transposed
from ismcore.ops import Array, Ops
from ismcore.problem import Params

__all__ = ["FoldedTrace", "OneHidden", "Tangents", "TwoHiddenTrace"]


class ScoreRoute(Route):
    """The output layer, which all of these share."""

    def output(self, ops: Ops, params: Params, layers: Layers) -> Array:
        """Psi = W_{L+1} h_L + b_{L+1}, (n, d)."""
        return layers.h[-1] @ transposed(ops, layers.weights[-1]) + params[f"layers.{len(layers.jets)}.bias"]

    def finish(
        self, ops: Ops, layers: Layers, psi_bar: Array, d_bars: list[Array], weight_bars: dict[int, Array] | None = None
    ) -> Params:
        """All gradients, given the cotangents of sigma'(z_l) and those of weights, by layer, beside the forward pass."""
        z_bars = [d_bar * jet[2] for d_bar, jet in zip(d_bars, layers.jets, strict=True)]
        found = layers.pullback(ops, z_bars, psi_bar @ layers.weights[-1])
        last = f"layers.{len(layers.jets)}"
        found[f"{last}.weight"] = transposed(ops, psi_bar) @ layers.h[-1]
        for k, weight_bar in (weight_bars or {}).items():
            found[f"layers.{k}.weight"] = found[f"layers.{k}.weight"] + weight_bar
        found[f"{last}.bias"] = ops.sum(psi_bar, axis=0)
        return found


class OneHidden(ScoreRoute):
    """J = W2 diag(d1) W1: the diagonal is d1 @ (W1 * W2^T), and the divergence d1 @ its row sums."""

    def fold(self, ops: Ops, params: Params) -> Array:
        """W1 * W2^T, (H, d), or its row sums, (H,)."""
        mix = params["layers.0.weight"] * transposed(ops, params["layers.1.weight"])
        return ops.sum(mix, axis=1) if self.trace else mix

    def unfold(self, ops: Ops, params: Params, folded: Any, folded_bar: Array) -> Params:
        """See `Route.unfold`."""
        mix_bar = folded_bar[:, None] if self.trace else folded_bar
        first, last = params["layers.0.weight"], params["layers.1.weight"]
        return {"layers.0.weight": mix_bar * transposed(ops, last), "layers.1.weight": transposed(ops, mix_bar * first)}

    def forward(self, ops: Ops, params: Params, folded: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        return self.output(ops, params, layers), layers.jets[0][1] @ folded, (layers, folded)

    def pullback(self, ops: Ops, params: Params, x: Array, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, mix = residuals
        d1 = layers.jets[0][1]
        if self.trace:
            d1_bar = second_bar[:, None] * mix
            mix_bar = second_bar @ d1
        else:
            d1_bar = second_bar @ transposed(ops, mix)
            mix_bar = transposed(ops, d1) @ second_bar
        return {**self.finish(ops, layers, psi_bar, [d1_bar]), FOLDED: mix_bar}


class TwoHiddenTrace(ScoreRoute):
    """Divergence d2^T M d1 with M = W2 * (W1 W3)^T: no factor d for a row."""

    def fold(self, ops: Ops, params: Params) -> tuple[Array, Array]:
        """M, and the (W1 W3)^T in it, both (H2, H1)."""
        through = transposed(ops, params["layers.0.weight"] @ params["layers.2.weight"])
        return params["layers.1.weight"] * through, through

    def unfold(self, ops: Ops, params: Params, folded: Any, folded_bar: Array) -> Params:
        """See `Route.unfold`."""
        w1, w2, w3 = (params[f"layers.{k}.weight"] for k in range(3))
        _, through = folded
        through_bar = transposed(ops, folded_bar * w2)
        return {
            "layers.0.weight": through_bar @ transposed(ops, w3),
            "layers.1.weight": folded_bar * through,
            "layers.2.weight": transposed(ops, w1) @ through_bar,
        }

    def forward(self, ops: Ops, params: Params, folded: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        mix, _ = folded
        carried = layers.jets[0][1] @ transposed(ops, mix)
        divergence = ops.sum(carried * layers.jets[1][1], axis=1)
        return self.output(ops, params, layers), divergence, (layers, mix, carried)

    def pullback(self, ops: Ops, params: Params, x: Array, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, mix, carried = residuals
        weighted = second_bar[:, None] * layers.jets[1][1]
        mix_bar = transposed(ops, weighted) @ layers.jets[0][1]
        d_bars = [weighted @ mix, second_bar[:, None] * carried]
        return {**self.finish(ops, layers, psi_bar, d_bars), FOLDED: mix_bar}


class Tangents(ScoreRoute):
    """Any depth, by the tangents T_l[n, i] = d h_l / d x_i.

    T_1 = d1 * W1^T for every row; T_l = d_l * (T_{l-1} W_l^T); J_ii = T_L[i] . W_{L+1}[i].
    """

    def numbers_a_row(self, d: int) -> int:
        """See `Route.numbers_a_row`."""
        return 4 * d * sum(self.net.hidden)

    def directions(self, d: int) -> int:
        """See `Route.directions`."""
        return d

    def forward(self, ops: Ops, params: Params, folded: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        d_first = layers.jets[0][1]
        before = [transposed(ops, layers.weights[0])[None]]
        tangents = [d_first[:, None, :] * before[0]]
        for weight, jet in zip(layers.weights[1:-1], layers.jets[1:], strict=True):
            before.append(tangents[-1] @ transposed(ops, weight))
            tangents.append(jet[1][:, None, :] * before[-1])
        diagonal = ops.sum(tangents[-1] * layers.weights[-1][None], axis=2)
        second = ops.sum(diagonal, axis=1) if self.trace else diagonal
        return self.output(ops, params, layers), second, (layers, before, tangents)

    def pullback(self, ops: Ops, params: Params, x: Array, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, before, tangents = residuals
        bar = second_bar[:, None, None] if self.trace else second_bar[:, :, None]
        weight_bars = {len(tangents): ops.sum(bar * tangents[-1], axis=0)}
        d_bars: list[Array] = []
        tangent_bar = bar * layers.weights[-1][None]
        for k in reversed(range(1, len(tangents))):
            d_bars.append(ops.sum(tangent_bar * before[k], axis=1))
            before_bar = layers.jets[k][1][:, None, :] * tangent_bar
            weight_bars[k] = outer(ops, before_bar, tangents[k - 1])
            tangent_bar = before_bar @ layers.weights[k]
        d_bars.append(ops.sum(tangent_bar * before[0], axis=1))
        weight_bars[0] = transposed(ops, ops.sum(tangent_bar * layers.jets[0][1][:, None, :], axis=0))
        return self.finish(ops, layers, psi_bar, d_bars[::-1], weight_bars)


class FoldedTrace(ScoreRoute):
    """Divergence for d above the widths, with one tangent for each unit of the first layer.

    tr(W_{L+1} D_L ... W_2 D_1 W_1) = tr(D_L ... W_2 D_1 (W_1 W_{L+1})), the product in brackets being found once.
    """

    def fold(self, ops: Ops, params: Params) -> Array:
        """W_1 W_{L+1}, (H1, HL)."""
        return params["layers.0.weight"] @ params[f"layers.{len(self.net.hidden)}.weight"]

    def unfold(self, ops: Ops, params: Params, folded: Any, folded_bar: Array) -> Params:
        """See `Route.unfold`."""
        first, last = "layers.0.weight", f"layers.{len(self.net.hidden)}.weight"
        return {first: folded_bar @ transposed(ops, params[last]), last: transposed(ops, params[first]) @ folded_bar}

    def numbers_a_row(self, d: int) -> int:
        """See `Route.numbers_a_row`."""
        return 4 * self.net.hidden[0] * sum(self.net.hidden[1:]) + 4 * d

    def directions(self, d: int) -> int:
        """See `Route.directions`."""
        return self.net.hidden[0]

    def forward(self, ops: Ops, params: Params, folded: Any, x: Array) -> tuple[Array, Array, Any]:
        """See `Route.forward`."""
        layers = Layers.of(ops, self.net, params, x, order=2)
        before = [layers.jets[0][1][:, :, None] * transposed(ops, layers.weights[1])[None]]
        tangents = [layers.jets[1][1][:, None, :] * before[0]]
        for weight, jet in zip(layers.weights[2:-1], layers.jets[2:], strict=True):
            before.append(tangents[-1] @ transposed(ops, weight))
            tangents.append(jet[1][:, None, :] * before[-1])
        divergence = ops.sum(ops.sum(tangents[-1] * folded[None], axis=2), axis=1)
        return self.output(ops, params, layers), divergence, (layers, folded, before, tangents)

    def pullback(self, ops: Ops, params: Params, x: Array, residuals: Any, psi_bar: Array, second_bar: Array) -> Params:
        """See `Route.pullback`."""
        layers, through, before, tangents = residuals
        bar = second_bar[:, None, None]
        through_bar = ops.sum(bar * tangents[-1], axis=0)
        weight_bars: dict[int, Array] = {}
        d_bars: list[Array] = []
        tangent_bar = bar * through[None]
        for k in reversed(range(1, len(tangents))):
            d_bars.append(ops.sum(tangent_bar * before[k], axis=1))
            before_bar = layers.jets[k + 1][1][:, None, :] * tangent_bar
            weight_bars[k + 1] = outer(ops, before_bar, tangents[k - 1])
            tangent_bar = before_bar @ layers.weights[k + 1]
        d_bars.append(ops.sum(tangent_bar * before[0], axis=1))
        before_bar = layers.jets[1][1][:, None, :] * tangent_bar
        second = transposed(ops, layers.weights[1])[None]
        d_bars.append(ops.sum(before_bar * second, axis=2))
        weight_bars[1] = transposed(ops, ops.sum(before_bar * layers.jets[0][1][:, :, None], axis=0))
        return {**self.finish(ops, layers, psi_bar, d_bars[::-1], weight_bars), FOLDED: through_bar}

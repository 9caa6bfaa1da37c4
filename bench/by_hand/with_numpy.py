"""The floor in NumPy: gradients derived by hand, no differentiation and no tape.

One hidden layer in one dimension is `Shallow`, with every buffer in place; any other network is `Deep`.
An energy is `Potential`, which serves as an answer alone: it is no floor.
"""

from __future__ import annotations

import numpy as np

from by_hand.potential import Potential

B1, B2, EPS = 0.9, 0.999, 1e-8


class Adam:
    """All parameters in one vector, with views by name."""

    def __init__(self, params, dtype, rate):
        sizes = np.cumsum([0, *(value.size for value in params.values())])
        self.rate = rate
        self.theta = np.concatenate([value.ravel() for value in params.values()]).astype(dtype)
        self.slope, self.m, self.v, self.t = (np.zeros_like(self.theta) for _ in range(4))
        self.step = 0
        places = list(zip(params.items(), sizes, sizes[1:], strict=False))
        self.params = {name: self.theta[a:b].reshape(value.shape) for (name, value), a, b in places}
        self.gradient = {name: self.slope[a:b].reshape(value.shape) for (name, value), a, b in places}

    def update(self):
        """One step along `gradient`, in place."""
        self.step += 1
        m, v, t, g = self.m, self.v, self.t, self.slope
        m *= B1
        m += np.multiply(g, 1.0 - B1, out=t)
        v *= B2
        g *= g
        g *= 1.0 - B2
        v += g
        np.multiply(v, 1.0 / (1.0 - B2**self.step), out=t)
        np.sqrt(t, out=t)
        t += EPS
        np.divide(m, t, out=t)
        t *= self.rate / (1.0 - B1**self.step)
        self.theta -= t


class Shallow:
    """One hidden layer of sigmoids, d = 1: all sums over rows are one product of [s, s^2, s^3] with [g, g x, q, q x].

    s' = s - s^2 and s'' = s - 3 s^2 + 2 s^3; g = psi / n and q = (1 + 2 lambda J) / n, as in floor.c.
    """

    BLOCK = 4096

    def __init__(self, case, dtype):
        self.weight, self.h, self.n = case.curvature_weight, case.hidden[0], len(case.x)
        rows = min(self.n, self.BLOCK)
        self.x = case.x[:, 0].astype(dtype)
        self.powers = np.empty((3 * self.h, rows), dtype)
        self.factors = np.empty((4, rows), dtype)

    def __call__(self, p, slope):
        w, b, a, c = p["layers.0.weight"][:, 0], p["layers.0.bias"], p["layers.1.weight"][0], p["layers.1.bias"][0]
        h, n = self.h, self.n
        aw = a * w
        outputs = np.zeros((2, 2 * h), w.dtype)
        outputs[0, :h], outputs[1, :h], outputs[1, h:] = a, aw, -aw
        sums, loss, dc = np.zeros((3 * h, 4), w.dtype), 0.0, 0.0
        for start in range(0, n, self.BLOCK):
            x = self.x[start : start + self.BLOCK]
            powers, (g, gx, q, qx) = self.powers[:, : len(x)], self.factors[:, : len(x)]
            s = powers[:h]
            np.multiply(-w[:, None], x, out=s)
            s -= b[:, None]
            np.exp(s, out=s)
            s += 1.0
            np.reciprocal(s, out=s)
            np.multiply(s, s, out=powers[h : 2 * h])
            np.multiply(s, powers[h : 2 * h], out=powers[2 * h :])
            psi, j = outputs @ powers[: 2 * h]
            psi += c
            loss += 0.5 * float(psi @ psi) + float(j.sum()) + self.weight * float(j @ j)
            np.multiply(psi, 1.0 / n, out=g)
            np.multiply(j, 2.0 * self.weight / n, out=q)
            q += 1.0 / n
            np.multiply(g, x, out=gx)
            np.multiply(q, x, out=qx)
            dc += float(g.sum())
            sums += powers @ self.factors[:, : len(x)].T
        one, two, three = sums[:h], sums[h : 2 * h], sums[2 * h :]
        first, second = one - two, one - 3.0 * two + 2.0 * three  # sums of s' and of s'' with the four factors
        slope["layers.1.bias"][:] = dc
        slope["layers.1.weight"][0] = one[:, 0] + w * first[:, 2]
        slope["layers.0.bias"][:] = a * first[:, 0] + aw * second[:, 2]
        slope["layers.0.weight"][:, 0] = a * (first[:, 1] + first[:, 2]) + aw * second[:, 3]
        return loss / n


def softplus_jet(z):
    """Softplus, its slope and its second derivative, finite for z of any size."""
    small = np.exp(-np.abs(z))
    s = np.where(z >= 0.0, 1.0, small) / (1.0 + small)
    return np.maximum(z, 0.0) + np.log1p(small), s, s * (1.0 - s)


def sigmoid_jet(z):
    s = 0.5 * (1.0 + np.tanh(0.5 * z))
    d1 = s * (1.0 - s)
    return s, d1, d1 * (1.0 - 2.0 * s)


JETS = {"softplus": softplus_jet, "sigmoid": sigmoid_jet}


class Deep:
    """Any number of hidden layers in any dimension; weights are (out, in), D_l = sigma'(z_l).

    One hidden layer: J = D1 @ (W1 * W2^T). Two, divergence alone: sum_k (D1 @ M * D2)_k with M = W2^T * (W1 @ W3). Else one
    column i after the other: A_1 = W1[:, i], T_l = D_l * A_l, A_{l+1} = T_l @ W_{l+1}^T, J_i = T_L @ Wout[i], and back again.
    """

    def __init__(self, case, dtype):
        self.x = case.x.astype(dtype)
        self.weight, self.jet, self.hidden = case.curvature_weight, JETS[case.activation], len(case.hidden)

    def __call__(self, p, slope):
        n, last = len(self.x), self.hidden
        weights = [p[f"layers.{k}.weight"] for k in range(last + 1)]
        inputs, firsts, seconds = [self.x], [], []
        for k in range(last):
            h, first, second = self.jet(inputs[-1] @ weights[k].T + p[f"layers.{k}.bias"])
            inputs.append(h)
            firsts.append(first)
            seconds.append(second)
        psi = inputs[-1] @ weights[last].T + p[f"layers.{last}.bias"]
        z_bar = psi * (1.0 / n)
        for k in range(last + 1):
            slope[f"layers.{k}.weight"][:] = 0.0
        total, first_bars = self._divergence(weights, firsts, slope)
        for k in range(last, -1, -1):
            slope[f"layers.{k}.weight"] += z_bar.T @ inputs[k]
            slope[f"layers.{k}.bias"][:] = z_bar.sum(axis=0)
            if k:
                z_bar = (z_bar @ weights[k]) * firsts[k - 1] + first_bars[k - 1] * seconds[k - 1]
        return (0.5 * float(np.sum(psi * psi)) + total) / n

    def _divergence(self, weights, firsts, slope):
        """Sum over rows of J_i + lambda J_i^2, and the cotangents of every D_l; those of the weights are added to `slope`."""
        if self.hidden == 1:
            return self._one(*weights, *firsts, slope)
        if self.hidden == 2 and not self.weight:
            return self._two(*weights, *firsts, slope)
        return self._columns(weights, firsts, slope)

    def _one(self, w1, w2, d1, slope):
        n, products = len(d1), w1 * w2.T
        if self.weight:
            j = d1 @ products
            q = (1.0 + 2.0 * self.weight * j) / n
            total, d1_bar, products_bar = np.sum(j + self.weight * j * j), q @ products.T, d1.T @ q
        else:
            c = products.sum(axis=1)
            total, d1_bar, products_bar = np.sum(d1 @ c), c * (1.0 / n), (d1.sum(axis=0) / n)[:, None]
        slope["layers.0.weight"] += products_bar * w2.T
        slope["layers.1.weight"] += (products_bar * w1).T
        return float(total), [d1_bar]

    def _two(self, w1, w2, w3, d1, d2, slope):
        n, around = len(d1), w1 @ w3
        m = w2.T * around
        t = d1 @ m
        t_bar = d2 * (1.0 / n)
        m_bar = d1.T @ t_bar
        around_bar = m_bar * w2.T
        slope["layers.0.weight"] += around_bar @ w3.T
        slope["layers.1.weight"] += (m_bar * around).T
        slope["layers.2.weight"] += w1.T @ around_bar
        return float(np.sum(t * d2)), [t_bar @ m.T, t * (1.0 / n)]

    def _columns(self, weights, firsts, slope):
        n, last, total = len(self.x), self.hidden, 0.0
        bars = [np.zeros_like(first) for first in firsts]
        for i in range(self.x.shape[1]):
            a, t = [np.broadcast_to(weights[0][:, i], firsts[0].shape)], []
            for k in range(last):
                t.append(firsts[k] * a[k])
                if k < last - 1:
                    a.append(t[k] @ weights[k + 1].T)
            j = t[-1] @ weights[last][i]
            total += float(np.sum(j + self.weight * j * j))
            q = (1.0 + 2.0 * self.weight * j) / n
            slope[f"layers.{last}.weight"][i] += q @ t[-1]
            t_bar = np.outer(q, weights[last][i])
            for k in range(last - 1, -1, -1):
                bars[k] += t_bar * a[k]
                t_bar *= firsts[k]  # now the cotangent of a[k]
                if k:
                    slope[f"layers.{k}.weight"] += t_bar.T @ t[k - 1]
                    t_bar = t_bar @ weights[k]
            slope["layers.0.weight"][:, i] += t_bar.sum(axis=0)
        return total, bars


def loss_and_gradient(case, dtype):
    """(parameters, arrays to write the gradient into) -> loss."""
    if case.energy:
        return Potential(case, dtype)
    shallow = case.d == 1 and len(case.hidden) == 1 and case.activation == "sigmoid"
    return Shallow(case, dtype) if shallow else Deep(case, dtype)


def prepare(case, dtype, device="cpu"):
    """For every network of the table."""
    evaluate = loss_and_gradient(case, dtype)

    def run(epochs):
        adam, losses = Adam(case.params, dtype, case.rate), np.empty(epochs)
        for epoch in range(epochs):
            losses[epoch] = evaluate(adam.params, adam.gradient)
            adam.update()
        return losses

    return {"NumPy": run}

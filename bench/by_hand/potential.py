"""Exact loss of an energy in NumPy, and its gradient derived by hand."""

from __future__ import annotations

import numpy as np


class Potential:
    """Softplus layers and a scalar output U: psi = - grad U, loss 1/2 |grad U|^2 - lap U.

    What passes through the layers is a jet, (d + 2, n, width): the d partial derivatives, the Laplacian, the value. A layer's
    weights take it to that of z, and with s' = sigmoid(z)

        d_i h = s' d_i z,    lap h = s' lap z + s'' sum_i (d_i z)^2,    h = softplus(z).
    """

    def __init__(self, case, dtype):
        assert case.activation == "softplus"
        assert not case.curvature_weight
        n, d = case.x.shape
        self.jet = np.zeros((d + 2, n, d), dtype)
        self.jet[-1] = case.x
        for i in range(d):
            self.jet[i, :, i] = 1.0

    def __call__(self, p, slope):
        last = len(p) // 2 - 1
        jets, inner = [self.jet], []
        for k in range(last):
            inner.append(self._linear(p, k, jets[k]))
            jets.append(activated(inner[k]))
        u = self._linear(p, last, jets[last])
        n = u.shape[1]
        bar = np.zeros_like(u)
        bar[:-2], bar[-2] = u[:-2] / n, -1.0 / n
        for k in range(last, -1, -1):
            slope[f"layers.{k}.weight"][:] = np.einsum("jno,jni->oi", bar, jets[k], optimize=True)
            slope[f"layers.{k}.bias"][:] = bar[-1].sum(axis=0)
            if k:
                bar = pulled_back(inner[k - 1], bar @ p[f"layers.{k}.weight"])
        return float(0.5 * np.sum(u[:-2] ** 2) - np.sum(u[-2])) / n

    def _linear(self, p, k, jet):
        z = jet @ p[f"layers.{k}.weight"].T
        z[-1] += p[f"layers.{k}.bias"]
        return z


def activated(z):
    """The jet of softplus(z)."""
    first = sigmoid(z[-1])
    h = first * z
    h[-2] += first * (1.0 - first) * np.sum(z[:-2] ** 2, axis=0)
    h[-1] = np.logaddexp(0.0, z[-1])
    return h


def pulled_back(z, bar):
    """The cotangent of the jet z, from that of the jet of softplus(z)."""
    first = sigmoid(z[-1])
    second = first * (1.0 - first)
    third = second * (1.0 - 2.0 * first)
    squares = np.sum(z[:-2] ** 2, axis=0)
    found = first * bar
    found[:-2] += 2.0 * second * bar[-2] * z[:-2]
    found[-1] += second * np.sum(bar[:-1] * z[:-1], axis=0) + third * bar[-2] * squares
    return found


def sigmoid(z):
    return 0.5 * (1.0 + np.tanh(0.5 * z))

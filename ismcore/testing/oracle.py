"""Answers that no differentiation library had a hand in: recurrences in NumPy, complex steps, optimisers by the book.

A `Formula` gives a score and its whole Jacobian, both written out by hand, and takes complex parameters. An objective follows
from these two alone (`ismcore.testing.losses`), and its gradient in a parameter p from a complex step:
f(p + i h) = f(p) + i h f'(p) + O(h^2), so f'(p) = Im f(p + i h) / h with h = 1e-30 has no error but rounding (Squire & Trapp
1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from ismcore.ops import Params
from ismcore.optimizers.rules import SGD, Adam, Optimizer
from ismcore.optimizers.state import STATE_PARTS, TrainState

__all__ = ["Formula", "affine", "affine_minimum", "conditional", "energy", "gradient", "mlp", "residual", "train"]

Formula = Callable[..., tuple[np.ndarray, np.ndarray]]
"""(params, x), or (params, x, context) -> score (n, d) and Jacobian (n, d, d), [sample, output, input]."""

H = 1e-30


def _erf(z: np.ndarray) -> np.ndarray:
    """Error function to first order in the imaginary part, which is all that a step of 1e-30 leaves."""
    real = np.vectorize(math.erf, otypes=[float])(z.real)
    return np.asarray(real + 1j * z.imag * (2.0 / math.sqrt(math.pi)) * np.exp(-(z.real**2)))


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def _softplus(z: np.ndarray) -> np.ndarray:
    positive = z.real > 0.0
    return np.where(positive, z, 0.0) + np.log1p(np.exp(np.where(positive, -z, z)))


def _gelu(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    normal = 0.5 * (1.0 + _erf(z * math.sqrt(0.5)))
    return z * normal, normal + z * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _gelu_tanh(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    c = math.sqrt(2.0 / math.pi)
    t = np.tanh(c * (z + 0.044715 * z**3))
    return 0.5 * z * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * z * z)


def _gelu_tanh_bend(z: np.ndarray) -> np.ndarray:
    """With t = tanh(u), u = c (z + k z^3): t' = (1 - t^2) u', t'' = (1 - t^2) (u'' - 2 t u'^2), and the value 1/2 z (1 + t)."""
    c, k = math.sqrt(2.0 / math.pi), 0.044715
    t, u1, u2 = np.tanh(c * (z + k * z**3)), c * (1.0 + 3.0 * k * z * z), 6.0 * c * k * z
    return np.asarray((1.0 - t * t) * (u1 + 0.5 * z * (u2 - 2.0 * t * u1 * u1)))


def _relu(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(z.real > 0.0, z, 0.0), np.where(z.real > 0.0, 1.0, 0.0) + 0.0 * z


SLOPES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "sigmoid": lambda z: (_sigmoid(z), _sigmoid(z) * _sigmoid(-z)),
    "tanh": lambda z: (np.tanh(z), 1.0 - np.tanh(z) ** 2),
    "softplus": lambda z: (_softplus(z), _sigmoid(z)),
    "silu": lambda z: (z * _sigmoid(z), _sigmoid(z) * (1.0 + z * _sigmoid(-z))),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
}
"""Activations and their first derivatives, by name, for complex arguments."""

BENDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": lambda z: -2.0 * np.tanh(z) * (1.0 - np.tanh(z) ** 2),
    "softplus": lambda z: _sigmoid(z) * _sigmoid(-z),
    "sigmoid": lambda z: _sigmoid(z) * _sigmoid(-z) * (1.0 - 2.0 * _sigmoid(z)),
    "silu": lambda z: _sigmoid(z) * _sigmoid(-z) * (2.0 + z * (1.0 - 2.0 * _sigmoid(z))),
    "gelu": lambda z: (2.0 - z * z) * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi),
    "gelu_tanh": _gelu_tanh_bend,
    "relu": lambda z: 0.0 * z,
}
"""Second derivatives."""


def mlp(activation: str) -> Formula:
    """Score network and Jacobian by the forward recurrence J_l = diag(sigma'(z_l)) W_l J_{l-1}, J_0 = 1."""
    slope = SLOPES[activation]

    def formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        layers = len(params) // 2
        h, jacobian = x, np.broadcast_to(np.eye(x.shape[1]), (len(x), x.shape[1], x.shape[1]))
        for layer in range(layers):
            weight = params[f"layers.{layer}.weight"]
            z, jacobian = h @ weight.T + params[f"layers.{layer}.bias"], weight @ jacobian
            if layer < layers - 1:
                h, derivative = slope(z.astype(complex))
                jacobian = derivative[:, :, None] * jacobian
        return z, jacobian

    return formula


def energy(activation: str) -> Formula:
    """Minus gradient and minus Hessian of a network of scalar output, by forward recurrences of second order.

    With T = dh/dx and S = d^2h/dx^2 of a layer's input, z = W h + b has the derivatives W T and W S, and sigma(z) has
    sigma'(z) W T and sigma'(z) W S + sigma''(z) (W T)(W T)^T. The library goes through the layers the other way.
    """
    slope, bend = SLOPES[activation], BENDS[activation]

    def formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (n, d), layers = x.shape, len(params) // 2
        h, first, second = x, np.broadcast_to(np.eye(d), (n, d, d)), np.zeros((n, d, d, d))
        for layer in range(layers):
            weight = params[f"layers.{layer}.weight"]
            z = np.asarray(h @ weight.T + params[f"layers.{layer}.bias"], dtype=complex)
            first, second = np.einsum("ok,nkj->noj", weight, first), np.einsum("ok,nkij->noij", weight, second)
            if layer < layers - 1:
                h, derivative = slope(z)
                outer = first[:, :, :, None] * first[:, :, None, :]
                second = derivative[:, :, None, None] * second + bend(z)[:, :, None, None] * outer
                first = derivative[:, :, None] * first
        return -first[:, 0], -second[:, 0]

    return formula


def residual(activation: str) -> Formula:
    """Residual network and Jacobian by forward recurrences: h += W2 sigma(W1 sigma(h) + b1) + b2 in each block."""
    slope = SLOPES[activation]

    def formula(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        def layer(name: str, h: np.ndarray, jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            weight = params[f"{name}.weight"]
            return h @ weight.T + params[f"{name}.bias"], np.einsum("ok,nkj->noj", weight, jacobian)

        def bent(h: np.ndarray, jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            value, derivative = slope(h.astype(complex))
            return value, derivative[:, :, None] * jacobian

        h, jacobian = layer("input", x, np.broadcast_to(np.eye(x.shape[1]), (len(x), x.shape[1], x.shape[1])))
        for k in range((len(params) - 4) // 4):
            inner = layer(f"blocks.{k}.0", *bent(h, jacobian))
            step, turn = layer(f"blocks.{k}.1", *bent(*inner))
            h, jacobian = h + step, jacobian + turn
        return layer("output", *bent(h, jacobian))

    return formula


def conditional(net: Formula) -> Formula:
    """psi(x; s) = net([x, log s]) / s, and its Jacobian in x alone."""

    def formula(params: Params, x: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        psi, jacobian = net(params, np.hstack([x, np.log(scale)]))
        return psi / scale, jacobian[:, :, : x.shape[1]] / scale[:, :, None]

    return formula


def affine(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """psi(x) = weight x + bias, whose Jacobian is the weight."""
    return x @ params["weight"].T + params["bias"], np.broadcast_to(params["weight"], (len(x), *params["weight"].shape))


def affine_minimum(x: np.ndarray, curvature_weight: float) -> Params:
    """Minimiser of J_lambda over affine scores: bias = -A m, and row i of A solves (S + 2 lambda e_i e_i^T) a_i = -e_i.

    m and S are the sample's mean and its covariance, divided by n. Setting the gradient of
    sum_i [ 1/2 a_i^T S a_i + a_ii + lambda a_ii^2 ] to zero gives it.
    """
    mean, covariance = x.mean(axis=0), np.cov(x.T, bias=True).reshape(x.shape[1], x.shape[1])
    weight = np.empty_like(covariance)
    for i, unit in enumerate(np.eye(x.shape[1])):
        weight[i] = np.linalg.solve(covariance + 2.0 * curvature_weight * np.outer(unit, unit), -unit)
    return {"weight": weight, "bias": -weight @ mean}


def gradient(loss: Callable[[Params], complex], params: Params) -> Params:
    """Gradient of a loss in every parameter, by complex steps."""
    moved = {name: np.array(value, dtype=complex) for name, value in params.items()}
    slopes = {name: np.empty(np.shape(value)) for name, value in params.items()}
    for name, at in moved.items():
        for index in np.ndindex(at.shape):
            at[index] += 1j * H
            slopes[name][index] = loss(moved).imag / H
            at[index] = at[index].real
    return slopes


def train(
    optimizer: Optimizer,
    state: TrainState,
    rates: Iterable[float],
    value_and_grad: Callable[[Params, int], tuple[float, Params]],
    *,
    clip_norm: float = np.inf,
    decays: Callable[[int], float] | None = None,
) -> tuple[np.ndarray, TrainState]:
    """Losses, each before its update, and the state that the steps lead to, in float64; the loss may differ from step to step.

    Steps are counted from 0, where training began, as `Problem.draws` counts them.

    Args:
        optimizer: The rule.
        state: Where to begin.
        rates: One learning rate a step.
        value_and_grad: (params, step) -> loss and gradient.
        clip_norm: The length that a longer gradient, all parameters in one vector, is scaled down to.
        decays: Share of the moving average that a step keeps, by the step's number.
    """
    losses, t = [], state.step
    params, first, second, average = ({**getattr(state, part)} for part in STATE_PARTS)
    for rate in rates:
        value, slopes = value_and_grad(params, t)
        losses.append(value)
        length = math.sqrt(sum(float(np.sum(g**2)) for g in slopes.values()))
        slopes = {name: g * min(1.0, clip_norm / length) if length else g for name, g in slopes.items()}
        t += 1
        for name, g in slopes.items():
            direction = g
            if isinstance(optimizer, Adam):  # Kingma & Ba (2015), algorithm 1
                first[name] = optimizer.b1 * first[name] + (1 - optimizer.b1) * g
                second[name] = optimizer.b2 * second[name] + (1 - optimizer.b2) * g**2
                unbiased = second[name] / (1 - optimizer.b2**t)
                direction = first[name] / (1 - optimizer.b1**t) / (np.sqrt(unbiased) + optimizer.eps)
            elif isinstance(optimizer, SGD) and optimizer.momentum:
                direction = first[name] = optimizer.momentum * first[name] + g
            params[name] = params[name] - rate * direction
        if decays is not None:
            keep = decays(t - 1)
            average = {name: keep * value + (1 - keep) * params[name] for name, value in average.items()}
    return np.array(losses), TrainState(t, params, first, second, average)

"""What a careful user writes in HIPS-autograd: nested elementwise_grad, and Adam in NumPy."""

from __future__ import annotations

import autograd.numpy as np
import numpy
from autograd import elementwise_grad, value_and_grad

from by_hand.with_numpy import B1, B2, EPS

ACTIVATIONS = {
    "sigmoid": lambda z: 0.5 * (1.0 + np.tanh(0.5 * z)),
    "softplus": lambda z: np.logaddexp(z, 0.0),
    "tanh": np.tanh,
}


def forward(params, x, activation):
    layers = len(params) // 2
    for k in range(layers):
        x = np.dot(x, params[f"layers.{k}.weight"].T) + params[f"layers.{k}.bias"]
        x = activation(x) if k < layers - 1 else x
    return x


def nested(params, x, activation, weight):
    """The loss; a sum times 1/n, since the mean of autograd sends float64 back through a float32 program."""
    psi = forward(params, x, activation)
    total = 0.5 * np.sum(psi**2)
    for i in range(x.shape[1]):
        column = elementwise_grad(lambda at, i=i: forward(params, at, activation)[:, i])(x)[:, i]
        total = total + np.sum(column + weight * column**2 if weight else column)
    return total * (1.0 / len(x))


def square(params, x, activation, weight):
    """The squared score alone."""
    return 0.5 * np.sum(forward(params, x, activation) ** 2) * (1.0 / len(x))


def prepare(case, dtype, device="cpu"):
    x = case.x.astype(dtype)

    def loop(loss_of):
        loss_and_gradient = value_and_grad(loss_of)

        def run(epochs):
            params = {name: value.astype(dtype) for name, value in case.params.items()}
            first, second = ({name: numpy.zeros_like(value) for name, value in params.items()} for _ in range(2))
            losses = numpy.empty(epochs)
            for epoch in range(epochs):
                losses[epoch], slope = loss_and_gradient(params, x, ACTIVATIONS[case.activation], case.curvature_weight)
                for name, g in slope.items():
                    first[name] = B1 * first[name] + (1.0 - B1) * g
                    second[name] = B2 * second[name] + (1.0 - B2) * g * g
                    m, v = first[name] / (1.0 - B1 ** (epoch + 1)), second[name] / (1.0 - B2 ** (epoch + 1))
                    params[name] = params[name] - case.rate * m / (numpy.sqrt(v) + EPS)
            return losses

        return run

    found = {"hand": loop(nested)}
    if "square" in case.beside:
        found["squared score"] = loop(square)
    return found

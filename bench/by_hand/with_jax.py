"""What a careful user writes in JAX: a jitted step with optax in a Python loop, and a scan of steps."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus, "tanh": jnp.tanh}


def forward(params, x, activation):
    layers = len(params) // 2
    for k in range(layers):
        x = x @ params[f"layers.{k}.weight"].T + params[f"layers.{k}.bias"]
        x = activation(x) if k < layers - 1 else x
    return x


def nested(params, x, activation, weight):
    """The loss: in one dimension by one jvp of the batch, else the diagonal of vmap(jacfwd)."""
    psi_of = partial(forward, params, activation=activation)
    if x.shape[1] == 1:
        psi, diagonal = jax.jvp(psi_of, (x,), (jnp.ones_like(x),))
    else:
        psi = psi_of(x)
        diagonal = jnp.diagonal(jax.vmap(jax.jacfwd(psi_of))(x), axis1=1, axis2=2)
    terms = 0.5 * psi**2 + diagonal
    return jnp.mean(jnp.sum(terms + weight * diagonal**2 if weight else terms, axis=1))


def square(params, x, activation, weight):
    """The squared score alone."""
    return jnp.mean(jnp.sum(0.5 * forward(params, x, activation) ** 2, axis=1))


def prepare(case, dtype, device="cpu"):

    @contextmanager
    def scope():
        """What `precision="highest"` and the dtype of ours come to."""
        with jax.default_matmul_precision("highest"), jax.enable_x64(dtype == "float64"):
            yield

    place = jax.devices(device)[0]
    adam = optax.adam(case.rate)
    with scope():
        x = jax.device_put(jnp.asarray(case.x, dtype), place)
        start = {name: jax.device_put(jnp.asarray(value, dtype), place) for name, value in case.params.items()}

    def stepping(loss_of):
        def step(params, state):
            value, slope = jax.value_and_grad(loss_of)(params, x, ACTIVATIONS[case.activation], case.curvature_weight)
            updates, state = adam.update(slope, state, params)
            return optax.apply_updates(params, updates), state, value

        return step

    def loop(loss_of, keep):
        step = jax.jit(stepping(loss_of))

        def run(epochs):
            with scope():
                params, state, losses = start, adam.init(start), []
                for _ in range(epochs):
                    params, state, loss = step(params, state)
                    losses.append(keep(loss))
                jax.block_until_ready(params)
                return np.array(jax.device_get(losses))

        return run

    @partial(jax.jit, static_argnums=2)
    def scan(params, state, epochs):
        step = stepping(nested)

        def body(carry, _):
            params, state, loss = step(*carry)
            return (params, state), loss

        return jax.lax.scan(body, (params, state), None, length=epochs)

    def scanned(epochs):
        with scope():
            carry, losses = scan(start, adam.init(start), epochs)
            jax.block_until_ready(carry)
            return np.asarray(losses)

    found = {"hand": loop(nested, float)}
    if "scan" in case.beside:
        found["unsynchronised"] = loop(nested, lambda loss: loss)
        found["scan"] = scanned
    if "square" in case.beside:
        found["squared score"] = loop(square, float)
    return found

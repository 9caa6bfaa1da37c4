"""Sliced score matching by coreax: its own network, initial parameters, draws and loop."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import cache
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from by_others import names


@cache
def recording():
    """coreax's method, and the list into which it puts the loss of each step; `match` gives none of them."""
    from coreax.score_matching import SlicedScoreMatching

    losses = []

    class Recording(SlicedScoreMatching):
        def _train_step(self, *arrays):
            state, loss = super()._train_step(*arrays)
            losses.append(loss)
            return state, loss

    return Recording, losses


@contextmanager
def compiled_once():
    """coreax 1.0.0 with the step of its training state an array: as a number of Python it is another constant in every step."""
    import coreax.score_matching as theirs

    shipped = theirs.create_train_state

    def create_train_state(*arguments):
        return shipped(*arguments).replace(step=jnp.asarray(0))

    with mock.patch.object(theirs, "create_train_state", create_train_state):
        yield


SCOPES = {"coreax": nullcontext, "coreax, patched": compiled_once}


def prepare(case, dtype, device="cpu"):
    """Variance-reduced, one Rademacher probe a row, no noise added; a batch is n rows, drawn with replacement."""
    place = jax.devices(device)[0]
    x = jax.device_put(jnp.asarray(case.x, dtype), place)

    def matching(scope):
        def run(epochs):
            method, losses = recording()
            losses.clear()
            with jax.default_device(place), jax.default_matmul_precision("highest"), scope():
                sliced = method(
                    jax.random.key(0),
                    jax.random.rademacher,
                    noise_conditioning=False,
                    use_analytic=True,
                    learning_rate=case.rate,
                    num_epochs=epochs,
                    batch_size=case.n,
                    hidden_dims=case.hidden,
                    optimiser=optax.adam,
                )
                sliced.match(x)
                return np.array(jax.device_get(losses))

        return run

    return {name: matching(SCOPES[name]) for name in names(case, "jax")}

"""A small score of the user's own, as each framework has it."""

import numpy as np

import ismcore


def own_score(backend, d):
    """A network of torch's, or a function of JAX's or of the core's operations, of d columns."""
    if backend == "torch":
        import torch

        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(d, 8), torch.nn.Tanh(), torch.nn.Linear(8, d))
    if backend == "jax":
        import jax.numpy as jnp

        return ismcore.ScoreFunction(lambda params, x: jnp.tanh(x @ params["w"]), {"w": -np.eye(d)}, backend="jax")
    return ismcore.ScoreFunction(lambda ops, params, x: ops.tanh(x @ params["w"]), {"w": -np.eye(d)})

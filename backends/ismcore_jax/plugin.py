"""What the JAX backend says of itself; imports nothing heavy."""

import sys
from typing import Any

from ismcore import BackendInfo, ScoreFunction, hookimpl
from ismcore_jax.trainable import Trainable


@hookimpl
def ismcore_backends() -> list[BackendInfo]:
    """See `ismcore.hookspecs`."""
    return [
        BackendInfo(
            name="jax",
            load="ismcore_jax.backend:JaxBackend",
            requires=("jax", "optax"),
            install="pip install 'ismcore[jax]'",
            description="one compiled loop a chunk, optax",
        )
    ]


@hookimpl
def ismcore_adopt_model(model: Any, sample: Any) -> Any:
    """See `ismcore.hookspecs`."""
    network = model.model if isinstance(model, Trainable) else model
    module = network[0] if isinstance(network, tuple) and network else network
    is_network = any(
        isinstance(module, sys.modules[name].Module) for name in ("flax.linen", "flax.nnx", "equinox") if name in sys.modules
    )
    if not is_network and not (isinstance(network, ScoreFunction) and network.backend == "jax"):
        return None
    from ismcore_jax.adoption import adopt

    return adopt(model, sample)


@hookimpl
def ismcore_native_model(result: Any) -> Any:
    """See `ismcore.hookspecs`."""
    if result.backend != "jax":
        return None
    from ismcore_jax.adoption import function

    return function(result)

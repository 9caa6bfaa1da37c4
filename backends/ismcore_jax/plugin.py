"""What the JAX backend says of itself; imports nothing heavy."""

from ismcore import BackendInfo, hookimpl


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

"""What the MLX backend says of itself; imports nothing heavy."""

from ismcore import BackendInfo, hookimpl


@hookimpl
def ismcore_backends() -> list[BackendInfo]:
    """See `ismcore.hookspecs`."""
    return [
        BackendInfo(
            name="mlx",
            load="ismcore_mlx.backend:MlxBackend",
            requires=("mlx",),
            install="pip install 'mlx[cpu]'",
            description="MLX on the CPU, in float32",
        )
    ]

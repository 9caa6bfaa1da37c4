"""What the torch backend says of itself; imports nothing heavy."""

from ismcore import BackendInfo, hookimpl


@hookimpl
def ismcore_backends() -> list[BackendInfo]:
    """See `ismcore.hookspecs`."""
    return [
        BackendInfo(
            name="torch",
            load="ismcore_torch.backend:TorchBackend",
            requires=("torch",),
            install="pip install 'ismcore[torch]'",
            description="double backward, torch.optim",
        )
    ]

"""What the HIPS-autograd backend says of itself; imports nothing heavy."""

from typing import Any

from ismcore import BackendInfo, hookimpl


@hookimpl
def ismcore_backends() -> list[BackendInfo]:
    """See `ismcore.hookspecs`."""
    return [
        BackendInfo(
            name="autograd",
            load="ismcore_autograd.backend:AutogradBackend",
            requires=("autograd",),
            install="pip install autograd",
            description="NumPy with reverse and forward mode; in the default install",
        )
    ]


@hookimpl
def ismcore_native_model(result: Any) -> Any:
    """See `ismcore.hookspecs`."""
    if result.backend != "autograd":
        return None
    from ismcore_autograd.adoption import function

    return function(result)

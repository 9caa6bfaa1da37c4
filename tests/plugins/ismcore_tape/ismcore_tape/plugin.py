"""What the tape backend says of itself; imports nothing heavy."""

from ismcore import BackendInfo, hookimpl


@hookimpl
def ismcore_backends() -> list[BackendInfo]:
    """See `ismcore.hookspecs`."""
    return [
        BackendInfo(
            name="tape",
            load="ismcore_tape.backend:TapeBackend",
            requires=("numpy",),
            install="pip install numpy",
            api=1,
            description="NumPy with a tape of about a hundred lines",
        )
    ]

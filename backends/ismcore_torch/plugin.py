"""What the torch backend says of itself; imports nothing heavy."""

import sys
from typing import Any

from ismcore import BackendInfo, ScoreFunction, hookimpl


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


@hookimpl
def ismcore_adopt_model(model: Any, sample: Any) -> Any:
    """See `ismcore.hookspecs`."""
    torch = sys.modules.get("torch")
    is_module = torch is not None and isinstance(model, torch.nn.Module)
    if not is_module and not (isinstance(model, ScoreFunction) and model.backend == "torch"):
        return None
    from ismcore_torch.adoption import adopt

    return adopt(model, sample)


@hookimpl
def ismcore_native_model(result: Any) -> Any:
    """See `ismcore.hookspecs`."""
    if result.backend != "torch":
        return None
    from ismcore_torch.adoption import module

    return module(result)

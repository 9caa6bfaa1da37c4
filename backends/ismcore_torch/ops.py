"""`ismcore.ops.Ops` in torch, with one function pinned."""

from typing import Any

import torch
from torch.nn.functional import softplus

__all__ = ["TorchOps"]


def _logaddexp(x1: Any, x2: Any) -> torch.Tensor:
    # torch's own logaddexp has derivatives that are not finite for large arguments, and its softplus turns linear above
    # 20, which is off by 2e-9; above 40 the difference is below float64's last digit.
    smooth: torch.Tensor
    if isinstance(x2, int | float) and x2 == 0.0:
        smooth = softplus(x1, threshold=40.0)
    else:
        smooth = x2 + softplus(x1 - x2, threshold=40.0)
    return smooth


def _sum(x: torch.Tensor, /, *, axis: int | None = None) -> torch.Tensor:
    return torch.sum(x) if axis is None else torch.sum(x, dim=axis)


class TorchOps:
    """See `ismcore.ops.Ops`."""

    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    sqrt = staticmethod(torch.sqrt)
    abs = staticmethod(torch.abs)
    sin = staticmethod(torch.sin)
    cos = staticmethod(torch.cos)
    tanh = staticmethod(torch.tanh)
    erf = staticmethod(torch.erf)
    sigmoid = staticmethod(torch.sigmoid)
    logaddexp = staticmethod(_logaddexp)
    where = staticmethod(torch.where)
    sum = staticmethod(_sum)
    stack = staticmethod(lambda arrays, /, *, axis=0: torch.stack(tuple(arrays), dim=axis))
    concat = staticmethod(lambda arrays, /, *, axis=0: torch.cat(tuple(arrays), dim=axis))
    reshape = staticmethod(torch.reshape)
    broadcast_to = staticmethod(torch.broadcast_to)
    permute_dims = staticmethod(torch.permute)

    @staticmethod
    def plus_product(x: torch.Tensor, factor: float, a: torch.Tensor, b: torch.Tensor, /) -> torch.Tensor:
        """The sum x + factor a b: see `ismcore.ops`."""
        return torch.addcmul(x, a, b, value=factor)

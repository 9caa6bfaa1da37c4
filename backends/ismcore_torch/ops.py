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


def _maximum(x1: Any, x2: Any, /) -> torch.Tensor:
    array = x1 if isinstance(x1, torch.Tensor) else x2
    x1, x2 = (x if isinstance(x, torch.Tensor) else torch.full_like(array, x) for x in (x1, x2))
    return torch.maximum(x1, x2)


def _logsumexp(x: torch.Tensor, /, *, axis: int) -> torch.Tensor:
    # the derivative of torch's own is exp(x - y), which for a large y loses its digits; that of the largest cancels
    largest = torch.amax(x.detach(), dim=axis, keepdim=True)
    return torch.log(torch.sum(torch.exp(x - largest), dim=axis)) + torch.squeeze(largest, axis)


def _take(x: torch.Tensor, indices: Any, /, *, axis: int) -> torch.Tensor:
    return torch.index_select(x, axis, torch.as_tensor(indices, device=x.device))


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
    maximum = staticmethod(_maximum)
    logsumexp = staticmethod(_logsumexp)
    take = staticmethod(_take)
    matmul = staticmethod(torch.matmul)
    log1p = staticmethod(torch.log1p)
    expm1 = staticmethod(torch.expm1)
    stop_gradient = staticmethod(torch.Tensor.detach)

    @staticmethod
    def plus_product(x: torch.Tensor, factor: float, a: torch.Tensor, b: torch.Tensor, /) -> torch.Tensor:
        """The sum x + factor a b: see `ismcore.ops`."""
        return torch.addcmul(x, a, b, value=factor)

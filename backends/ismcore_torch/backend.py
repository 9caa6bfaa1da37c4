"""torch under ismcore's contract: double backward on the tape, and under a transform of torch.func, torch.func."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch

from ismcore.backend import Backend, GenericSession, Session, SharedSetting
from ismcore.backend.forks import is_forked
from ismcore.backend.processes import shared
from ismcore.calculus import ScoreFn
from ismcore.errors import OptionError
from ismcore.objectives import LossInputs
from ismcore.ops import Array, Ops, Params
from ismcore.optimizers.state import TrainState
from ismcore.problem import Loss, Problem
from ismcore_torch.calculus import is_recorded, map_rows, value_and_grad, vjp
from ismcore_torch.faults import in_words
from ismcore_torch.ops import TorchOps
from ismcore_torch.session import TorchSession

__all__ = ["TorchBackend"]

_THREADS = SharedSetting("torch's number of threads", torch.get_num_threads, torch.set_num_threads)
_MATMUL = SharedSetting(
    "torch's float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
)


BLOCK_BYTES = 2**24
"""Larger than what stays in the cache: starting an operation, on two threads or more, costs what that would save."""
ACCELERATOR_BLOCK_BYTES = 2**28
"""Blocks there only bound the memory: each should keep the device busy."""


class TorchBackend(Backend):
    """See `ismcore.backend.Backend`.

    It offers no jvp: `torch.func.jvp` fails under inductor on a linear layer (ZeroTensors are immutable, torch 2.13), and
    its first use scripts decompositions for a second and warns of a deprecation.
    """

    name = "torch"
    packages = ("torch",)
    ops: Ops = TorchOps()  # type: ignore[assignment]  # the framework's signatures are overloaded

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        """See `Backend.devices`."""
        return ("cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())))

    @classmethod
    def default_device(cls) -> str:
        """See `Backend.default_device`: what `torch.set_default_device` set, else the CPU."""
        device = torch.get_default_device()
        return f"{device.type}:{device.index or 0}" if device.type == "cuda" else str(device)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """No TF32, no autocast, gradients on, whatever the caller has set around the call."""
        with ExitStack() as stack:
            if self.precision == "highest" and self.device != "cpu":
                stack.enter_context(_MATMUL.hold("highest"))
            if is_forked("torch"):  # as in torch's own workers: OpenMP would wait for threads that are not here
                stack.enter_context(_THREADS.hold(1))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.autocast(torch.device(self.device).type, enabled=False))
            yield

    @property
    def block_bytes(self) -> int:  # type: ignore[override]
        """See `Calculus.block_bytes`."""
        return BLOCK_BYTES if self.device == "cpu" else ACCELERATOR_BLOCK_BYTES

    def asarray(self, array: np.ndarray, /) -> torch.Tensor:
        """See `Calculus.asarray`."""
        # torch takes no negative strides
        return torch.tensor(np.asarray(array, order="C"), dtype=getattr(torch, self.dtype), device=self.device)

    def units(self, x: Array, /) -> list[Array]:
        """See `Calculus.units`; made in torch, as Dynamo takes no array of NumPy's."""
        return [row.expand(x.shape) for row in torch.eye(x.shape[1], dtype=x.dtype, device=x.device)]

    def ones(self, values: Array, /) -> torch.Tensor:
        """See `Calculus.ones`."""
        return torch.ones(values.shape, dtype=values.dtype, device=values.device)

    def to_numpy(self, array: Array, /) -> np.ndarray:
        """See `Backend.to_numpy`."""
        return np.array(array.numpy(force=True), order="C")  # by force: a derivative may be torch's ZeroTensor

    def value_and_grad(self, f: Callable[..., Array], /) -> Callable[..., tuple[Array, Params]]:
        """See `Backend.value_and_grad`."""
        return partial(value_and_grad, f)

    def vjp(self, f: ScoreFn, x: Array, /) -> tuple[Array, Callable[[Array], Array]]:
        """See `Calculus.vjp`."""
        return vjp(f, x, keep_graph=is_recorded() or x.requires_grad)

    def loss_and_gradient(self, loss: Loss) -> Callable[[Params, Array, LossInputs], tuple[Array, Params]]:
        """See `Backend.loss_and_gradient`."""
        return in_words(loss.model, super().loss_and_gradient(loss))

    def loss(self, loss: Loss) -> Callable[[Params, Array, LossInputs], Array]:
        """See `Backend.loss`."""
        return in_words(loss.model, super().loss(loss))

    def map_rows(self, f: Callable[..., Array], /) -> Callable[..., Array]:
        """See `Calculus.map_rows`."""
        return map_rows(f)

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def prepare(self, problem: Problem, state: TrainState) -> Session:
        """See `Backend.prepare`."""
        if shared() is not None and problem.compile != "auto":
            raise OptionError(f"compile={problem.compile!r} takes steps that processes do not share: leave it at 'auto'")
        return (GenericSession if problem.compile == "off" else TorchSession)(self, problem, state)

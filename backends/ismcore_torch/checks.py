"""What a torch module must be to be trained as a copy, and how to call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from ismcore.errors import ModelError
from ismcore.models import takes_rows

__all__ = [
    "as_called",
    "check_apart",
    "check_copyable",
    "check_layers",
    "check_recomputed",
    "check_unwritten",
    "constants_of",
    "first_kink",
    "random_state_kept",
    "takes_one_row",
]

_KINKED = (
    torch.nn.ReLU,
    torch.nn.ReLU6,
    torch.nn.LeakyReLU,
    torch.nn.PReLU,
    torch.nn.RReLU,
    torch.nn.Hardtanh,
    torch.nn.Hardsigmoid,
    torch.nn.Hardshrink,
    torch.nn.Softshrink,
    torch.nn.Threshold,
)
_WRAPPERS = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)


def first_kink(module: torch.nn.Module) -> str:
    """The first layer that is piecewise linear, in words; empty where there is none."""
    named = module.named_modules()
    return next((f"{name or 'it'} is a {type(layer).__name__}" for name, layer in named if isinstance(layer, _KINKED)), "")


def constants_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Buffers, and tensors that are plain attributes of a layer."""
    yield from module.buffers()
    for layer in module.modules():
        yield from (value for value in vars(layer).values() if isinstance(value, torch.Tensor))


def takes_one_row(
    title: str, call: Callable[..., Any], rows: list[torch.Tensor], called: Callable[[], None] = lambda: None
) -> tuple[bool, bool]:
    """Whether it is a function of one row, and whether it takes its context, (n, 1), as (n,).

    Args:
        title: What it is called in an error.
        call: The function.
        rows: What it is called with, (n, d), and (n, c) where it takes a context.
        called: Looks at what is left of it once it was called; before what it gave is looked at.

    Raises:
        ModelError: It gives no score a row, writes into its input, or draws random numbers.
    """
    before = rows[0].clone()
    with random_state_kept(), torch.inference_mode(False), torch.enable_grad():
        per_row, flat = _shapes(title, call, rows)
        called()
        if not torch.equal(rows[0], before):
            raise ModelError(f"{title} writes to its input when it is called: let it work on a copy")
        given, mapped = as_called(rows, flat), torch.func.vmap(call, randomness="different")
        first, second = ((mapped if per_row else call)(*given).nan_to_num() for _ in range(2))
    if not torch.equal(first, second):
        raise ModelError(
            f"{title} gives different scores for the same samples, so it draws random numbers, as dropout does, or keeps "
            "something from one call to the next: call module.eval() first, or take that out"
        )
    return per_row, flat


def _dense(found: Any) -> Any:
    """What a module returned, unless it is an array of another kind."""
    if hasattr(found, "shape") and (not isinstance(found, torch.Tensor) or found.layout != torch.strided):
        kind = f"{type(found).__module__}.{type(found).__name__}"
        raise ModelError(f"returned a {kind}, {getattr(found, 'layout', 'which torch cannot differentiate')}")
    return found


def as_called(rows: list[torch.Tensor], flat_context: bool) -> list[torch.Tensor]:
    """Samples and context as a module is called with them."""
    return [rows[0], rows[1][:, 0]] if flat_context else rows


def _shapes(title: str, call: Callable[..., Any], rows: list[torch.Tensor]) -> tuple[bool, bool]:
    mapped = torch.func.vmap(call, randomness="different")

    def tried(given: list[torch.Tensor]) -> bool:
        return takes_rows(title, lambda: _dense(call(*given)), lambda: _dense(mapped(*given)), len(given[0]))

    try:
        return tried(rows), False
    except ModelError as error:
        if len(rows) < 2 or rows[1].shape[1] != 1:
            raise
        try:
            return tried(as_called(rows, True)), True
        except ModelError:
            raise ModelError(f"{error}. It is called as (x, t): the samples first, t second, as (n, 1) or (n,)") from error


def check_unwritten(title: str, called: torch.nn.Module, original: torch.nn.Module, trained: dict[str, torch.Tensor]) -> None:
    """Refuse a module whose parameters or buffers changed as it was called; the caller's own still has the values before.

    Raises:
        ModelError: See above.
    """
    buffers = dict(original.named_buffers())
    for name, value in called.named_buffers():
        if name not in buffers:
            raise ModelError(f"{title} makes its buffer {name!r} when it is first called: call it once on a batch before")
        # written to, be it with the same values, as the power iteration of spectral_norm does once it has converged
        if value._version or not _same(value, buffers[name]):
            raise ModelError(
                f"{title} writes to its buffer {name!r} when it is called, so equal points need not have equal scores; call "
                "module.eval() first, or let it work on a copy"
            )
    values = dict(called.named_parameters())
    for name, value in trained.items():
        if name not in values or not _same(values[name], value):
            raise ModelError(
                f"{title} sets its parameter {name!r} when it is called in training mode, as an initialisation from the first "
                "batch does: call it once on your samples before (standardised, unless standardize=False), or module.eval()"
            )


def check_recomputed(
    title: str,
    original: torch.nn.Module,
    called: Callable[[dict[str, torch.Tensor]], torch.nn.Module],
    fresh: Callable[[dict[str, torch.Tensor]], torch.nn.Module],
    values: dict[str, torch.Tensor],
    score: Callable[[torch.nn.Module], torch.Tensor],
) -> None:
    """Refuse a module that computes something from its parameters once and keeps it, or that writes to them.

    Args:
        title: What it is called in an error.
        original: The caller's.
        called: A copy with parameters by name, which was called with `values`.
        fresh: Another, which never was.
        values: The parameters.
        score: The module's score of a few rows.

    Raises:
        ModelError: See above.
    """
    moved = {name: _moved_away(value) for name, value in values.items()}
    copied = dict(fresh(moved).named_modules())
    constants = {  # held here, as the memory of one that is replaced is soon another's
        f"{name}.{key}" if name else key: vars(copied[name])[key]
        for name, layer in original.named_modules()
        for key, value in vars(layer).items()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    kept = {_address(value): name for name, value in constants.items()}
    names = {address: name for name, value in moved.items() if (address := _address(value))}
    with random_state_kept(), torch.inference_mode(False), torch.enable_grad(), _Watched(names | kept) as watched:
        try:
            right, found = score(copied[""]), score(called(moved))
        except Exception:  # parameters may have to be symmetric, or positive
            right = found = torch.zeros(())
    called(values)
    written = sorted(watched.written & set(moved))
    if written:
        raise ModelError(
            f"{title} writes to its parameter {written[0]!r} when it is called, as clamp_ and .data do, which "
            "training would not see: write the limit into the forward pass (self.weight.clamp(min=0), softplus), as "
            "torch.nn.utils.parametrize does"
        )
    read = sorted(watched.seen & set(kept.values()))
    if read or not torch.allclose(found.nan_to_num(), right.nan_to_num(), rtol=1e-3, atol=1e-5):
        which = f", in {', '.join(read)}" if read else ""
        raise ModelError(
            f"{title} keeps what it computed from its parameters at an earlier call{which}, so it would stay as it is while "
            "they are trained: compute it anew in each forward pass, without functools.cache, cached_property or an attribute "
            "that is set once"
        )


def _moved_away(value: torch.Tensor) -> torch.Tensor:
    """Other parameters of the same signs, by element, and symmetric where they were."""
    draws = 0.2 * torch.rand(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(value)
    if value.ndim == 2 and value.shape[0] == value.shape[1] and torch.equal(value, value.T):
        draws = draws + draws.T
    return value * (1.0 + draws) if value.any() else draws


def _same(found: torch.Tensor, right: torch.Tensor) -> bool:
    found, right = (value if value.layout == torch.strided else value.to_dense() for value in (found, right))
    return found.shape == right.shape and bool(((found == right) | ((found != found) & (right != right))).all())


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Torch's generators are afterwards as before."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=list(devices)):
        yield


class _Watched(TorchFunctionMode):
    """Notes of which memory, by its address, torch's functions make other tensors, and into which they write."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.seen: set[str] = set()
        self.written: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], torch.Tensor) and _writes(func) and _address(args[0]) in self.names:
            self.written.add(self.names[_address(args[0])])
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor | tuple | list):  # not where only a shape or a dtype is asked for
            for value in (*args, *(kwargs or {}).values()):
                parts = value if isinstance(value, tuple | list) else (value,)
                addresses = (_address(part) for part in parts if isinstance(part, torch.Tensor))
                self.seen.update(self.names[address] for address in addresses if address in self.names)
        return found


def _writes(func: Any) -> bool:
    """Whether a function of torch changes the values of its first argument."""
    name, of = getattr(func, "__name__", ""), getattr(getattr(func, "__self__", None), "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    return in_place or name == "__setitem__" or (name == "__set__" and of == "data")


def _address(value: torch.Tensor) -> int:
    """Where its memory begins, which views and detached tensors share; 0 where there is none."""
    try:
        return value.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # tensors without memory of their own
        return 0


def check_apart(title: str, module: torch.nn.Module, call: Callable[..., Any], given: list[torch.Tensor]) -> None:
    """Refuse a module whose copy still computes with the caller's tensors, which a closure holds on to.

    Raises:
        ModelError: See above.
    """
    held = (*module.named_parameters(), *module.named_buffers())
    names = {address: name for name, value in held if (address := _address(value))}
    with random_state_kept(), torch.inference_mode(False), torch.enable_grad(), _Watched(names) as watched:
        call(*given)
    if watched.seen:
        listed = [name for name, _ in held if name in watched.seen]
        raise ModelError(
            f"{title} reaches {', '.join(listed[:6])} past its attributes, by a closure such as a lambda, a hook or a replaced "
            "method makes: the copy that is trained would go on using your own module's. Write that function as a method that "
            "reads self, which is copied with the module"
        )


def check_layers(title: str, module: torch.nn.Module) -> None:
    """Refuse layers that mix rows or draw random numbers in training mode.

    Raises:
        ModelError: See above.
    """
    for name, layer in module.named_modules():
        which = f"{title}: {name or 'it'} is a {type(layer).__name__}"
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None):
            raise ModelError(
                f"{which} that takes its mean over the batch, which mixes the rows: call module.eval() first, so that it uses "
                "its running mean, or use LayerNorm"
            )
        if isinstance(layer, _DropoutNd) and layer.training and layer.p > 0:
            raise ModelError(
                f"{which} in training mode, which makes the score random: call module.eval() first, or take it out"
            )


def check_copyable(title: str, module: torch.nn.Module, trained: dict[str, torch.Tensor]) -> None:
    """Refuse what a copy with other parameters would not be, or would lose.

    Raises:
        ModelError: See above.
    """
    if any(isinstance(value, torch.nn.parameter.UninitializedParameter) for value in module.parameters()):
        raise ModelError(f"{title} has parameters without a shape yet; call it once on a batch of samples")
    meta = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    if meta:
        raise ModelError(
            f"{title} is on the device 'meta', where {meta[0]!r} has a shape and no values: make it on a device, by "
            "module.to_empty(device='cpu') and module.load_state_dict(...)"
        )
    if not trained:
        raise ModelError(f"{title} has no parameter that requires a gradient, so there is nothing to fit")
    for name, layer in module.named_modules():
        which = f"{title}: {name or 'it'}"
        if isinstance(layer, torch.jit.ScriptModule) and next(layer.parameters(), None) is not None:
            raise ModelError(
                f"{which} is scripted or traced (torch.jit), and torch cannot copy it with other parameters: pass the module "
                "that it was made from"
            )
        if isinstance(layer, _WRAPPERS):
            raise ModelError(
                f"{which} is a {type(layer).__name__}, and fit trains in one process: pass what it wraps, its .module; losses "
                "for a loop of your own (ismcore_torch) take it as it is"
            )
    shared = _overlapping(trained)
    if shared:
        raise ModelError(
            f"{title} has two parameters in one memory, {shared[0]!r} and {shared[1]!r}, which would be trained apart: make "
            "them one, as in self.b.weight = self.a.weight, or read the one transposed (functional.linear(h, self.a.weight.T))"
        )
    for name, value in trained.items():
        if value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None):
            raise ModelError(
                f"{title} has a hook on the gradient of {name!r} (register_hook), which the copy that is trained would not "
                "have: remove it, and freeze parameters by requires_grad_(False), or write a mask into the forward pass, as "
                "torch.nn.utils.parametrize does"
            )


def _overlapping(trained: dict[str, torch.Tensor]) -> tuple[str, str] | None:
    """Two parameters that have an element in common, if there are any; all may be views into one memory."""
    owners: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in trained.items():
        owners.setdefault(_address(value), {})[name] = value
    for named in (named for address, named in owners.items() if address and len(named) > 1):
        names = list(named)
        size = named[names[0]].untyped_storage().nbytes() // named[names[0]].element_size()
        owner, places = torch.full((size,), -1), torch.arange(size)
        for i, value in enumerate(named.values()):
            own = places.as_strided(value.shape, value.stride(), value.storage_offset()).flatten()
            if own.numel() and owner[own].max() >= 0:
                return names[int(owner[own].max())], names[i]
            owner[own] = i
    return None

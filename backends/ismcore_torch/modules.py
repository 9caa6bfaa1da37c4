"""torch modules as models of ismcore: a copy in which parameters are places, and the checks that a module must pass."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models import Frame, UserModel, takes_rows
from ismcore.models.trees import as_array
from ismcore.ops import Array, Params
from ismcore_torch.calculus import ArrayCalculus

__all__ = ["InUnits", "TorchModule", "adopt_module", "takes_one_row"]

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
_SWAPPING = threading.RLock()
"""`functional_call` puts parameters into the module for the time of a call, so two threads must not call it at once."""


@dataclass(frozen=True, eq=False, repr=False)
class TorchModule(UserModel):
    """A `torch.nn.Module` as a model: a copy of the caller's, in which parameters are places and buffers constants.

    Parameters that do not require a gradient stay what they are, like buffers. Results name the others as the module's
    `state_dict` does.

    Attributes:
        template: The copy; the parameters to be trained have no storage in it.
        spec: Their shapes.
        start: Their values, NumPy; empty once nobody starts from them.
        per_row: Whether it is a function of one row.
    """

    template: torch.nn.Module
    title: str
    spec: dict[str, tuple[int, ...]]
    start: Params
    device: str
    smooth: bool
    per_row: bool = False
    kind = "torch.nn.Module"
    backend = "torch"
    _placed: dict[tuple[torch.dtype, torch.device], torch.nn.Module] = field(default_factory=dict)

    def shapes(self, d: int) -> dict[str, tuple[int, ...]]:
        """See `Model.shapes`."""
        return dict(self.spec)

    def initial_params(self, seed: int, d: int) -> Params:
        """See `Model.initial_params`; the module's own, whatever the seed."""
        if not self.start:
            raise ModelError(f"this {self.title} keeps no parameters to start from; pass params, or the module itself")
        return {name: value.copy() for name, value in self.start.items()}

    def canonical(self) -> TorchModule:
        """See `Model.canonical`."""
        return replace(self, start={}) if self.start else self

    def output(self, calculus: Calculus, params: Params, x: Array, context: Array | None = None) -> Array:
        """See `UserModel.output`."""
        place = (x.dtype, x.device)
        if place not in self._placed:
            self._placed[place] = _at(self.template, *place)
        call = _caller(self._placed[place], params)
        arguments = (x,) if context is None else (x, context)
        return torch.func.vmap(call)(*arguments) if self.per_row else call(*arguments)

    def native(self, engine: Calculus, params: Params, frame: Frame, into: Any = None) -> torch.nn.Module:
        """See `UserModel.native`."""
        values = engine.asarrays(params)
        trained = self._filled(engine, values) if into is None else _written(into, values, self.title)
        return trained if frame.coordinates is None else InUnits(trained, frame.coordinates, energy=frame.energy)

    def _filled(self, engine: Calculus, values: Params) -> torch.nn.Module:
        places = dict(self.template.named_parameters())
        memo: dict[int, Any] = {id(places[name]): torch.nn.Parameter(value) for name, value in values.items()}
        return copy.deepcopy(self.template, memo).to(dtype=getattr(torch, engine.dtype), device=engine.device)


def _at(template: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """A copy whose constants are of the dtype, where they are floats, and on the device.

    Its places are one number each, seen as an array: `Module.to` refuses those of the template, and so do compilers.
    """
    memo: dict[int, Any] = {}
    for value in (*template.parameters(), *template.buffers()):
        if value.is_meta:
            moved = torch.zeros((), dtype=dtype, device=device).expand(value.shape)
        else:
            moved = value.detach().to(device, dtype if value.is_floating_point() else None)
        memo[id(value)] = torch.nn.Parameter(moved, value.requires_grad) if isinstance(value, torch.nn.Parameter) else moved
    return copy.deepcopy(template, memo)


def _caller(template: torch.nn.Module, params: Params) -> Callable[..., Any]:
    def call(*arguments: Array) -> Any:
        if torch.compiler.is_compiling():
            return torch.func.functional_call(template, params, arguments)
        with _SWAPPING:
            return torch.func.functional_call(template, params, arguments)

    return call


def _written(into: Any, values: Params, title: str) -> torch.nn.Module:
    """The caller's module, with these values in its parameters."""
    places = dict(into.named_parameters()) if isinstance(into, torch.nn.Module) else {}
    wrong = [name for name, value in values.items() if name not in places or places[name].shape != value.shape]
    if wrong:
        raise ModelError(
            f"into= must be the {title} that was fitted, or one like it; {type(into).__name__} has no {wrong[0]!r}"
        )
    with torch.no_grad():
        for name, value in values.items():
            places[name].copy_(value)
    module: torch.nn.Module = into
    return module


class InUnits(torch.nn.Module):
    """A module of samples in other coordinates, seen in the user's units: score(x) = inner((x - mean) / scale) / scale.

    The coordinates are applied in float64, whatever the dtype of x and of the module: in float32 the difference of x and a mean
    far from 0 has lost its digits. They are part of the `state_dict`, as its extra state.

    Args:
        inner: The module, a score, or an energy, whose value has no unit: energy(x) = inner((x - mean) / scale).
        coordinates: Those that it was trained in; see `ismcore.coordinates.Coordinates`.
        energy: Whether it is an energy.
    """

    def __init__(self, inner: torch.nn.Module, coordinates: Coordinates, *, energy: bool = False) -> None:
        super().__init__()
        self.inner, self.coordinates, self.energy = inner, coordinates, energy

    def forward(self, x: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        """The score in 1/[x], or the energy, at x in [x]."""
        like, wide = next(self.inner.parameters(), x), x.to(torch.float64)
        calculus = ArrayCalculus(wide)
        z = self.coordinates.of(calculus, wide).to(like.dtype)
        found: torch.Tensor = self.inner(z, *(value.to(like.dtype) for value in context)).to(torch.float64)
        in_units = self.coordinates.energy_of if self.energy else self.coordinates.score_of
        values: torch.Tensor = in_units(calculus, wide, found)
        return values.to(x.dtype)

    def get_extra_state(self) -> dict[str, Any]:
        """The coordinates, for `state_dict`."""
        found = asdict(self.coordinates)
        return {name: torch.tensor(value) if isinstance(value, np.ndarray) else value for name, value in found.items()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The coordinates, from `load_state_dict`."""
        found: dict[str, Any] = {
            name: value.cpu().numpy() if isinstance(value, torch.Tensor) else value for name, value in state.items()
        }
        self.coordinates = Coordinates(**found)


def adopt_module(model: torch.nn.Module, sample: tuple[np.ndarray, ...]) -> TorchModule:
    """A module as a model; the caller's, its `.grad` and the random state stay as they are.

    Raises:
        ModelError: It is not fit to be one; the message says why.
    """
    inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    title = f"torch.nn.Module {type(inner).__name__}"
    _check_layers(title, inner)
    kinks = [
        f"{name or 'it'} is a {type(layer).__name__}" for name, layer in inner.named_modules() if isinstance(layer, _KINKED)
    ]
    trained = {name: value for name, value in inner.named_parameters() if value.requires_grad}
    template = _copied(title, inner, trained)
    place = next(iter(trained.values()))
    values = {name: value.detach().clone() for name, value in trained.items()}
    rows = [torch.tensor(a, dtype=place.dtype, device=place.device) for a in sample]
    per_row = takes_one_row(title, _caller(template, values), rows, template)
    _check_apart(title, inner, _caller(template, values), rows, per_row=per_row)
    return TorchModule(
        template=template,
        title=f"{title}, in which {kinks[0]}" if kinks else title,
        spec={name: tuple(value.shape) for name, value in trained.items()},
        start={name: as_array(name, value) for name, value in trained.items()},
        device="cpu" if place.device.type == "cpu" else f"{place.device.type}:{place.device.index or 0}",
        smooth=not kinks,
        per_row=per_row,
    )


def takes_one_row(
    title: str, call: Callable[..., Any], rows: list[torch.Tensor], template: torch.nn.Module | None = None
) -> bool:
    """Whether it is a function of one row; refuses what writes into its input or its buffers, or draws random numbers."""
    mapped = torch.func.vmap(call, randomness="different")
    before = _versions(rows, template)
    with _random_state_kept(), torch.inference_mode(False), torch.no_grad():
        per_row = takes_rows(title, lambda: call(*rows), lambda: mapped(*rows), len(rows[0]))
        first, second = ((mapped if per_row else call)(*rows) for _ in range(2))
    for name, (value, version) in _versions(rows, template).items():
        if name not in before or before[name][0] is not value or before[name][1] != version:
            raise ModelError(
                f"{title} writes to {name} when it is called, so equal points need not have equal scores; call module.eval() "
                "first, or let it work on a copy"
            )
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        raise ModelError(
            f"{title} gives different scores for the same samples, so it draws random numbers, as dropout does: call "
            "module.eval() first, or take that out"
        )
    return per_row


def _versions(rows: list[torch.Tensor], template: torch.nn.Module | None) -> dict[str, tuple[torch.Tensor, int]]:
    """The tensors that a call must not write to, and the counters that torch raises when one is written to."""
    held = {"its input": rows[0]}
    if template is not None:
        held.update({f"its buffer {name!r}": value for name, value in template.named_buffers()})
    return {name: (value, value._version) for name, value in held.items()}


@contextmanager
def _random_state_kept() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=list(devices)):
        yield


class _Watched(TorchFunctionMode):
    """Notes which of some tensors, by id, torch's functions make other tensors of."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.seen: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor | tuple | list):  # not where only a shape or a dtype is asked for
            for value in (*args, *(kwargs or {}).values()):
                parts = value if isinstance(value, tuple | list) else (value,)
                self.seen.update(self.names[id(part)] for part in parts if id(part) in self.names)
        return found


def _check_apart(
    title: str, module: torch.nn.Module, call: Callable[..., Any], rows: list[torch.Tensor], *, per_row: bool
) -> None:
    """Refuse a module whose copy still computes with the caller's tensors, which a closure holds on to."""
    held = (*module.named_parameters(), *module.named_buffers())
    with _random_state_kept(), torch.inference_mode(False), torch.no_grad():
        with _Watched({id(value): name for name, value in held}) as watched:
            call(*([a[0] for a in rows] if per_row else rows))
    if watched.seen:
        names = [name for name, _ in held if name in watched.seen]
        raise ModelError(
            f"{title} reaches {', '.join(names[:6])} past its attributes, by a closure such as a lambda, a hook or a replaced "
            "method makes: the copy that is trained would go on using your own module's. Write that function as a method that "
            "reads self, which is copied with the module"
        )


def _check_layers(title: str, module: torch.nn.Module) -> None:
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


def _copied(title: str, module: torch.nn.Module, trained: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A copy that shares nothing with the caller's module and holds no storage for the parameters to be trained."""
    if not trained:
        raise ModelError(f"{title} has no parameter that requires a gradient, so there is nothing to fit")
    if any(isinstance(value, torch.nn.parameter.UninitializedParameter) for value in module.parameters()):
        raise ModelError(f"{title} has parameters without a shape yet; call it once on a batch of samples")
    places = {id(value): torch.nn.Parameter(torch.empty_like(value, device="meta")) for value in trained.values()}
    try:
        return copy.deepcopy(module, dict(places))
    except Exception as error:
        text = str(error).split("\n")[0][:200]
        raise ModelError(f"{title} cannot be copied: {type(error).__name__}: {text}") from error

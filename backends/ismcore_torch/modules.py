"""torch modules as models of ismcore: a copy in which parameters are places, and private copies that hold them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from ismcore.calculus import Calculus
from ismcore.coordinates import Coordinates
from ismcore.errors import ModelError
from ismcore.models import Frame, UserModel
from ismcore.models.trees import as_array
from ismcore.ops import Array, Params
from ismcore_torch.calculus import ArrayCalculus, in_transform, twice_differentiable
from ismcore_torch.checks import (
    as_called,
    check_apart,
    check_copyable,
    check_layers,
    check_recomputed,
    check_unwritten,
    constants_of,
    first_kink,
    random_state_kept,
    takes_one_row,
)

__all__ = ["InUnits", "TorchModule", "adopt_module"]

_SWAPPING = threading.RLock()
"""`functional_call` puts parameters into the module for the time of a call, so two threads must not call it at once."""
_NEAR = {"float32": 1e-3, "float64": 1e-6}
"""Largest difference of a module that is given back from the score, relative to its size; both are the same operations."""


@dataclass(frozen=True, eq=False, repr=False)
class TorchModule(UserModel):
    """A `torch.nn.Module` as a model: a copy of the caller's, in which parameters are places and buffers constants.

    Parameters that do not require a gradient stay what they are, like buffers. Results name the others as the module's
    `state_dict` does. It is called as a copy of each thread's own, in which the parameters of the last call stay: a backward
    pass that computes a part of the module again (`torch.utils.checkpoint`) finds them there.

    Attributes:
        template: The copy; the parameters to be trained have no storage in it.
        spec: Their shapes.
        start: Their values, NumPy; empty once nobody starts from them.
        sample: A few rows as it is called with, (x,) or (x, context).
        per_row: Whether it is a function of one row.
        flat_context: Whether it takes a context of one column as (n,), and not as (n, 1).
    """

    template: torch.nn.Module
    title: str
    spec: dict[str, tuple[int, ...]]
    start: Params
    sample: tuple[np.ndarray, ...]
    device: str
    smooth: bool
    per_row: bool = False
    flat_context: bool = False
    kind = "torch.nn.Module"
    backend = "torch"
    _placed: dict[tuple[torch.dtype, torch.device], torch.nn.Module] = field(default_factory=dict, init=False)
    _held: dict[tuple[torch.dtype, torch.device, int], _Holder] = field(default_factory=dict, init=False)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: not the copies, which are made when they are needed."""
        return {**self.__dict__, "_placed": {}, "_held": {}}

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
        found: torch.Tensor = self._called(self._caller(params, x), x, context)
        return found

    def _called(self, call: Callable[..., Any], x: Array, context: Array | None) -> Any:
        arguments = (x,) if context is None else (x, context[:, 0] if self.flat_context else context)
        return torch.func.vmap(call)(*arguments) if self.per_row else call(*arguments)

    def _caller(self, params: Params, x: Array) -> Callable[..., Any]:
        """The module at parameters; they stay in it until others come, except where torch.func or a compiler is at work."""
        dtype, device = x.dtype, x.device
        if torch.compiler.is_compiling():
            return lambda *arguments: torch.func.functional_call(self._placed[dtype, device], params, arguments)
        if in_transform():
            return lambda *arguments: _swapped(self._at(dtype, device), params, arguments)
        key = dtype, device, threading.get_ident()
        if key not in self._held:
            self._held[key] = _Holder.of(self._at(dtype, device), self.spec)
        # on a tape they are leaves of it, as in a loop of one's own: a backward pass may ask for their gradients
        plain = x.requires_grad and torch.is_grad_enabled()
        leaves = {k: v.detach().requires_grad_() if plain and not v.requires_grad else v for k, v in params.items()}
        return self._held[key].with_params(leaves)

    def _at(self, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """The copy with constants of the dtype on the device; made outside of any transform, which would claim them."""
        if (dtype, device) not in self._placed:
            with torch._functorch.pyfunctorch.temporarily_clear_interpreter_stack():
                self._placed[dtype, device] = eager(filled(self.template, {}, dtype, device))
        return self._placed[dtype, device]

    def native(self, engine: Calculus, params: Params, frame: Frame, into: Any = None) -> torch.nn.Module:
        """See `UserModel.native`."""
        values = engine.asarrays(params)
        trained = self._filled(engine, values) if into is None else _written(into, values, self.title)
        return trained if frame.coordinates is None else InUnits(trained, frame.coordinates, energy=frame.energy)

    def _filled(self, engine: Calculus, values: Params) -> torch.nn.Module:
        """The module with these parameters, once it gives what this model gives."""
        module = filled(self.template, values, getattr(torch, engine.dtype), torch.device(engine.device)).to(engine.device)
        rows = [engine.asarray(a) for a in self.sample]
        x, context = rows[0], rows[1] if len(rows) > 1 else None
        with random_state_kept(), twice_differentiable():  # where compiled parts are called uncompiled
            score = self.output(engine, values, x, context).detach()
            found = self._called(module, x, context).detach()
        gap = (found - score).abs().nan_to_num().max()
        if not gap <= _NEAR[engine.dtype] * score.abs().nan_to_num().max():
            raise ModelError(
                f"{self.title} cannot be given back: a copy of it with the fitted parameters gives another score than the fit, "
                f"by {float(gap):.2g}. It holds something that torch does not copy, or that is computed from its parameters "
                "once and kept; result.score is the fitted score"
            )
        return module


@dataclass(frozen=True, eq=False)
class _Holder:
    """A copy of one thread's own, and where in it each parameter is; shared ones are at several places."""

    module: torch.nn.Module
    places: dict[str, list[tuple[dict[str, Any], str]]]

    @staticmethod
    def of(placed: torch.nn.Module, names: Mapping[str, Any]) -> _Holder:
        sparse = (value for value in constants_of(placed) if value.layout != torch.strided)
        shared = (*placed.parameters(), *placed.buffers(), *sparse)
        module = eager(copy.deepcopy(placed, {id(value): value for value in shared}))
        known = {id(value): name for name, value in module.named_parameters()}
        places: dict[str, list[tuple[dict[str, Any], str]]] = {name: [] for name in names}
        for layer in module.modules():
            for key, value in layer._parameters.items():
                if value is not None and known[id(value)] in places:
                    places[known[id(value)]].append((layer._parameters, key))
        return _Holder(module, places)

    def with_params(self, params: Params) -> torch.nn.Module:
        for name, places in self.places.items():
            for holder, key in places:
                holder[key] = params[name]
        return self.module


def _swapped(module: torch.nn.Module, params: Params, arguments: tuple[Array, ...]) -> Any:
    with _SWAPPING:
        return torch.func.functional_call(module, params, arguments)


def filled(
    template: torch.nn.Module, values: Mapping[str, torch.Tensor], dtype: torch.dtype | None, device: torch.device | None
) -> torch.nn.Module:
    """A copy of the template with these parameters, and with its constants of the dtype, where they are floats, on the device.

    Integers and complex numbers keep their dtype. Places without a value are one number each, seen as an array: `Module.to`
    refuses those of the template, and so do compilers.
    """
    memo: dict[int, Any] = {}
    for name, value in template.named_parameters():
        if value.is_meta:
            place = values[name] if name in values else torch.zeros((), dtype=dtype, device=device).expand(value.shape)
        else:
            place = _moved(value, dtype, device)
        memo[id(value)] = torch.nn.Parameter(place, value.requires_grad)
    memo |= {id(constant): _moved(constant, dtype, device) for constant in constants_of(template)}
    return copy.deepcopy(template, memo)


def _moved(value: torch.Tensor, dtype: torch.dtype | None, device: torch.device | None) -> torch.Tensor:
    return value.detach().to(device=device, dtype=dtype if value.is_floating_point() else None, copy=True)


def eager(module: torch.nn.Module) -> torch.nn.Module:
    """The module itself, in which compiled parts are called uncompiled: a compiled part has no second derivative."""
    for layer in module.modules():
        original = getattr(layer, "_orig_mod", None)
        if isinstance(original, torch.nn.Module):
            layer.forward = original.__call__
    return module


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
        self.coordinates.check_dtype(str(x.dtype).removeprefix("torch."))
        z = self.coordinates.of(calculus, wide).to(like.dtype)
        found: torch.Tensor = self.inner(z, *(value.to(like.dtype) for value in context)).to(torch.float64)
        in_units = self.coordinates.energy_of if self.energy else self.coordinates.score_of
        values: torch.Tensor = in_units(calculus, wide, found)
        return values.to(x.dtype)

    def get_extra_state(self) -> dict[str, Any]:
        """The coordinates, for `state_dict`."""
        found = {each.name: getattr(self.coordinates, each.name) for each in fields(Coordinates) if each.init}
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
    trained = {name: value for name, value in inner.named_parameters() if value.requires_grad}
    check_copyable(title, inner, trained)
    check_layers(title, inner)
    template = _copied(title, inner, trained)
    place = next(iter(trained.values()))
    values = {name: value.detach().clone() for name, value in trained.items()}
    rows = [torch.tensor(a, dtype=place.dtype, device=place.device) for a in sample]
    holder, fresh = (_Holder.of(eager(filled(template, values, None, None)), trained) for _ in range(2))
    call = holder.with_params(values)
    per_row, flat = takes_one_row(title, call, rows, lambda: check_unwritten(title, call, inner, trained))
    given = as_called(rows, flat)
    check_apart(title, inner, call, [a[0] for a in given] if per_row else given)
    in_batch = torch.func.vmap if per_row else lambda module: module
    check_recomputed(title, inner, holder.with_params, fresh.with_params, values, lambda module: in_batch(module)(*given))
    kink = first_kink(inner)
    return TorchModule(
        template=template,
        title=f"{title}, in which {kink}" if kink else title,
        spec={name: tuple(value.shape) for name, value in trained.items()},
        start={name: as_array(name, value) for name, value in trained.items()},
        sample=sample,
        device="cpu" if place.device.type == "cpu" else f"{place.device.type}:{place.device.index or 0}",
        smooth=not kink,
        per_row=per_row,
        flat_context=flat,
    )


def _copied(title: str, module: torch.nn.Module, trained: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A copy that shares nothing with the caller's module and holds no storage for the parameters to be trained."""
    memo: dict[int, Any] = {id(value): torch.nn.Parameter(torch.empty_like(value, device="meta")) for value in trained.values()}
    for value in constants_of(module):
        # computed from parameters before each call, as by weight_norm and prune; torch copies leaves alone, and none by index
        if not value.is_leaf or value.layout != torch.strided:
            memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        text = str(error).split("\n")[0][:200]
        raise ModelError(f"{title} cannot be copied: {type(error).__name__}: {text}") from error

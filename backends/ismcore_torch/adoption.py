"""torch modules and functions as models of ismcore, and fitted models as torch modules."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ismcore.errors import ModelError
from ismcore.models import Model, ScoreFunction, Standardized, UserModel
from ismcore.ops import Params
from ismcore.plugins.adoption import users_own
from ismcore.results.evaluate import check_language
from ismcore.results.result import FitResult
from ismcore_torch.calculus import ArrayCalculus
from ismcore_torch.checks import takes_one_row
from ismcore_torch.modules import TorchModule, adopt_module

__all__ = ["Score", "adopt", "module"]


def adopt(model: Any, sample: tuple[np.ndarray, ...]) -> UserModel:
    """A module or a `ScoreFunction` of torch as a model.

    Raises:
        ModelError: It is not fit to be one; the message says why.
    """
    return _adopt_function(model, sample) if isinstance(model, ScoreFunction) else adopt_module(model, sample)


def _adopt_function(model: ScoreFunction, sample: tuple[np.ndarray, ...]) -> ScoreFunction:
    leaves = [leaf for leaf in model.leaves.values() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    device = leaves[0].device if leaves else None
    params = model.initial_params(0, sample[0].shape[1])

    def per_row(dtype: torch.dtype) -> bool:
        tree = model.tree({name: torch.tensor(value, dtype=dtype, device=device) for name, value in params.items()})
        rows = [torch.tensor(a, dtype=dtype, device=device) for a in sample]
        return takes_one_row(model.title, lambda *arguments: model.apply(tree, *arguments), rows)[0]

    first = leaves[0].dtype if leaves else torch.get_default_dtype()
    try:
        found = per_row(first)
    except ModelError:  # it may hold constants of the other dtype, which the dtype of the fit will suit
        try:
            found = per_row(torch.float32 if first == torch.float64 else torch.float64)
        except ModelError:
            found = per_row(first)
    return replace(model, by_row=found)


class Score(torch.nn.Module):
    """A fitted score function psi(x), (n, d) -> (n, d), in 1/[x]; its `state_dict` has the result's parameter names.

    Shift and scale of the samples, where they were standardised, are applied in the dtype of x, the model in that of its
    parameters; the score comes in the dtype of x.
    """

    def __init__(self, model: Model, params: Params) -> None:
        super().__init__()
        # a copy of an adopted module keeps parameters in it until others come: nobody else is to put theirs there
        self.model = copy.deepcopy(model) if isinstance(users_own(model)[0], TorchModule) else model
        self.names = tuple(params)
        for name, value in params.items():
            *path, last = name.split(".")
            holder: torch.nn.Module = self
            for part in path:
                if part not in holder._modules:
                    holder.add_module(part, torch.nn.Module())
                holder = holder.get_submodule(part)
            holder.register_parameter(last, torch.nn.Parameter(value))

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """The score at x, (n, d)."""
        params = {name: self.get_parameter(name) for name in self.names}
        dtype = next(iter(params.values())).dtype
        context = None if context is None else context.to(dtype)
        if not isinstance(self.model, Standardized):
            z = x.to(dtype)
            psi: torch.Tensor = self.model.score(ArrayCalculus(z), params, z, context)
            return psi.to(x.dtype)
        units, coordinates = ArrayCalculus(x), self.model.coordinates
        z = coordinates.of(units, x).to(dtype)
        psi = self.model.inner.score(ArrayCalculus(z), params, z, context).to(x.dtype)
        found: torch.Tensor = coordinates.score_of(units, x, psi)
        return found


def module(result: FitResult) -> Score:
    """The fitted score as a `torch.nn.Module`: differentiable in x and in its parameters, in the result's dtype and device.

    Always the score, in the samples' units; `result.native()` gives an adopted energy back as an energy.

    Args:
        result: A fit on any backend, of a model that runs in torch. A fit elsewhere comes on torch's default device.

    Raises:
        ModelError: The model is written for another framework.

    Example:
        >>> import ismcore_torch
        >>> result = ismcore.fit(np.linspace(-1.0, 1.0, 100), model=ismcore.Affine(), epochs=1, backend="autograd")
        >>> list(ismcore_torch.module(result).state_dict())
        ['weight', 'bias']
    """
    from ismcore_torch.backend import TorchBackend

    check_language(result.model, "torch")
    engine = TorchBackend(result.dtype, result.device if result.backend == "torch" else "auto")
    with engine.scope():
        return Score(result.model, engine.asarrays(result.params))

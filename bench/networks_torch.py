"""Networks of torch for `bench/networks.py`."""

from __future__ import annotations

import copy
from typing import Any

import ismcore_torch
import numpy as np
import torch
from networks import Case
from torch.nn.attention import SDPBackend, sdpa_kernel

import ismcore


def _score(model: Any) -> tuple[torch.nn.Module, Any]:
    """A float64 copy of the network, and the score of one batch."""
    energy = isinstance(model, ismcore.Energy)
    net = copy.deepcopy(model.net if energy else model).double()

    def score(x: torch.Tensor) -> torch.Tensor:
        if not energy:
            return net(x)
        at = x if x.requires_grad else x.detach().requires_grad_()
        return -torch.autograd.grad(net(at).sum(), at, create_graph=True)[0]

    return net, score


def _trained(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def parameters(model: Any) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in _trained(_score(model)[0]).items()}


def right(model: Any, x: np.ndarray) -> tuple[float, dict[str, np.ndarray], np.ndarray]:
    net, score = _score(model)
    with sdpa_kernel(SDPBackend.MATH):
        rows = torch.tensor(x)
        jacobians = [torch.autograd.functional.jacobian(lambda r: score(r[None])[0], row, create_graph=True) for row in rows]
        diagonal = torch.stack([jacobian.diagonal() for jacobian in jacobians])
        psi = torch.cat([score(row[None]) for row in rows])
        loss = (0.5 * psi.square().sum(1) + diagonal.sum(1)).mean()
        trained = _trained(net)
        slopes = torch.autograd.grad(loss, list(trained.values()), materialize_grads=True)
    return loss.item(), {k: g.numpy() for k, g in zip(trained, slopes, strict=True)}, diagonal.detach().numpy()


def own_loss(model: Any, x: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    net, score = _score(model)
    loss = ismcore_torch.implicit_score_matching(score, torch.tensor(x))
    loss.backward()
    slopes = {name: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for name, p in _trained(net).items()}
    return loss.item(), slopes


def called(native: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    return native(torch.tensor(x)).detach().numpy()


def mlp(activation: torch.nn.Module, *norm: torch.nn.Module) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 8), *norm, activation, torch.nn.Linear(8, 3))


CASES = (
    Case("activations", "tanh", lambda: mlp(torch.nn.Tanh())),
    Case("activations", "ReLU", lambda: mlp(torch.nn.ReLU()), "refused: piecewise linear"),
)

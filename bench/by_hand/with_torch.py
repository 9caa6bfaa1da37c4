"""What a careful user writes in torch: nested reverse mode and torch.optim.Adam."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

ACTIVATIONS = {"sigmoid": torch.nn.Sigmoid, "softplus": torch.nn.Softplus, "tanh": torch.nn.Tanh}


def network(case, dtype, device):
    """With the parameters of the case: the score, or the energy as (n, 1)."""
    sizes = (case.d, *case.hidden, 1 if case.energy else case.d)
    layers = []
    for into, out in pairwise(sizes):
        layers += [torch.nn.Linear(into, out), ACTIVATIONS[case.activation]()]
    net = torch.nn.Sequential(*layers[:-1]).to(device=device, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for name, value in case.params.items():
            _, layer, kind = name.split(".")
            getattr(net[2 * int(layer)], kind).copy_(torch.from_numpy(value))
    return net


def nested(psi, x, weight):
    """The loss, with the diagonal by one backward pass for each dimension."""
    columns = (torch.autograd.grad(psi[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1]))
    diagonal = torch.stack(tuple(columns), dim=1)
    terms = 0.5 * psi.square() + diagonal
    return (terms + weight * diagonal.square() if weight else terms).sum(dim=1).mean()


def square(psi, x, weight):
    """The squared score alone."""
    return 0.5 * psi.square().sum(dim=1).mean()


def descend(net, loss_of, rate, epochs):
    """Adam on the parameters of a network, in place; returns the losses before each step."""
    adam = torch.optim.Adam(net.parameters(), lr=rate)
    losses = []
    for _ in range(epochs):
        loss = loss_of()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    if loss.is_cuda:
        torch.cuda.synchronize()
    return np.array(losses)


def prepare(case, dtype, device="cpu"):
    x = torch.tensor(case.x, dtype=getattr(torch, dtype), device=device)

    def loop(loss_of, differentiable):
        def run(epochs):
            net = network(case, dtype, device)
            points = x.clone().requires_grad_(differentiable)
            return descend(net, lambda: loss_of(net(points), points, case.curvature_weight), case.rate, epochs)

        return run

    found = {"hand": loop(nested, True)}
    if "square" in case.beside:
        found["squared score"] = loop(square, False)
    return found

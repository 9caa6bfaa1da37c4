"""Losses of an energy by ebmkit, torchebm and toy-gradlogp, in the loop that a user writes around them."""

from __future__ import annotations

import torch
from by_hand.with_torch import descend, network

from by_others import names


class TorchEnergy(torch.nn.Module):
    """U(x), (n, d) -> (n,), from a network (n, d) -> (n, 1); the score is - grad U."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).squeeze(-1)


def ebmkit(energy, x):
    from ebm import ExactScoreMatching

    exact = ExactScoreMatching()
    return lambda: exact(energy, x).loss


def torchebm(energy, x):
    from torchebm.losses import ScoreMatching

    exact = ScoreMatching(model=energy, hessian_method="exact", dtype=x.dtype, device=x.device)
    return lambda: exact(x)


def toy_gradlogp(energy, x):
    from toy_gradlogp.energy import Energy, Trainer

    trainer = Trainer(Energy(energy.net), loss_type="ssm-vr", noise_type="radermacher", device=x.device)
    return lambda: trainer.get_loss(x)


LOSSES = {"ebmkit": ebmkit, "torchebm": torchebm, "toy-gradlogp": toy_gradlogp}


def prepare(case, dtype, device="cpu"):
    x = torch.tensor(case.x, dtype=getattr(torch, dtype), device=device)

    def loop(loss_of):
        def run(epochs):
            energy = TorchEnergy(network(case, dtype, device))
            return descend(energy, loss_of(energy, x), case.rate, epochs)

        return run

    return {name: loop(LOSSES[name]) for name in names(case, "torch")}

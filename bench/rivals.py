"""Beside other people's code, in the same process: equal values and gradients, and the bias of trace estimators.

    python bench/rivals.py [--repeats N]

Needs ebmkit, torchebm and toy-gradlogp, which are no dependency of ismcore: see README.md in this folder. Float64, CPU.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import ebm
import numpy as np
import torch
import torchebm.losses
from by_others import PROGRAMS
from by_others.with_torch import TorchEnergy
from measuring import PACKAGES, error, heading, machine, versions, write_report
from toy_gradlogp.energy import Energy as ToyEnergy
from toy_gradlogp.energy import Trainer as ToyTrainer

import ismcore

RIVALS = PROGRAMS["torch"]
DIMENSIONS = (1, 2, 5, 20)
MODEL = ismcore.Energy(ismcore.MLP((16,), "tanh"))
TOLERANCE = 1e-12
ROWS = 256


def by_name(energy, of):
    """The library's parameter names: layer k of the network is the torch module 2 k."""
    layers = {0: energy.net[0], 1: energy.net[2]}
    return {f"layers.{k}.{name}": of(getattr(layer, name)) for k, layer in layers.items() for name in ("weight", "bias")}


def problem(d):
    """U = a . tanh(W x + b) + c, its parameters as NumPy arrays, and samples, the same for everyone."""
    torch.manual_seed(d)
    energy = TorchEnergy(torch.nn.Sequential(torch.nn.Linear(d, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double())
    with torch.no_grad():
        # tanh is concave at 1: so the divergence has one sign, and is no small difference of large terms
        energy.net[0].bias.fill_(1.0)
        energy.net[2].weight.abs_().neg_()
    params = by_name(energy, lambda parameter: parameter.detach().numpy().copy())
    return energy, params, torch.randn(ROWS, d, dtype=torch.float64)


def values(energy, loss):
    """Loss and gradient by name; a parameter that the loss does not see has gradient zero."""
    energy.zero_grad()
    loss.backward()
    return {
        "loss": np.asarray(loss.detach().numpy()),
        **by_name(energy, lambda p: np.zeros(p.shape) if p.grad is None else p.grad.numpy().copy()),
    }


def ours(params, x, objective, seed=0):
    return ismcore.evaluate(MODEL, params, x.numpy(), objective, backend="torch", dtype="float64", seed=seed)


def our_values(params, x, objective):
    at = ours(params, x, objective)
    return {"loss": np.asarray(at.loss), **at.gradient}


@dataclass
class Equality:
    what: str
    rival: str
    loss: float
    error: float


def equalities():
    """Exact losses of an energy at d = 3, and the variance-reduced sliced one with the same probes."""
    energy, params, x = problem(3)
    probes = torch.randn_like(x).sign()
    exact = our_values(params, x, ismcore.ImplicitScoreMatching())
    nested = our_values(params, x, ismcore.ImplicitScoreMatching(divergence="nested"))
    sliced = our_values(params, x, ismcore.SlicedScoreMatching(probes=probes.numpy()[None]))
    toy = ToyTrainer(ToyEnergy(energy.net), n_slices=1, device="cpu")
    rivals = [
        ("exact", "ebmkit ExactScoreMatching", exact, lambda: ebm.ExactScoreMatching()(energy, x).loss),
        ("exact", "torchebm ScoreMatching, exact", exact, lambda: approximate(energy, "exact")(x)),
        ("exact", "ismcore, nested", exact, nested),
        (
            "sliced, variance-reduced",
            "toy-gradlogp ssm_vr_loss, same probes",
            sliced,
            lambda: toy.ssm_vr_loss(x.clone(), probes),
        ),
    ]
    for what, name, expected, theirs in rivals:
        found = values(energy, theirs()) if callable(theirs) else theirs
        worst = error(found, expected)
        assert worst < TOLERANCE, f"{name}: {what} differs by {worst:.1e}"
        yield Equality(what, name, float(found["loss"]), worst)


def approximate(energy, method):
    return torchebm.losses.ScoreMatching(model=energy, hessian_method=method, dtype=torch.float64)


def estimators(energy, params, x):
    """Name, and what gives one value of the loss for each repeat."""
    for law in ("rademacher", "gaussian", "sphere"):
        objective = ismcore.ImplicitScoreMatching(divergence=ismcore.Hutchinson(1, law))
        yield f"ismcore Hutchinson(1), {law}", lambda k, objective=objective: ours(params, x, objective, seed=k).loss
    plain = ismcore.SlicedScoreMatching(variance_reduced=False)
    yield "ismcore SlicedScoreMatching, plain, rademacher", lambda k: ours(params, x, plain, seed=k).loss
    reduced = ebm.SlicedScoreMatching(1, vr=True)
    yield "ebmkit SlicedScoreMatching(1, vr=True)", lambda k: reduced(energy, x).loss.item()
    sliced = torchebm.losses.SlicedScoreMatching(
        model=energy, n_projections=1, projection_type="rademacher", dtype=torch.float64
    )
    yield "torchebm SlicedScoreMatching(1), rademacher", lambda k: sliced(x).item()
    approx = approximate(energy, "approx")
    yield 'torchebm ScoreMatching(hessian_method="approx")', lambda k: approx(x).item()


@dataclass
class Bias:
    d: int
    estimator: str
    exact: float
    mean: float
    deviation: float
    standard_error: float
    trace_ratio: float

    @property
    def bias(self):
        return self.mean - self.exact

    @property
    def unbiased(self):
        """Within four standard errors, beside rounding, and what finite differences of step 1e-5 leave."""
        return abs(self.bias) < 4.0 * self.standard_error + 1e-9


def biases(repeats):
    """Mean and standard deviation of each estimator of the loss on the same samples, against the exact loss.

    The trace ratio is (mean - 1/2 mean |psi|^2) / mean div psi: what is left of the loss beside the squared norm, over what it
    should be.
    """
    for d in DIMENSIONS:
        energy, params, x = problem(d)
        at = ours(params, x, ismcore.ImplicitScoreMatching())
        square = 0.5 * float(np.mean(np.sum(at.score**2, axis=1)))
        for name, draw in estimators(energy, params, x):
            torch.manual_seed(1)
            found = np.array([draw(k) for k in range(repeats)])
            deviation = float(found.std(ddof=1))
            ratio = (float(found.mean()) - square) / (at.loss - square)
            yield Bias(d, name, at.loss, float(found.mean()), deviation, deviation / np.sqrt(repeats), ratio)


def report(equal, bias, repeats):
    lines = [
        heading("Beside other people's code", "python bench/rivals.py", packages=(*PACKAGES[:4], *RIVALS)),
        f"## Equal values: energy, d = 3, 16 tanh units, float64, n = {ROWS}",
        "",
        "U = a . tanh(W x + b) + c, standard normal samples; b = 1 and a < 0, so the divergence has one sign, else torch's",
        "own initial draws.",
        "",
        "Difference: of the loss and of every parameter's gradient, relative to max(1, largest magnitude), from ismcore's.",
        "",
        "| loss | computed by | value | largest difference |",
        "|---|---|---|---|",
        *(f"| {e.what} | {e.rival} | {e.loss:.15f} | {e.error:.1e} |" for e in equal),
        "",
        "## Estimators of the trace: bias and spread",
        "",
        f"The loss of the same energy on the same {ROWS} samples, {repeats} draws of one probe a sample. Trace ratio: the",
        "mean less 1/2 |psi|^2, over the exact divergence; 1 for an unbiased estimator.",
        "",
        "| d | estimator | exact | mean | bias | standard error | standard deviation | trace ratio | bias < 4 s.e. |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for b in bias:
        numbers = f"{b.exact:.6f} | {b.mean:.6f} | {b.bias:+.1e} | {b.standard_error:.1e} | {b.deviation:.1e}"
        lines.append(f"| {b.d} | {b.estimator} | {numbers} | {b.trace_ratio:.3f} | {'yes' if b.unbiased else 'no'} |")
    note = 'The trace ratio of torchebm 0.8.9 with `hessian_method="approx"` is 1/d: right in the mean at d = 1 alone.'
    return "\n".join([*lines, "", note, ""])


def main():
    parser = argparse.ArgumentParser(description="Values and biases beside ebmkit, torchebm and toy-gradlogp.")
    parser.add_argument("--repeats", type=int, default=400)
    repeats = parser.parse_args().repeats
    equal, bias = list(equalities()), list(biases(repeats))
    wrong = [b for b in bias if b.estimator.startswith("ismcore") and not b.unbiased]
    assert not wrong, f"biased: {wrong}"
    text = report(equal, bias, repeats)
    data = {"machine": machine(), "versions": versions((*PACKAGES[:4], *RIVALS)), "equal": [vars(e) for e in equal]}
    write_report("rivals", text, data | {"bias": [vars(b) for b in bias]})
    sys.stdout.write(text)


if __name__ == "__main__":
    main()

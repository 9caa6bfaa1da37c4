"""A fit by hand: a tanh network, its loss and gradient, batches, Adam and all that goes with them, in plain NumPy.

Nothing here is the library's. Random streams are children of `numpy.random.SeedSequence(seed)`, by the bytes of their names.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

H = 1e-30


def stream(seed, name, number=0):
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*name.encode(), number)))


def loss(params, x, weight, curvature_weight):
    """sum_n w_n [ 1/2 |psi|^2 + sum_i J_ii + lambda J_ii^2 ], psi(x) = W2 tanh(W1 x + b1) + b2; parameters may be complex."""
    w1, b1, w2, b2 = (params[f"layers.{k}.{name}"] for k in (0, 1) for name in ("weight", "bias"))
    t = np.tanh(x @ w1.T + b1)
    psi = t @ w2.T + b2
    diagonal = (1.0 - t * t) @ (w1 * w2.T)
    return weight @ (0.5 * psi * psi + diagonal + curvature_weight * diagonal * diagonal).sum(axis=1)


def loss_and_gradient(params, x, weight, curvature_weight):
    """The gradient by complex steps: exact but for rounding."""
    slopes = {}
    for name, value in params.items():
        slope = np.empty_like(value)
        for index in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[index] += 1j * H
            slope[index] = loss({**params, name: moved}, x, weight, curvature_weight).imag / H
        slopes[name] = slope
    return loss(params, x, weight, curvature_weight), slopes


@dataclass
class Replay:
    """What became of a run."""

    params: dict
    losses: list = field(default_factory=list)
    rates: list = field(default_factory=list)
    validation: dict = field(default_factory=dict)
    lengths: list = field(default_factory=list)
    best_epoch: int = 0
    best: dict = None
    status: str = "completed"


def held_out(n, share, seed):
    """Rows held out of n different ones: the first of a drawn order, until they are the share."""
    order = stream(seed, "split").permutation(n)
    out = np.zeros(n, dtype=bool)
    out[order[: int(np.ceil(share * n - 1e-9))]] = True
    return out


def batches(n, size, seed, epoch):
    """All rows in a drawn order, cut into equal parts of at most `size` rows, the longer ones later."""
    parts = -(-n // size)
    order = stream(seed, "shuffle", epoch).permutation(n)
    ends = [n * k // parts for k in range(parts + 1)]
    return [order[a:b] for a, b in pairwise(ends)]


def factor(shape, warmup, end, step, total):
    """The factor on the learning rate at a step of a schedule."""
    warm = round(warmup * total)
    if step < warm:
        return (step + 1) / warm
    p = (step - warm) / (total - warm)
    if shape == "cosine":
        return end + (1 - end) * (1 + np.cos(np.pi * p)) / 2
    return end**p if shape == "exponential" else 1.0


def fit(
    x,
    params,
    *,
    validation_x=None,
    weight=None,
    judge_weight=None,
    curvature_weight=0.0,
    epochs=10,
    batch_size=None,
    rate=1e-2,
    schedule=("constant", 0.0, 0.0),
    clip_norm=np.inf,
    average_decay=None,
    patience=0,
    seed=0,
):
    """The run; a schedule is (shape, warmup, end), or a list with one rate an epoch."""
    n = len(x)
    weight = np.full(n, 1.0 / n) if weight is None else weight / weight.sum()
    params = {name: np.array(value, dtype=np.float64) for name, value in params.items()}
    average = dict(params)
    first, second = ({name: 0.0 * value for name, value in params.items()} for _ in range(2))
    run = Replay(params)
    whole = batch_size is None
    total = epochs * len(batches(n, n if whole else batch_size, seed, 0))
    every = max(1, epochs // 100)
    step, best_loss = 0, np.inf
    for epoch in range(epochs):
        mean = 0.0
        for number, rows in enumerate([np.arange(n)] if whole else batches(n, batch_size, seed, epoch)):
            here = schedule[epoch] if isinstance(schedule, list) else rate * factor(*schedule, step, total)
            if number == 0:
                run.rates.append(here)
            value, slopes = loss_and_gradient(params, x[rows], weight[rows] * n / len(rows), curvature_weight)
            mean += value * len(rows) / n
            length = np.sqrt(sum((g**2).sum() for g in slopes.values()))
            run.lengths.append(length)
            step += 1
            for name, g in slopes.items():
                g = g * min(1.0, clip_norm / length)
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
                root = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
                params[name] = params[name] - here * first[name] / (1 - 0.9**step) / root
                if average_decay is not None:
                    keep = min(average_decay, step / (9 + step))  # (1 + t) / (10 + t) at step t, counted from 0
                    average[name] = keep * average[name] + (1 - keep) * params[name]
        run.losses.append(mean)
        run.params = dict(average if average_decay is not None else params)
        done = epoch + 1
        run.best_epoch = run.best_epoch if run.best else done
        if validation_x is None or not (done % every == 0 or done == epochs or (done < every and bin(done).count("1") == 1)):
            continue
        by = np.ones(len(validation_x)) if judge_weight is None else judge_weight
        run.validation[done] = loss(run.params, validation_x, by / by.sum(), curvature_weight)
        if run.validation[done] < best_loss - 1e-6 * max(1.0, abs(best_loss if run.best else 0.0)):
            best_loss, run.best, run.best_epoch = run.validation[done], run.params, done
        if patience and done - run.best_epoch >= patience:
            run.status = "early_stopped" if done < epochs else "completed"
            break
    run.params = run.best or run.params
    return run

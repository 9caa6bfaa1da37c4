"""One of the processes that share a fit: `python tests/ranks.py BACKEND CASES FOLDER [HOW]`, in the environment of torchrun."""

import os
import signal
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

import ismcore
from ismcore.backend.processes import shared

X = np.random.default_rng(5).normal(size=(1201, 2)) @ np.array([[1.0, 0.4], [0.0, 0.7]])
WEIGHT = np.random.default_rng(6).uniform(0.5, 1.5, len(X))
MODEL = ismcore.MLP((6,), "tanh")
PLAIN = {"dtype": "float64", "recipe": "single", "model": MODEL, "progress": False}
NOISE = ismcore.DenoisingScoreMatching(0.3)
CASES = {
    "batches": {"epochs": 4, "batch_size": 100},
    "weights": {"epochs": 4, "batch_size": 77, "sample_weight": WEIGHT, "clip_norm": 0.5, "average_decay": 0.9},
    "whole": {"epochs": 20, "batch_size": "all", "validation": 0},
    "noise": {"epochs": 4, "batch_size": 100, "objective": NOISE},
    "folds": {"epochs": 10, "recipe": "default", "model": None, "ensemble": 2},
    "source": {"epochs": 3, "batch_size": 128},
    "npy": {"epochs": 3, "batch_size": 128},
    "parquet": {"epochs": 3, "batch_size": 128},
    "source-noise": {"epochs": 3, "batch_size": 128, "objective": NOISE},
    "long-npy": {"epochs": 3000, "batch_size": 40, "validation": 0, "schedule": "constant"},
}

REFUSED = ({"backend": "autograd"}, {"compile": "off"}, {"optimizer": ismcore.LBFGS(), "batch_size": None})


def samples(case, folder):
    """The rows of X in memory, as a source over it, or from where `write` wrote them."""
    if case.endswith("npy"):
        return ismcore.sources.npy(folder / "x.npy", block_rows=40)
    if case == "parquet":
        return ismcore.sources.parquet(folder / "x.parquet", block_rows=40)
    return ismcore.sources.array(X, block_rows=40) if case.startswith("source") else X


def write(folder):
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    np.save(folder / "x.npy", X)
    pq.write_table(pa.table({"a": X[:, 0], "b": X[:, 1]}), folder / "x.parquet", row_group_size=97)


def fitted(case, backend="torch", folder=None, **options):
    return ismcore.fit(samples(case, folder), **{**PLAIN, "backend": framework(backend), **CASES[case], **options})


def framework(backend):
    return "jax" if backend == "devices" else backend


def processes(backend):
    """What shares fits, in the environment of torchrun: processes of torch or JAX, or "devices" of one of JAX."""
    if backend == "torch":
        return import_module("ismcore_torch").processes()
    if backend == "devices":
        return import_module("ismcore_jax").devices()
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return import_module("ismcore_jax").processes(address, int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]))


def arrays(result):
    parts = result.params if isinstance(result.params, dict) else dict(result.params)
    return {**parts, "loss": result.history["loss"]}


def told(call):
    """Say on standard error what a call is refused with."""
    try:
        call()
    except ismcore.IsmError as error:
        sys.stderr.write(f"{error}\n")


def module(seed):
    torch = import_module("torch")
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).double()


def refused(case, backend, rank, folder):
    """What is said to options that cannot be shared, or are not the same in each process, one after the other."""
    for options in REFUSED:
        told(lambda options=options: fitted(case, **{"backend": backend, **options}))
    plain = {**PLAIN, "backend": backend}
    told(lambda: ismcore.fit(X + float(rank), **plain, **CASES[case]))
    start = {name: value + rank for name, value in MODEL.initial_params(0, 2).items()}
    told(lambda: fitted(case, backend, initial_params=start))
    told(lambda: fitted(case, backend, epochs=3 + rank, objective=ismcore.DenoisingScoreMatching(0.3 + rank)))
    told(lambda: fitted(case, backend, checkpoint=folder / "taken"))
    told(lambda: ismcore.Refit(X, backend=backend))
    told(lambda: ismcore.sweep([{}], x=X, **plain))
    told(lambda: fitted(case, backend, model=module(rank), initial_params=None))
    fitted(case, backend, epochs=1)
    told(lambda: shared().total(import_module("torch").zeros(2, dtype=import_module("torch").int16)))


def left_by_one(case, backend, rank, folder):
    """An error that one process puts up with; the fit after it has none of the others to go on with."""
    for callbacks in ([fails] if rank else [], []):
        told(lambda callbacks=callbacks: fitted(case, backend, folder, callbacks=callbacks))


def main(backend, case, folder, how="all"):
    rank, folder = os.environ["RANK"], Path(folder)
    with processes(backend):
        if how.startswith("all"):
            for name in case.split(","):
                np.savez(folder / f"{name}-{rank}.npz", **arrays(fitted(name, backend, folder)))
            if how == "all":
                return
            left_by_one(name, backend, int(rank), folder)
        elif how == "refused":
            refused(case, backend, int(rank), folder)
            return
        elif how == "raises-in-1":
            result = fitted(case, backend, callbacks=[fails] if rank == "1" else [])
        elif how == "resume":
            result = ismcore.resume(folder / "run", samples(case, folder), epochs=int(os.environ["EPOCHS"]))
        elif how == "checkpoint":
            where = ismcore.Checkpoint(folder / "run", every=0.05)
            result = fitted(
                case, backend, folder, checkpoint=where, callbacks=[lambda event: (folder / f"begun{rank}").touch()]
            )
    if how == "all-but-left":
        signal.raise_signal(signal.SIGTERM)  # which ends a program afterwards as it did before
    np.savez(folder / f"{rank}.npz", **arrays(result))


def fails(event):
    if event.epoch:
        raise ValueError("a callback of process 1")


if __name__ == "__main__":
    main(*sys.argv[1:])

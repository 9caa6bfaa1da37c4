"""The floor in C, `floor.c`, built where a compiler is there."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("floor.c")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp-simd", "-shared", "-fPIC")


def compiler() -> str | None:
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


@cache
def library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "floor.so"
        subprocess.run([compiler(), *FLAGS, str(SOURCE), "-o", str(built), "-lm"], check=True)  # noqa: S603  (our own source)
        return ctypes.CDLL(str(built))


def serves(case, dtype):
    """Whether there is this floor: one hidden layer of sigmoids in one dimension, in float32, and a compiler."""
    shallow = case.d == 1 and len(case.hidden) == 1 and case.activation == "sigmoid"
    return shallow and dtype == "float32" and compiler() is not None


def prepare(case, dtype, device="cpu"):
    """One thread, for the cases that it serves."""
    if not serves(case, dtype):
        return {}
    train = library().train
    floats, doubles = (np.ctypeslib.ndpointer(kind, flags="C_CONTIGUOUS") for kind in (np.float32, np.float64))
    real = ctypes.c_double
    train.argtypes = [
        floats,
        floats,
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_float,
        real,
        real,
        real,
        real,
        ctypes.c_long,
        doubles,
    ]
    x = np.ascontiguousarray(case.x[:, 0], dtype=np.float32)
    p = case.params
    names = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")
    start = np.concatenate([p[name].ravel() for name in names]).astype(np.float32)

    def run(epochs):
        theta, losses = start.copy(), np.empty(epochs)
        code = train(theta, x, len(x), case.hidden[0], case.curvature_weight, case.rate, 0.9, 0.999, 1e-8, epochs, losses)
        assert code == 0, "the hidden layer is wider than the buffers of floor.c"
        return losses

    return {"C": run}

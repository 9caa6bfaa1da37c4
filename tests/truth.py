"""The ground truth in tests/data, as arrays."""

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import ismcore
from ismcore.plugins.lookup import load_backend

DATA = Path(__file__).parent / "data"
BACKENDS = ("autograd", "torch", "jax")
BUNDLED = {
    name: "missing" if name in os.environ.get("ISMCORE_TESTS_WITHOUT", "").split(",") else "ready"
    for name in ("jax", "torch", "autograd")
}
"""The status of each, in their order; all are ready, but for what a run says that it does without."""
READY = [name for name, status in BUNDLED.items() if status == "ready"]
SLOW = {"jax", "nnx", "equinox"}
"""Backends and libraries of networks that compile for most cases: where a law is tested on each, these are marked slow."""
DTYPES = ("float32", "float64")
PLAIN = {"recipe": "reference", "standardize": True}
"""Options of `fit`: all rows at each step, at one rate, for all epochs, with nothing held out."""
SMALL_SAMPLE = ("ignore:too few rows:ismcore.IsmWarning", "ignore:the held-out part has:ismcore.IsmWarning")
"""What fits to a few rows say, for tests whose laws hold of any number of rows."""


def needs(name):
    """Fail by the error itself where a backend's framework is missing, before a child process does so by words alone."""
    if BUNDLED[name] == "missing":
        load_backend(name)


def marked(names, more=()):
    """Parameters of a test: each name, with what more the test takes; those of `SLOW` are marked."""
    return [pytest.param(name, *more, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


@cache
def read(name):
    return json.loads((DATA / f"{name}.json").read_text())


def array(nested):
    return np.array(nested, dtype=np.float64)


def relative_error(found, expected):
    """Largest error, relative to max(1, largest magnitude)."""
    expected = array(expected)
    found = np.asarray(found)
    assert found.shape == expected.shape
    return np.max(np.abs(found - expected)) / max(1.0, np.max(np.abs(expected)))


@dataclass(frozen=True)
class Golden:
    """One case of golden.json."""

    raw: dict

    @property
    def is_stress(self):
        return self.raw["id"].startswith("stress")

    @property
    def model(self):
        net = ismcore.MLP(tuple(self.raw["sizes"][1:-1]), self.raw["activation"])
        return ismcore.Energy(net) if self.raw["kind"] == "energy" else net

    @property
    def params(self):
        return self._named(self.raw["layers"])

    @property
    def x(self):
        return array(self.raw["X"])

    @property
    def score(self):
        return array(self.raw["psi"])

    @property
    def jacobian_diagonal(self):
        return np.einsum("nii->ni", array(self.raw["jac"]))

    def gradient(self, loss):
        return self._named(self.raw["grad"][loss])

    @staticmethod
    def _named(layers):
        named = {}
        for number, layer in enumerate(layers):
            named[f"layers.{number}.weight"], named[f"layers.{number}.bias"] = array(layer["W"]), array(layer["b"])
        return named


def golden(kind):
    return [Golden(case) for case in read("golden")["cases"] if case["kind"] == kind]


def replay():
    """The float64 replay of the reference run: initial gradient and final parameters by our names."""
    raw = read("reference_run")["replay_plain"]

    def named(p):
        w, b, a, c = (array(p[key]) for key in "wbac")
        return {"layers.0.weight": w[:, None], "layers.0.bias": b, "layers.1.weight": a[None, :], "layers.1.bias": c}

    return {**raw, "grad_init": named(raw["grad_init"]), "final_params_f64": named(raw["final_params_f64"])}


def correlated(n=64, d=3, seed=7):
    """Correlated, shifted, unequally scaled samples with n != d."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) + 2.0 * np.eye(d)
    return rng.standard_normal((n, d)) @ mix * np.arange(1.0, d + 1.0) + np.arange(d)

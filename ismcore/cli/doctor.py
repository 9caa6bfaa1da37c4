"""`ismcore doctor`: what is installed here, and whether each backend computes what it should."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ismcore.backend.contract import DTYPES
from ismcore.datasets import reference_run
from ismcore.fitting.fit import fit
from ismcore.models import Affine
from ismcore.objectives import ImplicitScoreMatching
from ismcore.plugins.lookup import BackendStatus, backends, load_backend
from ismcore.plugins.registry import described
from ismcore.results.evaluate import evaluate
from ismcore.results.result import versions

__all__ = ["Examination", "Finding", "examine"]

SETTINGS = (
    "ISMCORE_BACKEND",
    "ISMCORE_PLUGINS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "JAX_PLATFORMS",
    "XLA_FLAGS",
)
"""Environment variables that change what a fit does or how fast it is."""

TOLERANCES = {"float64": 1e-12, "float32": 2e-5}
"""Largest error of loss and gradient, relative to max(1, largest magnitude)."""

PUBLISHED = 1e-6
"""Largest difference from the losses of the reference run."""


@dataclass(frozen=True)
class Finding:
    """One check and what came of it.

    Attributes:
        backend: The backend, or the plugin.
        check: What was checked.
        passed: Whether it is well.
        detail: The error and what is allowed, or what went wrong.
        seconds: How long it took.
    """

    backend: str
    check: str
    passed: bool
    detail: str
    seconds: float

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAILED"
        return f"{verdict:8}{self.backend:12} {self.check:26} {self.seconds:5.1f} s  {self.detail}"


@dataclass(frozen=True)
class Examination:
    """All that `ismcore doctor` finds; prints as a report.

    Attributes:
        versions: Of Python, ismcore, NumPy and the frameworks.
        platform: Operating system, processor and interpreter.
        threads: Processors of the machine, and those that this process may use.
        blas: Name and version of the library behind NumPy's products.
        settings: Environment variables that matter here, as far as they are set.
        devices: Devices of each backend that loads.
        plugins: Every backend and plugin, where it comes from, and its status.
        findings: What was checked.
    """

    versions: dict[str, str]
    platform: dict[str, str]
    threads: dict[str, int]
    blas: str
    settings: dict[str, str]
    devices: dict[str, tuple[str, ...]]
    plugins: tuple[BackendStatus, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether a backend is ready, and nothing is wrong."""
        return bool(self.devices) and all(finding.passed for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The same in strings, numbers, lists and dicts."""
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        failed, total = sum(not finding.passed for finding in self.findings), len(self.findings)
        facts = {
            "versions": _listed(self.versions, " "),
            "platform": _listed(self.platform, " "),
            "threads": _listed(self.threads, " "),
            "blas": self.blas,
            "settings": _listed(self.settings, "=") or "none of " + ", ".join(SETTINGS),
            "devices": "; ".join(f"{name}: {', '.join(devices)}" for name, devices in self.devices.items()),
        }
        verdict = f"{failed} of {total} checks failed" if failed else f"all {total} checks passed"
        blocks = [
            [f"{name:10}{value}" for name, value in facts.items()],
            [f"{status}  [{' '.join(filter(None, (status.origin, status.file)))}]" for status in self.plugins],
            [str(finding) for finding in self.findings],
            [verdict if self.devices else f"no backend is ready; {verdict}"],
        ]
        return "\n\n".join("\n".join(lines) for lines in blocks)


def _listed(facts: dict[str, Any], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in facts.items())


def examine(names: Iterable[str] = ()) -> Examination:
    """Look at the installation, and run a fit and a comparison with a hand-made formula on each backend that is ready.

    Whatever a backend raises becomes a finding. A plugin that is broken, incompatible or in conflict is one too; a framework
    that is not installed is none.

    Args:
        names: Backends and plugins to examine; all if empty.

    Cost: a second or two a backend, beside importing its framework.
    """
    wanted = set(names)
    plugins = tuple(status for status in backends() if not wanted or status.name in wanted)
    devices: dict[str, tuple[str, ...]] = {}
    findings: list[Finding] = []
    for status in plugins:
        if status.status == "ready":
            findings += _examine_backend(status.name, devices)
        elif status.status != "missing":
            findings.append(Finding(status.name, "plugin", False, f"{status.status}: {status.reason}", 0.0))
    packages = [name for status in plugins for name in status.versions]
    return Examination(
        versions=versions(tuple(dict.fromkeys(packages))),
        platform={"system": platform.platform(), "machine": platform.machine(), "interpreter": sys.executable},
        threads={"processors": os.cpu_count() or 1, "usable": _usable_processors()},
        blas=_blas(),
        settings={name: os.environ[name] for name in SETTINGS if name in os.environ},
        devices=devices,
        plugins=plugins,
        findings=tuple(findings),
    )


def _examine_backend(name: str, devices: dict[str, tuple[str, ...]]) -> list[Finding]:
    dtypes: list[str] = []

    def load() -> str:
        found = load_backend(name)
        dtypes.extend(dtype for dtype in DTYPES if dtype in found.dtypes)
        devices[name] = tuple(found.devices())
        return f"on {found.default_device()} unless said"

    findings = [_attempt(name, "loads", load)]
    for dtype in dtypes:
        findings.append(_attempt(name, f"loss and gradient, {dtype}", _parity, name, dtype))
    for dtype in dtypes[:1]:
        findings.append(_attempt(name, f"reference fit, {dtype}", _reference_fit, name, dtype))
    return findings


def _attempt(backend: str, check: str, run: Callable[..., str], *args: str) -> Finding:
    began = time.monotonic()
    try:
        detail, passed = run(*args), True
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may raise anything
        detail, passed = described(error), False
    return Finding(backend, check, passed, detail, time.monotonic() - began)


def _judge(error: float, tolerance: float) -> str:
    if not error <= tolerance:  # NaN fails too
        raise ArithmeticError(f"off by {error:.1e}; allowed is {tolerance:.0e}")
    return f"off by {error:.1e}; allowed is {tolerance:.0e}"


def _parity(backend: str, dtype: str) -> str:
    """Compare with psi(x) = W x + b, whose loss and gradient are known by hand.

        J = mean_n 1/2 |psi(x_n)|^2 + tr W + lambda sum_i W_ii^2
        dJ/dW = mean_n psi(x_n) x_n^T + 1 + 2 lambda diag(W),   dJ/db = mean_n psi(x_n)

    W is far from symmetric and n != d, so that a transposed or summed Jacobian cannot pass.
    """
    weight = np.array([[-1.0, 0.5, -0.25], [1.5, -2.0, 0.75], [-0.5, 0.125, -1.25]])
    bias, curvature_weight = np.array([0.5, -1.0, 0.25]), 0.125
    x = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5], [-2.0, 1.0, 0.0], [0.75, -0.75, 1.25], [-0.25, 2.5, -1.5]])
    psi, diagonal = x @ weight.T + bias, np.diag(weight)
    expected = {
        "loss": np.mean(0.5 * np.sum(psi**2, axis=1)) + diagonal.sum() + curvature_weight * np.sum(diagonal**2),
        "weight": psi.T @ x / len(x) + np.eye(3) + 2.0 * curvature_weight * np.diag(diagonal),
        "bias": psi.mean(axis=0),
    }
    objective = ImplicitScoreMatching(curvature_weight, divergence="nested")
    at = evaluate(Affine(), {"weight": weight, "bias": bias}, x, objective, backend=backend, dtype=dtype)
    found = {"loss": np.asarray(at.loss), **at.gradient}
    errors = [np.max(np.abs(found[name] - right)) / max(1.0, np.max(np.abs(right))) for name, right in expected.items()]
    return _judge(float(np.max(errors)), TOLERANCES[dtype])


def _reference_fit(backend: str, dtype: str) -> str:
    """Repeat the reference run, and compare with the losses that its author published."""
    run = reference_run()
    result = fit(
        run.sample,
        backend=backend,
        model=run.model,
        optimizer=run.optimizer,
        initial_params=run.initial_params,
        recipe="reference",
        epochs=int(run.epochs[-1]),
        dtype=dtype,
        progress=False,
    )
    return _judge(float(np.max(np.abs(result.history["loss"][run.epochs - 1] - run.losses))), PUBLISHED)


def _usable_processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _blas() -> str:
    config: Any = np.show_config(mode="dicts")  # type: ignore[func-returns-value, unused-ignore]
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return " ".join(str(blas[key]) for key in ("name", "version") if key in blas) or "unknown"

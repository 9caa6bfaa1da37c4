"""The process-wide state that a backend must leave as it found it. A framework's part is read only once it is imported."""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import threading
import warnings
from typing import Any

import numpy as np

__all__ = ["differences", "import_late_modules", "snapshot"]


def _python() -> dict[str, Any]:
    return {
        "os.environ": dict(os.environ),
        "working directory": os.getcwd(),
        "random's state": random.getstate(),
        "warnings.filters": list(warnings.filters),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "recursion limit": sys.getrecursionlimit(),
        "threading.excepthook": threading.excepthook,
    }


def _numpy() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  (the global generator is what must not move)
    return {
        "numpy.geterr": np.geterr(),
        "numpy.random's state": (name, np.asarray(keys).tobytes(), *rest),
        "numpy print options": str(np.get_printoptions()),
    }


def _torch(torch: Any) -> dict[str, Any]:
    return {
        "torch default dtype": torch.get_default_dtype(),
        "torch default device": str(torch.get_default_device()),
        "torch generator state": torch.random.get_rng_state().numpy().tobytes(),
        "torch threads": torch.get_num_threads(),
        "torch float32 matmul precision": torch.get_float32_matmul_precision(),
        "torch TF32 in cuDNN": torch.backends.cudnn.allow_tf32,
        "torch cuDNN benchmark": torch.backends.cudnn.benchmark,
        "torch deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch gradients enabled": torch.is_grad_enabled(),
        "torch inference mode": torch.is_inference_mode_enabled(),
        "torch anomaly detection": torch.is_anomaly_enabled(),
    }


def _jax(jax: Any) -> dict[str, Any]:
    # `values` holds what the process is set to, an attribute what this thread sees.
    seen = {f"jax {name} here": getattr(jax.config, name) for name in ("jax_enable_x64", "jax_default_matmul_precision")}
    return {**{f"jax {name}": value for name, value in jax.config.values.items()}, **seen}


FRAMEWORKS = {"torch": _torch, "jax": _jax}
LATE_MODULES = {"torch": ("torch._dynamo",)}
"""Modules that a framework imports on its own first use, with effects of theirs: torch.func's first call sets an environment
variable and, through sympy, warning filters (torch 2.13)."""


def import_late_modules() -> None:
    """Import those of the frameworks that are imported, so that a snapshot shows what a backend does, not its framework."""
    for framework, modules in LATE_MODULES.items():
        if framework in sys.modules:
            for module in modules:
                importlib.import_module(module)


def snapshot() -> dict[str, Any]:
    """The present state, by what it is called in a message."""
    found = {**_python(), **_numpy()}
    for name, read in FRAMEWORKS.items():
        if name in sys.modules:
            found.update(read(sys.modules[name]))
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed, in words. What only the later snapshot holds, a framework imported in between, is no change."""
    changed = [name for name in before if before[name] != after[name]]
    return [f"{name} from {_short(before[name], after[name])} to {_short(after[name], before[name])}" for name in changed]


def _short(value: Any, other: Any) -> str:
    """The part of a value in which it differs from another, in at most 60 characters."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {key: kept for key, kept in value.items() if key not in other or other[key] != kept}
    if isinstance(value, list) and isinstance(other, list):
        value = [kept for kept in value if kept not in other]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

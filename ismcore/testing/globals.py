"""The process-wide state that a backend must leave as it found it. A framework's part is read only once it is imported."""

from __future__ import annotations

import gc
import importlib
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from typing import Any

import numpy as np

__all__ = ["INHERITED", "Inherited", "differences", "import_late_modules", "snapshot", "with_default_signals"]


THREADS = "running threads"


class Inherited:
    """What a process inherits from the one that starts it, as it is when this is made.

    Attributes:
        environ: The environment.
        folder: The working directory.
    """

    def __init__(self) -> None:
        self.environ = dict(os.environ)
        self.folder = os.getcwd()


INHERITED = Inherited()
"""As it was when the kit was imported: a backend that was loaded since may have changed it, and a child would not show it."""


def with_default_signals() -> None:
    """Have this process hear signals as a new Python does: those that the parent ignored, it would ignore too."""
    for number in signal.valid_signals() - {getattr(signal, name, None) for name in ("SIGPIPE", "SIGXFSZ")}:
        if signal.getsignal(number) is signal.SIG_IGN:  # those two Python ignores itself
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _python() -> dict[str, Any]:
    return {
        "os.environ": dict(os.environ),
        "working directory": os.getcwd(),
        "random's state": random.getstate(),
        "warnings.filters": list(warnings.filters),
        "warnings.showwarning": warnings.showwarning,
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "recursion limit": sys.getrecursionlimit(),
        "sys.path": list(sys.path),
        "sys.excepthook": sys.excepthook,
        "threading.excepthook": threading.excepthook,
        "locale": locale.setlocale(locale.LC_ALL),
        "logging": _logging(),
        "garbage collection": (gc.isenabled(), gc.get_threshold(), gc.get_debug()),
        THREADS: frozenset(f"{thread.name} {thread.ident}" for thread in threading.enumerate()),
    }


def _logging() -> dict[str, Any]:
    root = logging.root
    return {
        "disabled up to": root.manager.disable,
        "level": root.level,
        "handlers": [str(handler) for handler in root.handlers],
        "logger class": logging.getLoggerClass(),
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
    """What changed, in words. What only the later snapshot holds, a framework imported in between, is no change.

    Nor is a thread that has ended meanwhile, which others may have started.
    """
    changed = [name for name in before if name != THREADS and before[name] != after[name]]
    if started := after[THREADS] - before[THREADS]:
        changed.append(THREADS)
        before, after = {**before, THREADS: frozenset()}, {**after, THREADS: started}
    return [f"{name} from {_short(before[name], after[name])} to {_short(after[name], before[name])}" for name in changed]


def _short(value: Any, other: Any) -> str:
    """The part of a value in which it differs from another, in at most 60 characters."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {key: kept for key, kept in value.items() if key not in other or other[key] != kept}
    if isinstance(value, list) and isinstance(other, list):
        value = [kept for kept in value if kept not in other]
    if isinstance(value, frozenset):
        value = sorted(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

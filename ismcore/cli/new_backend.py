"""The command `new-backend`: the files of backends/README.md for a framework of one's own, without what is to be written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ismcore.backend.contract import API
from ismcore.cli.files import AddCommand
from ismcore.errors import OptionError
from ismcore.plugins.registry import BUNDLED, RESERVED

__all__ = ["add_new_backend", "files"]

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "ismcore-NAME"
version = "0.1.0"
description = "NAME, as a backend of ismcore"
requires-python = ">=3.11"
dependencies = ["ismcore", "FRAMEWORK"]

[project.entry-points.ismcore]
NAME = "ismcore_NAME.plugin"

[tool.setuptools]
packages = ["ismcore_NAME"]
"""

PLUGIN = '''\
"""What the NAME backend says of itself; imports nothing heavy."""

from ismcore import BackendInfo, hookimpl


@hookimpl
def ismcore_backends() -> list[BackendInfo]:
    """See `ismcore.hookspecs`."""
    return [
        BackendInfo(
            name="NAME",
            load="ismcore_NAME.backend:CLASSBackend",
            requires=("FRAMEWORK",),
            install="pip install FRAMEWORK",
            api=APIVERSION,
            description="NAME",
        )
    ]
'''

TEST = """\
from ismcore.testing import BackendConformance


class TestCLASS(BackendConformance):
    backend = "NAME"
"""

ELEMENTWISE = ("exp", "log", "sqrt", "abs", "sin", "cos", "tanh", "erf", "sigmoid")
OPERATIONS = {
    **dict.fromkeys(ELEMENTWISE, "x: Any, /"),
    "logaddexp": "x1: Any, x2: Any, /",
    "where": "condition: Any, x1: Any, x2: Any, /",
    "sum": "x: Any, /, *, axis: int | None = None",
    "stack": "arrays: list[Any], /, *, axis: int = 0",
    "concat": "arrays: list[Any], /, *, axis: int = 0",
    "reshape": "x: Any, shape: tuple[int, ...], /",
    "broadcast_to": "x: Any, shape: tuple[int, ...], /",
    "permute_dims": "x: Any, axes: tuple[int, ...], /",
}
"""The functions that `ismcore.ops.Ops` cannot do without, and their arguments."""

BACKEND = '''\
"""NAME under ismcore's contract. What raises NotImplementedError is to be written; backends/README.md says what it must do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import FRAMEWORK
import numpy as np

from ismcore.backend import Backend
from ismcore.calculus import ScoreFn
from ismcore.ops import Params


class CLASSOps:
    """See `ismcore.ops.Ops`; seven more functions of it may be added, and are composed of these until then."""

OPERATIONS

class CLASSBackend(Backend):
    """See `ismcore.backend.Backend`."""

    name = "NAME"
DTYPES    packages = ("FRAMEWORK",)
    ops = CLASSOps()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Whatever must be set while it works is set here, and as it was afterwards."""
        yield

    def asarray(self, array: np.ndarray, /) -> Any:
        """See `Calculus.asarray`: a copy in `self.dtype` on `self.device`."""
        raise NotImplementedError

    def to_numpy(self, array: Any, /) -> np.ndarray:
        """See `Backend.to_numpy`: a writable copy."""
        raise NotImplementedError

    def value_and_grad(self, f: Callable[..., Any], /) -> Callable[..., tuple[Any, Params]]:
        """See `Backend.value_and_grad`: (params, *args) -> (value, gradient), with zeros where f does not depend on one."""
        raise NotImplementedError

    def vjp(self, f: ScoreFn, x: Any, /) -> tuple[Any, Callable[[Any], Any]]:
        """See `Calculus.vjp`: f(x) and v -> v^T J, which `value_and_grad` differentiates again. Or give `jvp`."""
        raise NotImplementedError
'''


def add_new_backend(add_command: AddCommand) -> None:
    """Add `ismcore new-backend`."""
    parser = add_command("new-backend", _new_backend, "write the files of a backend for a framework of your own")
    parser.epilog = (
        "What is to be written then raises NotImplementedError; `python -m ismcore.testing NAME` says what is missing."
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="what users will pass as backend=")
    add("--framework", metavar="MODULE", help="the framework's module, as it is imported and installed (default: NAME)")
    add("--dtype", choices=["float32", "float64"], help="the only dtype that it has (default: it has both)")
    add("--out", type=Path, metavar="DIR", help="a new folder (default: ismcore-NAME, here)")


def _new_backend(options: argparse.Namespace) -> int:
    out = options.out or Path(f"ismcore-{options.name}")
    written = files(options.name, options.framework or options.name, options.dtype)
    if out.exists():
        raise OptionError(f"{out} is there already: name a new folder by --out")
    for name, text in written.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    sys.stdout.write("".join(f"{out / name}\n" for name in written))
    sys.stderr.write(f"next: fill in ismcore_{options.name}/backend.py, then\n")
    sys.stderr.write(f"  python -m pip install -e {out}\n  python -m ismcore.testing {options.name}\n")
    return 0


def files(name: str, framework: str, dtype: str | None = None) -> dict[str, str]:
    """The texts of the files by their names.

    Args:
        name: The backend's.
        framework: Its framework's module.
        dtype: The only dtype that it has, None for both.

    Raises:
        OptionError: The name cannot be a backend's, or the framework's cannot be a module's.
    """
    if not (name.isascii() and name.isidentifier() and name == name.lower()) or name in (*RESERVED, *BUNDLED):
        raise OptionError(
            f"NAME must be small letters, digits and '_', and none of {', '.join((*RESERVED, *BUNDLED))}, not {name!r}"
        )
    if not framework.isidentifier():
        raise OptionError(f"--framework must be a module without a dot, not {framework!r}")
    operations = "\n".join(
        f"    def {each}(self, {given}) -> Any:\n        raise NotImplementedError\n" for each, given in OPERATIONS.items()
    )
    words = {
        "OPERATIONS": operations,
        "DTYPES": "" if dtype is None else f'    dtypes = ("{dtype}",)\n',
        "APIVERSION": str(API),
        "FRAMEWORK": framework,
        "CLASS": "".join(part.capitalize() for part in name.split("_")),
        "NAME": name,
    }
    found = {
        "pyproject.toml": PYPROJECT,
        f"ismcore_{name}/__init__.py": '"""NAME, as a backend of ismcore."""\n',
        f"ismcore_{name}/plugin.py": PLUGIN,
        f"ismcore_{name}/backend.py": BACKEND,
        f"tests/test_{name}.py": TEST + words["DTYPES"],
    }
    for word, text in words.items():
        found = {file: content.replace(word, text) for file, content in found.items()}
    return found

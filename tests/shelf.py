"""Distributions made on the spot: a folder on the path, with modules and their metadata, seen by a fresh registry."""

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ismcore.backend import API
from ismcore.plugins import lookup as plugins

PLUGIN = """
from ismcore import BackendInfo, hookimpl

@hookimpl
def ismcore_backends():
    return [BackendInfo({name!r}, load="{module}_backend:Mirror", api={api})]
"""

BACKEND = """
from ismcore_autograd.backend import AutogradBackend

class Mirror(AutogradBackend):
    name = {name!r}
"""


@dataclass
class Shelf:
    """A folder on the path, into which distributions are put."""

    folder: Path

    def put(self, name, code, *, backend=None, points=None, version="1.0"):
        """A distribution with the plugin's code and, where given, that of the module `<name>_backend`."""
        (self.folder / f"{name}.py").write_text(code)
        if backend is not None:
            (self.folder / f"{name}_backend.py").write_text(backend)
        self.announce(name, points or f"{name} = {name}", version)

    def announce(self, name, points, version="1.0"):
        """The metadata of a distribution alone."""
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ismcore]\n{points}\n")

    def put_good(self, name, offers=None, api=API, more=""):
        """A plugin that works: HIPS-autograd under another name, with more lines in its class."""
        offers = offers or name
        backend = BACKEND.format(name=offers) + more
        self.put(name, PLUGIN.format(name=offers, module=name, api=api), backend=backend)


@contextmanager
def shelf_on_path(folder, monkeypatch):
    """A shelf in the folder, with no other plugin of this process remembered, before or after."""
    monkeypatch.delenv("ISMCORE_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    plugins.registry.cache_clear()
    before = set(sys.modules)
    try:
        yield Shelf(folder)
    finally:
        plugins.registry.cache_clear()
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]

"""Finding backends: lazy, and each plugin on its own, so that a broken one hurts nobody else.

The bundled plugins are known by name and go through the same hooks as anybody's. Entry points are read only when a name
is asked for that the bundled ones do not offer, or when all backends are listed. pluggy's own bulk loader imports every
plugin and fails as one, hence the loop here.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from types import ModuleType
from typing import cast

import pluggy

from ismcore import hookspecs
from ismcore.backend import API, Backend, BackendInfo
from ismcore.errors import BackendBroken, BackendMissing, PluginError, UnknownBackend

__all__ = ["BackendStatus", "Choice", "backends", "choose", "load_backend", "notify_observers"]

BUNDLED = ("ismcore_jax.plugin", "ismcore_torch.plugin", "ismcore_autograd.plugin")
"""Plugin modules of this distribution, in the order in which "auto" prefers their backends."""


@dataclass(frozen=True)
class BackendStatus:
    """One line of `ismcore.backends()`.

    Attributes:
        name: What to pass as `backend=`.
        status: "ready", "missing" (a framework is not installed), "broken" (the plugin fails), "incompatible" (written
            for another version of the contract) or "conflict" (two plugins offer the name).
        reason: Why it is not ready, and what to do.
        versions: Versions of the packages that it needs.
        origin: Distribution or module that the plugin comes from.
        description: The plugin's own words.
    """

    name: str
    status: str
    reason: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    description: str = ""

    def __str__(self) -> str:
        versions = ", ".join(f"{k} {v}" for k, v in self.versions.items())
        return f"{self.name:12} {self.status:10} {self.reason or versions}"


@dataclass(frozen=True)
class Choice:
    """A backend's name and why it was chosen."""

    name: str
    reason: str


class Registry:
    """The plugins found so far, by pluggy, and what each said of its backends."""

    def __init__(self, bundled: Iterable[str] = BUNDLED) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.infos: dict[str, BackendInfo] = {}
        self.origins: dict[str, str] = {}
        self.faults: dict[str, BackendStatus] = {}
        self._scanned = False
        for name in bundled:
            self._register(name, lambda name=name: importlib.import_module(name), name)

    def find(self, name: str) -> BackendInfo | None:
        """What is known of a backend, reading the entry points if no bundled plugin offers it."""
        if name not in self.infos:
            self.scan()
        return self.infos.get(name)

    def scan(self) -> None:
        """Load the plugins of other distributions, once."""
        if self._scanned:
            return
        self._scanned = True
        points: list[EntryPoint] = sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: point.name)
        for point in points:
            if point.value not in BUNDLED:
                origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
                self._register(point.name, point.load, origin)

    def _register(self, name: str, load: object, origin: str) -> None:
        try:
            plugin: ModuleType = load()  # type: ignore[operator]
            self.manager.register(plugin, name)
            self.manager.check_pending()
            found = self._announced(plugin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything while it is imported, SystemExit too
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            self.faults[name] = BackendStatus(name, "broken", f"{type(error).__name__}: {error}", origin=origin)
            return
        for info in found:
            if info.name in self.infos:
                reason = f"also offered by {origin}, which was left out"
                self.faults[info.name] = BackendStatus(info.name, "conflict", reason, origin=self.origins[info.name])
            else:
                self.infos[info.name], self.origins[info.name] = info, origin

    def _announced(self, plugin: ModuleType) -> list[BackendInfo]:
        found: list[BackendInfo] = []
        for implementation in self.manager.hook.ismcore_backends.get_hookimpls():
            if implementation.plugin is plugin:
                found.extend(cast("Iterable[BackendInfo]", implementation.function()))
        for info in found:
            if not isinstance(info, BackendInfo):
                raise PluginError(f"ismcore_backends must return BackendInfo objects, not {info!r}")
        return found

    def status(self, name: str) -> BackendStatus:
        """What stands in the way of a backend, found without importing its framework."""
        info = self.infos.get(name)
        if info is None:
            return self.faults[name]
        versions = {package: v for package in info.requires if (v := _version(package))}
        missing = [package for package in info.requires if importlib.util.find_spec(package) is None]
        status, reason = "ready", ""
        if info.api != API:
            status, reason = "incompatible", f"written for version {info.api} of the backend contract; this is {API}"
        elif missing:
            status, reason = "missing", f"needs {', '.join(missing)}: {info.install}"
        return BackendStatus(name, status, reason, versions, self.origins[name], info.description)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def registry() -> Registry:
    """The registry of this process, made on first use."""
    return Registry()


def backends() -> list[BackendStatus]:
    """Every backend that is bundled or installed, and whether it is ready; imports none of the frameworks.

    Example:
        >>> [b.name for b in backends()][:3]
        ['jax', 'torch', 'autograd']
    """
    found = registry()
    found.scan()
    names = [*found.infos, *(name for name in found.faults if name not in found.infos)]
    return [found.status(name) for name in names]


def choose(backend: str, native: str | None = None) -> Choice:
    """Which backend to use, and why: the one named, the model's own, `ISMCORE_BACKEND`, or the first that is ready.

    Raises:
        BackendMissing: None of the bundled backends is ready.
    """
    if backend != "auto":
        return Choice(backend, "named by the caller")
    if native is not None:
        return Choice(native, "the model is written in its framework")
    if os.environ.get("ISMCORE_BACKEND"):
        return Choice(os.environ["ISMCORE_BACKEND"], "named by ISMCORE_BACKEND")
    statuses = [registry().status(name) for name in ("jax", "torch", "autograd")]
    for status in statuses:
        if status.status == "ready":
            return Choice(status.name, "first of jax, torch, autograd that is ready")
    raise BackendMissing("no backend is ready: " + "; ".join(map(str, statuses)))


def load_backend(name: str) -> type[Backend]:
    """The backend class of that name.

    Raises:
        UnknownBackend: No plugin offers the name; the message lists those that are there.
        BackendMissing: Its framework is not installed; the message holds the command that installs it.
        BackendBroken: It, or its framework, fails to import; the cause is chained.
    """
    info = registry().find(name) if isinstance(name, str) else None
    if info is None:
        fault = registry().faults.get(name)
        if fault is not None:
            raise BackendBroken(f"backend plugin {name!r} of {fault.origin} is broken: {fault.reason}")
        known = [status.name for status in backends()]
        close = difflib.get_close_matches(str(name), known, 1, 0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UnknownBackend(f"no backend is called {name!r}{hint} Installed backends: {', '.join(known)}")
    status = registry().status(name)
    if status.status == "missing":
        raise BackendMissing(f"backend {name!r} {status.reason}")
    if status.status == "incompatible":
        raise BackendBroken(f"backend {name!r} of {status.origin} was {status.reason}")
    return _load_class(info)


@cache
def _load_class(info: BackendInfo) -> type[Backend]:
    module, _, attribute = info.load.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise BackendBroken(f"backend {info.name!r} fails to load: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise BackendBroken(f"backend {info.name!r}: {info.load} is no subclass of ismcore.backend.Backend")
    return found


def notify_observers(event: object) -> None:
    """Pass an event of a run to every plugin that observes fits; one that fails is named, and not called again."""
    manager = registry().manager
    for implementation in manager.hook.ismcore_fit_event.get_hookimpls():
        try:
            implementation.function(*[event for _ in implementation.argnames])
        except Exception as error:
            manager.unregister(implementation.plugin)
            message = f"plugin {implementation.plugin_name} failed on a fit event and is detached: {error!r}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)

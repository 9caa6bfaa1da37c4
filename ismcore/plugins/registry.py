"""The plugins of this process: each imported, registered and listened to on its own, so that a broken one hurts nobody else.

pluggy's bulk loader imports every plugin and fails as one, and a hook call stops at the first implementation that raises;
hence the loops here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, distributions, version

import pluggy

from ismcore import hookspecs
from ismcore.backend.contract import API, OLDEST_API, BackendInfo
from ismcore.errors import PluginError

__all__ = ["BUNDLED", "BackendStatus", "Registry", "Source", "described", "installed_version", "wanted_plugins"]

BUNDLED = {"jax": "ismcore_jax.plugin", "torch": "ismcore_torch.plugin", "autograd": "ismcore_autograd.plugin"}
"""Backends of this distribution and their plugin modules, in the order in which "auto" prefers them."""

OBSERVERS = {"tracking": "ismcore.plugins.tracking"}
"""Plugins of this distribution that offer no backend."""

RESERVED = ("auto", "all", "none")
"""Words that `backend=`, the command line and ISMCORE_PLUGINS take for something else than a backend."""

SLOW = 1.0
"""Seconds that the import of a plugin may take before its status says so."""


@dataclass(frozen=True)
class BackendStatus:
    """One line of `ismcore.backends()`.

    Attributes:
        name: What to pass as `backend=`. A plugin that fails before it offers a backend bears its entry point's name.
        status: "ready", "missing" (a framework is not installed), "broken" (the plugin fails), "incompatible" (written
            for another version of the contract) or "conflict" (the name is taken).
        reason: Why it is not ready, or what else is amiss, and what to do.
        versions: Versions of the packages that it needs.
        origin: Distribution or module that the plugin comes from.
        description: The plugin's own words.
        file: The plugin's source file; "" where it cannot be told without importing it.
    """

    name: str
    status: str
    reason: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    description: str = ""
    file: str = ""

    def __str__(self) -> str:
        versions = ", ".join(f"{k} {v}" for k, v in self.versions.items())
        return f"{self.name:12} {self.status:10} {self.reason or versions}"


@dataclass(frozen=True)
class Source:
    """Where a plugin comes from: its entry point's name and value, and the distribution, "name version"."""

    name: str
    value: str
    origin: str

    @property
    def id(self) -> str:
        """What pluggy knows the plugin as: two distributions may use one name."""
        return f"{self.name} = {self.value} of {self.origin}"

    @property
    def names(self) -> set[str]:
        """What ISMCORE_PLUGINS may call it: the entry point's name or the distribution's."""
        return {self.name, self.origin.partition(" ")[0]}

    @property
    def file(self) -> str:
        """The file of the module, found without importing anything, since the import may be what fails."""
        top, *parts = self.value.partition(":")[0].split(".")
        try:
            spec = importlib.util.find_spec(top)
            for part in parts:
                spec = spec and PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
        except (ImportError, ValueError):
            return ""
        return (spec and spec.origin) or ""

    def load(self) -> object:
        """Import the plugin: a module, or an object in one."""
        module, _, attribute = self.value.partition(":")
        found: object = importlib.import_module(module)
        for name in filter(None, attribute.split(".")):
            found = getattr(found, name)
        return found


@dataclass(frozen=True)
class Offer:
    """A backend that a plugin announces, and how long importing the plugin took."""

    info: BackendInfo
    source: Source
    seconds: float


class Registry:
    """The plugins found so far, and what each said of its backends.

    Attributes:
        offers: What is announced under each name; more than one is a conflict, which nobody wins.
        faults: Plugins that cannot be used, and the exception that says why.
        unloadable: Backends that are ready by what their plugins say, and failed when they were imported, and how.
    """

    def __init__(self, bundled: Mapping[str, str] = BUNDLED) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.offers: dict[str, list[Offer]] = {}
        self.faults: list[tuple[BackendStatus, BaseException | None]] = []
        self.unloadable: dict[str, str] = {}
        self._bundled = bundled = dict(bundled)
        self._queue: list[Source] | None = None
        self._lock = threading.RLock()
        for name, module in (bundled | OBSERVERS).items():
            self._add(Source(name, module, module))

    def find(self, name: str) -> BackendInfo | None:
        """What is announced of a backend, reading the entry points if no bundled plugin offers it."""
        if name not in self.offers:
            self.scan()
        offers = self.offers.get(name, [])
        return offers[0].info if len(offers) == 1 else None

    def scan(self) -> None:
        """Load the plugins of other distributions, once; those that ISMCORE_PLUGINS names, or all if it is not set."""
        with self._lock:
            if self._queue is None:
                self._queue = self._selected()
            while self._queue:
                source = self._queue.pop(0)
                try:
                    self._add(source)
                except KeyboardInterrupt:
                    self._queue.insert(0, source)  # a later scan goes on from here
                    raise

    def _selected(self) -> list[Source]:
        found = sorted(set(self._installed()), key=lambda source: (source.name, source.origin, source.value))
        wanted = wanted_plugins()
        if wanted is None:
            return found
        for name in sorted(wanted.difference(*(source.names for source in found))):
            reason = "is named in ISMCORE_PLUGINS, and no installed distribution has it"
            self._fault(Source(name, "", "ISMCORE_PLUGINS"), "missing", reason)
        return [source for source in found if source.names & wanted]

    def _installed(self) -> Iterator[Source]:
        """The plugins of other distributions. `entry_points()` would fail as a whole on one malformed entry_points.txt."""
        seen = set()
        for distribution in distributions():
            origin = "unnamed"
            try:
                if f"[{hookspecs.PROJECT}]" not in (distribution.read_text("entry_points.txt") or ""):
                    continue
                said = distribution.metadata  # from Python 3.12 on it warns of being asked for what it lacks
                name, release = (said[field] if field in said else None for field in ("Name", "Version"))
                origin = f"{name} {release}"
                points = [point for point in distribution.entry_points if point.group == hookspecs.PROJECT]
            except Exception as error:
                reason = f"its metadata cannot be read: {described(error)}"
                self._fault(Source(origin.partition(" ")[0], "", origin), "broken", reason, error)
                continue
            if name not in seen:
                seen.add(name)  # the first on the path is the one that imports see
                yield from (Source(p.name, p.value, origin) for p in points if p.value not in self._bundled.values())

    def _add(self, source: Source) -> None:
        """Import a plugin and take up what it offers; whatever it raises stays its own."""
        began = time.monotonic()
        try:
            plugin = source.load()
            seconds = time.monotonic() - began
            self._register(plugin, source)
            infos = self._announced(plugin)
        except KeyboardInterrupt:
            self._reject(source)
            raise
        except BaseException as error:  # a plugin may raise anything while it is imported, SystemExit too
            self._reject(source)
            self._fault(source, "broken", described(error), error)
            return
        for info in infos:
            if info.name in self._bundled and source.value not in self._bundled.values():
                reason = f"the name belongs to the bundled {info.name} backend, which stays in use; the plugin must use another"
                self._fault(replace(source, name=info.name), "conflict", reason)
            else:
                self.offers.setdefault(info.name, []).append(Offer(info, source, seconds))

    def _register(self, plugin: object, source: Source) -> None:
        if self.manager.is_registered(plugin):
            raise PluginError(f"{source.value} is registered already, as {self.manager.get_name(plugin)}")
        self.manager.register(plugin, source.id)
        self.manager.check_pending()
        callers = self.manager.get_hookcallers(plugin)
        if not callers:
            raise PluginError(f"{source.value} has no function marked with ismcore.hookimpl")
        implementations = [impl for caller in callers for impl in caller.get_hookimpls() if impl.plugin is plugin]
        if any(impl.wrapper or impl.hookwrapper for impl in implementations):
            raise PluginError("hook wrappers are not supported: implementations are called one by one")

    def _reject(self, source: Source) -> None:
        """Take back whatever a plugin that failed has registered; older pluggy leaves half of it behind."""
        if self.manager.has_plugin(source.id):
            self.manager.unregister(name=source.id)

    def _announced(self, plugin: object) -> list[BackendInfo]:
        infos: list[BackendInfo] = []
        for implementation in self.manager.hook.ismcore_backends.get_hookimpls():
            if implementation.plugin is plugin:
                found = implementation.function()
                if not isinstance(found, Iterable):
                    raise PluginError(f"ismcore_backends must return a list of BackendInfo objects, not {found!r}")
                infos.extend(map(_checked, found))
        return infos

    def _fault(self, source: Source, status: str, reason: str, cause: BaseException | None = None) -> None:
        self.faults.append((BackendStatus(source.name, status, reason, origin=source.origin, file=source.file), cause))

    def status(self, name: str) -> BackendStatus | None:
        """What stands in the way of a backend or plugin, found without importing a framework; None if there is none such."""
        offers = self.offers.get(name)
        if offers is None:
            return next((status for status, _ in self.faults if status.name == name), None)
        info, source = offers[0].info, offers[0].source
        status, reason = _standing(offers)
        return BackendStatus(
            name,
            status,
            reason,
            versions={package: v for package in info.requires if (v := installed_version(package))},
            origin=" and ".join(offer.source.origin for offer in offers),
            description=info.description,
            file=source.file,
        )

    def statuses(self) -> list[BackendStatus]:
        """Every backend offered, then every plugin that cannot be used; no two of the same name.

        A backend that failed to load is broken here. `status` says of it what can be known beforehand, since the next attempt
        may succeed.
        """
        rows = {name: status for name in self.offers if (status := self.status(name))}
        for name, reason in self.unloadable.items():
            if rows[name].status == "ready":
                rows[name] = replace(rows[name], status="broken", reason=reason)
        for fault, _ in self.faults:
            name = fault.name if fault.name not in rows else f"{fault.name} of {fault.origin}"
            rows[name] = replace(fault, name=name)
        return list(rows.values())


def _standing(offers: list[Offer]) -> tuple[str, str]:
    """Status and reason of a backend, given all that is announced under its name."""
    info, seconds = offers[0].info, offers[0].seconds
    if len(offers) > 1:
        origins = " and by ".join(offer.source.origin for offer in offers)
        return "conflict", f"offered by {origins}: uninstall one, or name the distribution to use in ISMCORE_PLUGINS"
    if not OLDEST_API <= info.api <= API:
        taken = str(API) if OLDEST_API == API else f"{API}, which takes versions from {OLDEST_API} on"
        return "incompatible", f"written for version {info.api} of the backend contract; this is {taken}"
    missing = [package for package in info.requires if not _is_installed(package)]
    if missing:
        return "missing", f"needs {', '.join(missing)}: {info.install}"
    slow = f"its plugin takes {seconds:.1f} s to import, and should import nothing heavy" if seconds > SLOW else ""
    return "ready", slow


def wanted_plugins() -> set[str] | None:
    """The entry points or distributions that ISMCORE_PLUGINS names; None where it is not set, and all are wanted."""
    setting = os.environ.get("ISMCORE_PLUGINS")
    if setting is None:
        return None
    return {name.strip() for name in setting.split(",")} - {"", "none"}


def _checked(info: object) -> BackendInfo:
    """What a plugin says of a backend, once every field is known to be what it must be."""
    if not isinstance(info, BackendInfo):
        raise PluginError(f"ismcore_backends must return BackendInfo objects, not {info!r}")
    module, _, attribute = info.load.partition(":") if isinstance(info.load, str) else ("", "", "")
    rules = {
        f"name must be letters, digits and '_', no digit first, and none of {', '.join(RESERVED)}": isinstance(info.name, str)
        and info.name.isidentifier()
        and info.name.isascii()
        and info.name not in RESERVED,
        "load must be 'package.module:Class'": bool(module and attribute),
        "requires must be a tuple of modules without a dot": isinstance(info.requires, tuple)
        and all(isinstance(name, str) and name.isidentifier() for name in info.requires),
        "api must be a whole number": isinstance(info.api, int),
        "install and description must be texts": isinstance(info.install, str) and isinstance(info.description, str),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise PluginError(f"{'; '.join(broken)}: {info!r}")
    return info


def described(error: BaseException) -> str:
    """Type and text of what somebody else's code raised; that of a text may raise too."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__}: (its text cannot be had)"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # made by hand, without a spec
        return module in sys.modules


_version = cache(version)
"""Read from the disk once, as that takes a millisecond; of a package that is not installed, anew each time."""


def installed_version(package: str) -> str | None:
    """Version of a distribution, None if it is not installed."""
    try:
        return _version(package)
    except PackageNotFoundError:
        return None

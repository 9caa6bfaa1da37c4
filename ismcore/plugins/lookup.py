"""Choosing and loading a backend, and telling observers.

Naming a bundled backend reads no entry point and pays for nobody's import. The plugins of other distributions are looked up
when a name is asked for that no bundled backend bears, or when all backends are listed.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

from ismcore.backend.contract import DTYPES, Backend, BackendInfo, Dtype
from ismcore.errors import BackendBroken, BackendMissing, IsmError, ModelError, PluginError, UnknownBackend
from ismcore.models import UserModel
from ismcore.plugins.registry import BUNDLED, BackendStatus, Registry, described, wanted_plugins

__all__ = [
    "BackendStatus",
    "Choice",
    "adopt",
    "backends",
    "choose",
    "load_backend",
    "native",
    "notify_observers",
    "widest_dtype",
]


@dataclass(frozen=True)
class Choice:
    """A backend's name and why it was chosen."""

    name: str
    reason: str


@cache
def registry() -> Registry:
    """The registry of this process, made on first use."""
    return Registry()


def backends() -> list[BackendStatus]:
    """Every backend that is bundled or installed, and whether it is ready; imports none of the frameworks.

    Plugins of other distributions are imported here, once. `ISMCORE_PLUGINS=none` in the environment leaves them out, and a
    comma-separated list of entry points or distributions takes only these.

    Example:
        >>> [b.name for b in backends()][:3]
        ['jax', 'torch', 'autograd']
    """
    found = registry()
    found.scan()
    return found.statuses()


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
    statuses = [status for name in BUNDLED if (status := registry().status(name))]
    for status in statuses:
        if status.status == "ready":
            return Choice(status.name, f"first of {', '.join(BUNDLED)} that is ready")
    raise BackendMissing("no backend is ready: " + "; ".join(map(str, statuses)))


def load_backend(name: str) -> type[Backend]:
    """The backend class of that name.

    Raises:
        UnknownBackend: No plugin offers the name; the message lists those that are there.
        BackendMissing: Its framework is not installed; the message holds the command that installs it.
        BackendBroken: It cannot be used: it, its plugin or its framework fails to import, and the cause is chained; or it is
            written for another version of the contract; or two plugins offer the name.
    """
    if not isinstance(name, str):
        raise UnknownBackend(_unknown(name))
    info, status = registry().find(name), registry().status(name)
    if status is None:
        raise UnknownBackend(_unknown(name))
    if status.status == "missing":
        raise BackendMissing(f"backend {name!r} {status.reason}")
    if status.status != "ready" or info is None:
        cause = next((cause for fault, cause in registry().faults if fault.name == name), None)
        where = f"of {status.origin}" + (f", {status.file}," if status.file else "")
        raise BackendBroken(f"backend {name!r} {where} cannot be used ({status.status}): {status.reason}") from cause
    return _load_class(info, status.origin)


def widest_dtype(*names: str) -> Dtype:
    """What to compute in where nobody said: float64, or float32 where one of the backends declares that alone."""
    return "float64" if all("float64" in load_backend(name).dtypes for name in names) else "float32"


def _unknown(name: object) -> str:
    statuses = backends()
    known = [status.name for status in statuses if status.status != "broken"]
    broken = [f"{status.name} ({status.reason})" for status in statuses if status.status == "broken"]
    close = difflib.get_close_matches(str(name), known, 1, 0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    message = f"no backend is called {name!r}{hint} Installed backends: {', '.join(known)}"
    if broken:
        message += f". Broken plugins: {'; '.join(broken)}"
    if wanted_plugins() is not None:
        message += f". ISMCORE_PLUGINS={os.environ['ISMCORE_PLUGINS']!r} leaves out all other plugins"
    return message


def _load_class(info: BackendInfo, origin: str) -> type[Backend]:
    module, _, attribute = info.load.partition(":")
    unloadable = registry().unloadable
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
        fault = _class_fault(found, info)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        unloadable[info.name] = f"fails to load {info.load}: {described(error)}"
        raise BackendBroken(f"backend {info.name!r} of {origin} {unloadable[info.name]}") from error
    if fault:
        unloadable[info.name] = f"{info.load} {fault}"
        raise BackendBroken(f"backend {info.name!r} of {origin}: {unloadable[info.name]}")
    unloadable.pop(info.name, None)
    return found  # type: ignore[no-any-return]


def _class_fault(found: Any, info: BackendInfo) -> str:
    """What keeps an object from being the backend announced; "" if nothing does."""
    if not (isinstance(found, type) and issubclass(found, Backend)):
        return "is no subclass of ismcore.backend.Backend"
    lacks = sorted(found.__abstractmethods__) if inspect.isabstract(found) else []
    lacks += [attribute for attribute in ("name", "ops") if not hasattr(found, attribute)]
    if lacks:
        return f"lacks {', '.join(lacks)}"
    if found.name != info.name:
        return f"calls itself {found.name!r}, and must bear the name that its plugin announces"
    if not (isinstance(found.dtypes, tuple) and found.dtypes and set(found.dtypes) <= set(DTYPES)):
        return f"has dtypes={found.dtypes!r}, which must be a tuple of 'float32', 'float64', or both"
    if not (isinstance(found.packages, tuple) and all(isinstance(package, str) for package in found.packages)):
        return f"has packages={found.packages!r}, which must be a tuple of distributions' names"
    return ""


def notify_observers(event: object) -> None:
    """Pass an event of a run to every plugin that observes fits; one that fails is named, and not called again.

    Plugins of other distributions hear of a run once they were looked up; see this module's first lines.
    """
    manager = registry().manager
    for implementation in manager.hook.ismcore_fit_event.get_hookimpls():
        try:
            implementation.function(*[event for _ in implementation.argnames])
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            manager.unregister(implementation.plugin)
            message = f"plugin {implementation.plugin_name} failed on a fit event and is detached: {described(error)}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def adopt(model: Any, sample: tuple[Any, ...]) -> UserModel | None:
    """A framework's own model as one of the library's, by the first plugin that knows it; None if none does.

    The plugins of other distributions are looked up only if no bundled one knows it.

    Args:
        model: What the user passed.
        sample: A few rows as the model will be called with: (x,), or (x, context).

    Raises:
        ModelError: A plugin refuses the model, or fails on it and no other knows it.
        PluginError: A plugin makes no `UserModel` of it.
    """
    found, plugin = _first("ismcore_adopt_model", model=model, sample=sample)
    if found is not None and not isinstance(found, UserModel):
        raise PluginError(f"plugin {plugin} must adopt {type(model).__name__} as an ismcore.models.UserModel, not {found!r}")
    return found


def native(result: Any) -> Any:
    """A fitted score in its framework's own form, by the plugin of its backend; None if that has none.

    Raises:
        ModelError: A plugin fails, and no other gives one.
    """
    return _first("ismcore_native_model", result=result)[0]


def _first(hook: str, **given: Any) -> tuple[Any, str]:
    """What the first plugin with an answer answers, and its name: the bundled ones, and then, looked up, the others."""
    asked: set[str] = set()
    faults: list[tuple[str, BaseException]] = []
    for others in (False, True):
        if others:
            registry().scan()
        for implementation in getattr(registry().manager.hook, hook).get_hookimpls():
            plugin = implementation.plugin_name
            if plugin in asked:
                continue
            asked.add(plugin)
            try:
                found = implementation.function(*[given[name] for name in implementation.argnames])
            except (KeyboardInterrupt, IsmError):
                raise
            except BaseException as error:  # a plugin may raise anything, and another may have an answer
                faults.append((plugin, error))
                continue
            if found is not None:
                return found, plugin
    if faults:
        plugin, cause = faults[0]
        raise ModelError(f"plugin {plugin} fails in {hook}: {described(cause)}") from cause
    return None, ""

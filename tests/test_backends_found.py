"""Finding backends: names, statuses, errors. The plugins' own faults are in test_plugin_faults.py."""

import importlib.util

import pytest
from truth import BUNDLED, READY, SMALL_SAMPLE, correlated

import ismcore
from ismcore.backend import SharedSetting

X = correlated()[:20]


def test_the_three_bundled_backends_are_ready():
    assert [(b.name, b.status) for b in ismcore.backends()][:3] == list(BUNDLED.items())


def test_an_unknown_backend_is_answered_with_what_is_there_and_what_is_close():
    with pytest.raises(ismcore.UnknownBackend, match=r"'trch'; did you mean 'torch'.*jax, torch, autograd"):
        ismcore.fit(X, backend="trch", epochs=1)
    with pytest.raises(ismcore.UnknownBackend, match="Installed backends"):
        ismcore.fit(X, backend=None)


@pytest.mark.parametrize(("name", "package", "line"), [("torch", "torch", "ismcore[torch]"), ("jax", "optax", "ismcore[jax]")])
def test_a_missing_framework_is_answered_with_the_pip_line(name, package, line, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *a: None if module == package else real(module, *a))
    status = {b.name: b for b in ismcore.backends()}[name]
    assert status.status == "missing"
    with pytest.raises(ismcore.BackendMissing, match=rf"needs {package}: pip install '{line.replace('[', '.')[:-1]}") as caught:
        ismcore.fit(X, backend=name, epochs=1)
    assert isinstance(caught.value, ImportError)


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
def test_auto_takes_the_first_ready_one(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *a: None if module == "optax" else real(module, *a))
    assert ismcore.fit(X, epochs=1).backend == READY[1]


def test_a_shared_setting_is_held_until_the_last_holder_leaves():
    value = ["found"]
    setting = SharedSetting("test", lambda: value[0], lambda new: value.__setitem__(0, new))
    with setting.hold("a"):
        with setting.hold("a"):
            assert value == ["a"]
        assert value == ["a"]
        with pytest.raises(ismcore.ScopeConflict, match="'a' by a run in progress"), setting.hold("b"):
            pass
    assert value == ["found"]

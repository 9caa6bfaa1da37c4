"""Plugins that go wrong, each a distribution of its own on the path: none hurts another backend, and each is named."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shelf import BACKEND, PLUGIN, shelf_on_path
from truth import BUNDLED, READY, SMALL_SAMPLE, correlated

import ismcore
from ismcore.backend import API
from ismcore.plugins import lookup as plugins
from ismcore.plugins import registry

pytestmark = pytest.mark.filterwarnings(*SMALL_SAMPLE)

X = correlated()[:20]

ANNOUNCE = "from ismcore import BackendInfo, hookimpl\n@hookimpl\ndef ismcore_backends():\n    return "

FAULTS = {
    "import error": ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    "syntax error": ("def f(:", "SyntaxError: invalid syntax"),
    "exit at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "a group of exceptions": ("raise BaseExceptionGroup('both', [GeneratorExit()])", "BaseExceptionGroup: both"),
    "no hook at all": ("def ismcore_backends():\n    return []", "has no function marked with ismcore.hookimpl"),
    "misspelt hook": ("from ismcore import hookimpl\n@hookimpl\ndef ismcore_backend():\n    return []", "unknown hook"),
    "wrong signature": (ANNOUNCE.replace("()", "(device)") + "[]", "device"),
    "a wrapper": ("import ismcore\n@ismcore.hookimpl(wrapper=True)\ndef ismcore_backends():\n    yield", "hook wrappers"),
    "a hook that raises": (ANNOUNCE + "1 / 0", "ZeroDivisionError: division by zero"),
    "a hook that exits": (ANNOUNCE + "exit(1)", "SystemExit: 1"),
    "no list": (ANNOUNCE + "7", "must return a list of BackendInfo objects, not 7"),
    "nothing returned": (ANNOUNCE + "None", "must return a list of BackendInfo objects, not None"),
    "a generator that raises": (ANNOUNCE + "(1 / k for k in [0])", "ZeroDivisionError"),
    "a list of names": (ANNOUNCE + "['odd']", "must return BackendInfo objects, not 'odd'"),
    "an unknown field": (ANNOUNCE + "[BackendInfo('odd', 'a:B', colour=1)]", "TypeError.*colour"),
    "load without a class": (ANNOUNCE + "[BackendInfo('odd', 'a.b')]", "load must be 'package.module:Class'"),
    "requires a string": (ANNOUNCE + "[BackendInfo('odd', 'a:B', 'numpy')]", "requires must be a tuple"),
    "requires a submodule": (ANNOUNCE + "[BackendInfo('odd', 'a:B', ('a.b',))]", "without a dot"),
    "the name auto": (ANNOUNCE + "[BackendInfo('auto', 'a:B')]", "none of auto, all, none"),
    "the name none": (ANNOUNCE + "[BackendInfo('none', 'a:B')]", "none of auto, all, none"),
    "no name": (ANNOUNCE + "[BackendInfo(None, 'a:B')]", "name must be letters"),
    "a name with a colour": (ANNOUNCE + r"[BackendInfo('\x1b[31mred', 'a:B')]", r"name must be letters.*\\x1b\[31mred"),
    "a name with a dash": (ANNOUNCE + "[BackendInfo('my-tape', 'a:B')]", "name must be letters"),
    "a name in two alphabets": (ANNOUNCE + r"[BackendInfo('j\u0430x', 'a:B')]", "name must be letters"),
    "no command": (ANNOUNCE + "[BackendInfo('odd', 'a:B', ('nowhere',), None)]", "install and description must be texts"),
    "an error without a text": (
        "class Odd(Exception):\n    def __str__(self):\n        return self.args[0]\nraise Odd()",
        r"Odd: \(its text cannot be had\)",
    ),
    "no version": (ANNOUNCE + "[BackendInfo('odd', 'a:B', api='1')]", "api must be a whole number"),
}

LOADS = {
    "a module that is not there": (None, "No module named 'odd_backend'", ModuleNotFoundError),
    "a class that is not there": ("Other = 1", "has no attribute 'Mirror'", AttributeError),
    "a framework that fails": ("raise OSError('no driver')", "OSError: no driver", OSError),
    "a framework that exits": ("raise SystemExit(4)", "SystemExit: 4", SystemExit),
    "a class whose making raises": ("class Mirror:\n    raise RuntimeError('half')", "RuntimeError: half", RuntimeError),
    "an error whose text raises": (
        "class Odd:\n    def __repr__(self):\n        return self.where\nraise KeyError(Odd())",
        r"KeyError: \(its text cannot be had\)",
        KeyError,
    ),
    "no class": ("def Mirror(): pass", "is no subclass of ismcore.backend.Backend", None),
    "another class": ("class Mirror: pass", "is no subclass of ismcore.backend.Backend", None),
    "an unfinished class": (
        "from ismcore.backend import Backend\nclass Mirror(Backend): name = 'odd'",
        "lacks asarray, to_numpy, value_and_grad, ops",
        None,
    ),
    "a dtype that is no tuple": (
        BACKEND.format(name="odd") + "    dtypes = ('float32')\n",
        r"has dtypes='float32', which must be a tuple of 'float32', 'float64', or both",
        None,
    ),
    "packages that are no tuple": (BACKEND.format(name="odd") + "    packages = 'numpy'\n", r"has packages='numpy'", None),
    "another name": (BACKEND.format(name="even"), "calls itself 'even'", None),
}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    with shelf_on_path(tmp_path, monkeypatch) as found:
        yield found


def rows():
    return {row.name: row for row in ismcore.backends()}


def check_others_work():
    """The bundled backends and the plugin `fine` are as if nobody else were there."""
    found = rows()
    assert [(name, found[name].status) for name in list(found)[:3]] == list(BUNDLED.items())
    assert found["fine"].status == "ready"
    for name in ("autograd", "fine"):
        assert ismcore.fit(X, backend=name, epochs=1).backend == name
    return found


@pytest.mark.parametrize(("code", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_plugin_that_fails_is_named_and_hurts_nobody(code, reason, shelf):
    shelf.put("afflicted", code)
    shelf.put_good("fine")
    found = check_others_work()["afflicted"]
    assert (found.status, found.origin) == ("broken", "afflicted 1.0")
    assert found.file == str(shelf.folder / "afflicted.py")
    with pytest.raises(ismcore.BackendBroken, match=reason) as caught:
        ismcore.fit(X, backend="afflicted", epochs=1)
    assert "afflicted 1.0" in str(caught.value)
    assert found.file in str(caught.value)
    assert type(caught.value.__cause__).__name__ == found.reason.partition(":")[0]
    left = [name for name, _ in plugins.registry().manager.list_name_plugin() if "afflicted" in name]
    assert not left


@pytest.mark.parametrize(("code", "reason", "cause"), LOADS.values(), ids=LOADS)
def test_a_backend_that_fails_to_load_is_named_and_hurts_nobody(code, reason, cause, shelf):
    shelf.put("odd", PLUGIN.format(name="odd", module="odd", api=API), backend=code)
    shelf.put_good("fine")
    assert check_others_work()["odd"].status == "ready"
    with pytest.raises(ismcore.BackendBroken, match=rf"'odd' of odd 1\.0.*odd_backend:Mirror.*{reason}") as caught:
        ismcore.fit(X, backend="odd", epochs=1)
    assert type(caught.value.__cause__) is (cause or type(None))
    found = rows()["odd"]
    assert found.status == "broken"
    assert re.search(reason, found.reason)


def test_a_backend_without_a_device_says_so(shelf):
    shelf.put_good("bare", more="    @classmethod\n    def devices(cls):\n        return ()\n")
    for device in ("auto", "cuda:0"):
        with pytest.raises(ismcore.DeviceUnavailable, match="'bare' finds no device here"):
            ismcore.fit(X, backend="bare", device=device, epochs=1)


def test_a_backend_that_loads_at_the_second_attempt_is_ready_again(shelf):
    shelf.put(
        "odd", PLUGIN.format(name="odd", module="odd", api=API), backend="import odd_helper\n" + BACKEND.format(name="odd")
    )
    with pytest.raises(ismcore.BackendBroken, match="odd_helper"):
        ismcore.fit(X, backend="odd", epochs=1)
    assert rows()["odd"].status == "broken"
    (shelf.folder / "odd_helper.py").touch()
    importlib.invalidate_caches()
    assert ismcore.fit(X, backend="odd", epochs=1).backend == "odd"
    assert rows()["odd"].status == "ready"


def test_a_backend_that_fails_when_made_raises_its_own_error(shelf):
    shelf.put_good("odd", more="    def __init__(self, **options): raise RuntimeError('no licence')")
    shelf.put_good("fine")
    with pytest.raises(RuntimeError, match="no licence"):
        ismcore.fit(X, backend="odd", epochs=1)
    check_others_work()


def test_a_backend_for_another_version_of_the_contract_is_incompatible(shelf):
    shelf.put_good("old", api=API + 1)
    shelf.put_good("fine")
    found = check_others_work()["old"]
    assert (found.status, found.reason) == (
        "incompatible",
        f"written for version {API + 1} of the backend contract; this is {API}",
    )
    with pytest.raises(ismcore.BackendBroken, match=r"'old' of old 1\.0.*incompatible.*written for version"):
        ismcore.fit(X, backend="old", epochs=1)


@pytest.mark.parametrize("age", [-1, 0, 1, 2, 3])
def test_versions_of_the_contract_from_the_oldest_to_the_present_one_are_taken(age, shelf, monkeypatch):
    monkeypatch.setattr(registry, "OLDEST_API", API - 2)
    shelf.put_good("aged", api=API - age)
    shelf.put_good("fine")
    found = check_others_work()["aged"]
    if 0 <= age <= 2:
        assert ismcore.fit(X, backend="aged", epochs=1).backend == "aged"
    else:
        assert found.status == "incompatible"
        assert found.reason.endswith(f"this is {API}, which takes versions from {API - 2} on")


@pytest.mark.parametrize("name", registry.BUNDLED)
def test_a_bundled_name_cannot_be_taken(name, shelf):
    shelf.put_good("intruder", offers=name)
    shelf.put_good("fine")
    found = check_others_work()
    assert plugins.load_backend(name).__module__ == f"ismcore_{name}.backend"
    assert found[name].origin == registry.BUNDLED[name]
    intruder = found[f"{name} of intruder 1.0"]
    assert intruder.status == "conflict"
    assert intruder.reason.startswith(f"the name belongs to the bundled {name} backend")


def test_a_broken_plugin_does_not_hide_the_backend_whose_name_its_entry_point_bears(shelf):
    shelf.put("intruder", "import nowhere_at_all", points="torch = intruder")
    shelf.put("other", "import nowhere_at_all", points="fine = other")
    shelf.put_good("fine")
    found = check_others_work()
    assert plugins.load_backend("torch").__module__ == "ismcore_torch.backend"
    assert {found[f"{name}"].status for name in ("torch of intruder 1.0", "fine of other 1.0")} == {"broken"}


def test_a_name_that_two_plugins_offer_goes_to_neither(shelf, monkeypatch):
    shelf.put_good("second", offers="twin")
    shelf.put_good("first", offers="twin")
    shelf.put_good("fine")
    found = check_others_work()["twin"]
    assert (found.status, found.origin) == ("conflict", "first 1.0 and second 1.0")
    assert plugins.registry().find("twin") is None
    with pytest.raises(ismcore.BackendBroken, match=r"offered by first 1\.0 and by second 1\.0: uninstall one"):
        ismcore.fit(X, backend="twin", epochs=1)
    monkeypatch.setenv("ISMCORE_PLUGINS", "second")
    plugins.registry.cache_clear()
    assert plugins.load_backend("twin").__module__ == "second_backend"


def test_one_module_under_two_names_is_taken_once(shelf):
    shelf.put_good("fine")
    shelf.put("again", "", points="again = fine\nonce = fine")
    found = check_others_work()
    assert found["fine"].origin == "again 1.0"
    assert {row.status for row in found.values() if "registered already" in row.reason} == {"broken"}


def test_a_distribution_found_twice_counts_once(shelf):
    shelf.put_good("fine")
    shelf.put("fine", (shelf.folder / "fine.py").read_text(), version="0.9")
    assert list(check_others_work()) == ["jax", "torch", "autograd", "fine"]


@pytest.mark.parametrize("text", ["[ismcore]\nfine", "[ismcore]\nodd = ", "[console_scripts]\nfine\n[ismcore]\nodd = fine"])
def test_malformed_entry_points_hurt_nobody(text, shelf):
    shelf.put_good("fine")
    shelf.put("odd", "")
    (shelf.folder / "odd-1.0.dist-info" / "entry_points.txt").write_text(text)
    assert check_others_work()["odd"].status == "broken"


def test_malformed_entry_points_of_a_stranger_are_none_of_our_business(shelf):
    shelf.put_good("fine")
    shelf.put("stranger", "")
    (shelf.folder / "stranger-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nstranger")
    assert list(check_others_work()) == ["jax", "torch", "autograd", "fine"]


def test_a_distribution_without_metadata_hurts_nobody(shelf):
    shelf.put_good("fine")
    shelf.put("odd", "import nowhere_at_all")
    (shelf.folder / "odd-1.0.dist-info" / "METADATA").unlink()
    assert check_others_work()["odd"].status == "broken"


@pytest.mark.slow
def test_naming_a_bundled_backend_never_imports_a_plugin(shelf):
    shelf.put("slow", "import time\ntime.sleep(60)")
    ismcore.fit(X, backend="autograd", epochs=1)
    ismcore.fit(X, epochs=1)
    ismcore.evaluate(ismcore.Affine(), {"weight": [[-1.0]], "bias": [0.0]}, [0.0, 1.0])
    assert "slow" not in sys.modules


def test_a_slow_import_is_paid_once_and_named(shelf, monkeypatch):
    monkeypatch.setattr(registry, "SLOW", 0.1)
    shelf.put_good("slow")
    source = shelf.folder / "slow.py"
    source.write_text("import time\ntime.sleep(0.15)\n" + source.read_text())
    shelf.put_good("fine")
    found = check_others_work()
    assert found["slow"].status == "ready"
    assert found["slow"].reason.endswith("s to import, and should import nothing heavy")
    assert found["fine"].reason == ""
    source.unlink()
    assert ismcore.fit(X, backend="slow", epochs=1).backend == "slow"


@pytest.mark.parametrize("setting", ["", "none", " "])
def test_plugins_can_be_switched_off(setting, shelf, monkeypatch):
    shelf.put("odd", "raise SystemExit(1)")
    monkeypatch.setenv("ISMCORE_PLUGINS", setting)
    assert list(rows()) == ["jax", "torch", "autograd"]
    assert "odd" not in sys.modules
    with pytest.raises(ismcore.UnknownBackend, match=rf"ISMCORE_PLUGINS='{setting}' leaves out all other plugins"):
        ismcore.fit(X, backend="odd", epochs=1)


def test_plugins_can_be_chosen_by_entry_point_or_distribution(shelf, monkeypatch):
    for name in ("one", "two", "three"):
        shelf.put_good(name)
    shelf.put("four", "raise SystemExit(1)", points="point = four")
    monkeypatch.setenv("ISMCORE_PLUGINS", "one, three,fourth")
    found = rows()
    assert list(found) == ["jax", "torch", "autograd", "one", "three", "fourth"]
    assert found["fourth"].status == "missing"
    with pytest.raises(
        ismcore.BackendMissing, match="'fourth' is named in ISMCORE_PLUGINS, and no installed distribution has it"
    ):
        ismcore.fit(X, backend="fourth", epochs=1)
    monkeypatch.setenv("ISMCORE_PLUGINS", "four")
    plugins.registry.cache_clear()
    assert list(rows()) == ["jax", "torch", "autograd", "point"]


def test_a_plugin_that_asks_for_the_backends_while_it_is_imported_gets_those_found_so_far(shelf):
    shelf.put_good("fine")
    source = shelf.folder / "fine.py"
    source.write_text("import ismcore\nseen = [row.name for row in ismcore.backends()]\n" + source.read_text())
    check_others_work()
    assert sys.modules["fine"].seen == ["jax", "torch", "autograd"]


def test_an_interrupt_passes_and_the_plugin_is_tried_again(shelf):
    shelf.put_good("fine")
    source, flag = shelf.folder / "fine.py", shelf.folder / "interrupted"
    code = source.read_text()
    source.write_text(f"import pathlib\nif pathlib.Path({str(flag)!r}).exists(): raise KeyboardInterrupt\n{code}")
    shelf.put_good("later")
    flag.touch()
    with pytest.raises(KeyboardInterrupt):
        ismcore.backends()
    flag.unlink()
    assert list(rows()) == ["jax", "torch", "autograd", "fine", "later"]
    check_others_work()


def test_an_interrupt_passes_while_a_backend_is_loaded(shelf):
    shelf.put("odd", PLUGIN.format(name="odd", module="odd", api=API), backend="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        ismcore.fit(X, backend="odd", epochs=1)


def test_an_unknown_name_is_answered_with_the_plugins_that_fail(shelf):
    shelf.put("mirror_plugin", "import nowhere_at_all")
    with pytest.raises(ismcore.UnknownBackend, match=r"Broken plugins: mirror_plugin \(ModuleNotFoundError: No module"):
        ismcore.fit(X, backend="mirror", epochs=1)


@pytest.mark.slow
def test_a_bundled_plugin_that_fails_keeps_its_name(shelf, monkeypatch):
    shelf.put_good("intruder", offers="torch")
    broken = {**registry.BUNDLED, "torch": "nowhere_at_all.plugin"}
    monkeypatch.setattr(plugins, "Registry", lambda: registry.Registry(broken))
    found = rows()
    assert (found["torch"].status, found["torch"].file) == ("broken", "")
    assert found["torch of intruder 1.0"].status == "conflict"
    with pytest.raises(ismcore.BackendBroken, match="No module named 'nowhere_at_all'"):
        ismcore.fit(X, backend="torch", epochs=1)
    assert ismcore.fit(X, epochs=1).backend == "jax"


OBSERVER = """
from ismcore import hookimpl
heard = []

@hookimpl
def ismcore_fit_event(event):
    heard.append(event.kind)
"""


def test_an_observer_that_fails_is_detached_and_the_fit_goes_on(shelf):
    shelf.put("heckler", f"{OBSERVER}    exit(1)\n")
    shelf.put("listener", OBSERVER)
    ismcore.backends()
    with pytest.warns(RuntimeWarning, match=r"heckler 1\.0 failed on a fit event and is detached: SystemExit") as caught:
        ismcore.fit(X, backend="autograd", epochs=2, recipe="single")
    assert [warned.category for warned in caught].count(RuntimeWarning) == 1
    assert sys.modules["heckler"].heard == ["start"]
    told = sys.modules["listener"].heard
    assert (told[0], told[-1], {*told[1:-1]}) == ("start", "end", {"chunk"})


def test_an_interrupt_passes_through_an_observer(shelf):
    shelf.put("patient", f"{OBSERVER}    raise KeyboardInterrupt\n")
    ismcore.backends()
    with pytest.raises(KeyboardInterrupt):
        ismcore.fit(X, backend="autograd", epochs=1)


REAL = """
import json, sys
import ismcore
frameworks = {"torch", "jax", "autograd"}
listed = [[row.name, row.status, row.reason] for row in ismcore.backends()]
imported = sorted(frameworks & set(sys.modules))
from truth import correlated
fitted = ismcore.fit(correlated(), backend="autograd", epochs=2).status
print(json.dumps([listed, imported, fitted]))
"""


def test_all_faults_at_once_in_a_process_of_its_own(shelf):
    for number, (code, _) in enumerate(FAULTS.values()):
        shelf.put(f"odd{number:02}", code)
    shelf.put_good("torch_intruder", offers="torch")
    shelf.put_good("fine")
    path = [str(shelf.folder), str(Path(__file__).parent)]
    code = f"import sys; sys.path[:0] = {path!r}\n{REAL}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    listed, imported, fitted = json.loads(done.stdout)
    assert imported == []
    assert fitted == "completed"
    statuses = {name: status for name, status, _ in listed}
    assert {name for name, status in statuses.items() if status == "ready"} == {*READY, "fine"}
    assert sum(status == "broken" for status in statuses.values()) == len(FAULTS)
    assert all(reason for _, status, reason in listed if status != "ready")


LOUD = "import os\nprint('by print')\nos.write(1, b'by a library\\n')\n"
LOUD += "import atexit\natexit.register(print, 'at the end')\n"
WORDS = {"listed": ["backends"], "used": ["fit", "x.csv", "--backend", "loud", "--epochs", "1", "--out", "r"]}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_what_a_plugin_or_its_backend_prints_is_not_among_a_command_s_json(words, shelf):
    shelf.put("loud", LOUD + PLUGIN.format(name="loud", module="loud", api=API), backend=LOUD + BACKEND.format(name="loud"))
    np.savetxt(shelf.folder / "x.csv", X, delimiter=",")
    done = subprocess.run(
        [sys.executable, "-m", "ismcore", *words, "--json"],
        cwd=shelf.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert ("loud" in [row["name"] for row in found]) if isinstance(found, list) else found["backend"] == "loud"
    assert {"by print", "by a library", "at the end"} <= set(done.stderr.splitlines())

"""Nothing in a file ever names code to run: what the sources may not hold, and what loading a file may not do."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from saved_results import RESULTS
from saved_results import path as golden
from truth import READY

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for top in ("ismcore", "backends") for path in (ROOT / top).rglob("*.py"))

FORBIDDEN_MODULES = {
    "_pickle": "runs what a file says",
    "cloudpickle": "runs what a file says",
    "code": "runs text",
    "copyreg": "is part of pickle",
    "dill": "runs what a file says",
    "imp": "imports by a name",
    "jsonpickle": "runs what a file says",
    "joblib": "pickles",
    "marshal": "loads code",
    "numexpr": "runs text",
    "pickle": "runs what a file says",
    "pkgutil": "imports by a name",
    "runpy": "imports by a name",
    "shelve": "pickles",
    "yaml": "makes objects of any class",
}
"""Modules, with what is wrong with them here; those below them are meant too."""

FORBIDDEN_BUILTINS = ("eval", "exec", "compile", "__import__", "execfile", "breakpoint")

FORBIDDEN_ATTRIBUTES = {
    ("torch", "load"): "unpickles",
    ("torch", "save"): "pickles",
    ("torch.jit", "load"): "loads code",
    ("torch.package", "PackageImporter"): "loads code",
    ("torch.hub", "load"): "loads code from the network",
    ("jax.export", "deserialize"): "loads a program",
    ("numpy", "fromregex"): "runs a pattern of the file's",
    ("os", "system"): "runs text",
    ("os", "popen"): "runs text",
}

IMPORTLIB = {
    "ismcore/plugins/lookup.py": "import_module: the `load` of a BackendInfo, which code of an installed plugin returned",
    "ismcore/plugins/registry.py": "import_module, find_spec: entry points of installed distributions, our table of others",
    "ismcore/samples/tables/columnar.py": "import_module: polars, pyarrow and pandas, by tables in the source",
    "ismcore/samples/tables/frames.py": "import_module: polars or pyarrow, by a table in the source",
    "ismcore/samples/sources/readers.py": "import_module: zarr or pyarrow, by a name in the source",
    "ismcore/results/shown.py": "import_module: ismcore.plotting, which loads matplotlib",
    "backends/ismcore_autograd/__init__.py": "import_module: its own modules, by a table in the source",
    "backends/ismcore_jax/__init__.py": "import_module: its own modules, by a table in the source",
    "backends/ismcore_jax/pickling.py": "import_module: a module of a table in the source, in a pickle that its caller opens",
    "backends/ismcore_torch/__init__.py": "import_module: its own modules, by a table in the source",
    "ismcore/testing/globals.py": "import_module: frameworks whose settings are watched, by a table in the source",
    "ismcore/testing/checks/process.py": "import_module, in the text of a program: the backend under test, by its class",
}
"""Where a module is imported by a name that is not in the source, and where that name comes from: never from a file of data."""

PICKLES = {
    "backends/ismcore_jax/forms.py": "a part of the pickle of a result, which pickle.loads of the caller's own opens",
    "backends/ismcore_jax/pickling.py": "writes that part; no file of ismcore holds one",
}
"""Where pickle is imported: for results that their owner pickles, as to send them to another process; for no file of ours."""

SUBPROCESSES = {
    "ismcore/cli/benchmarks.py": "the benchmark programs of the checkout, by the same Python",
    "ismcore/testing/checks/process.py": "the backend under test, in a fresh process of the same Python",
}
"""Where a process is started, and which: never a shell."""


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def aliases(parsed):
    """What each name in a file stands for: modules, and what is imported from them."""
    found = {}
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return found


def imported(parsed):
    """The full names of all that a file imports, wherever in it."""
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def full_name(node, known):
    """The full name of an expression such as `np.load`; "" if it is none."""
    if isinstance(node, ast.Attribute):
        before = full_name(node.value, known)
        return f"{before}.{node.attr}" if before else ""
    return known.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def named_in(parsed):
    known = aliases(parsed)
    return {full_name(node, known) for node in ast.walk(parsed) if isinstance(node, ast.Attribute | ast.Name)}


def violations(parsed):
    """What a file holds that it may not."""
    known = aliases(parsed)
    for module in imported(parsed):
        for forbidden, why in FORBIDDEN_MODULES.items():
            if module == forbidden or module.startswith(f"{forbidden}."):
                yield f"imports {module}, which {why}"
    everything = named_in(parsed) | set(imported(parsed))
    for (module, attribute), why in FORBIDDEN_ATTRIBUTES.items():
        if f"{module}.{attribute}" in everything:
            yield f"uses {module}.{attribute}, which {why}"
    for node in ast.walk(parsed):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_BUILTINS and not is_own(node.id, parsed):
            yield f"uses {node.id}, in line {node.lineno}"
        if isinstance(node, ast.Attribute) and full_name(node, known) in {f"builtins.{name}" for name in FORBIDDEN_BUILTINS}:
            yield f"uses {node.attr}, in line {node.lineno}"
        if isinstance(node, ast.Call):
            yield from wrong_call(node, full_name(node.func, known))


def is_own(name, parsed):
    """Whether `compile` is the option of `fit` that has this name: a parameter, a field or a variable of the file."""
    stored = (node.id for node in ast.walk(parsed) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return name == "compile" and (name in stored or any(isinstance(n, ast.arg) and n.arg == name for n in ast.walk(parsed)))


def wrong_call(node, name):
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    pickles = options.get("allow_pickle")
    if name in ("numpy.load", "numpy.lib.format.read_array") and not (
        isinstance(pickles, ast.Constant) and pickles.value is False
    ):
        yield f"calls {name} without allow_pickle=False, in line {node.lineno}"
    shell = options.get("shell")
    if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
        yield f"calls {name} with a shell, in line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_source_holds_nothing_that_runs_what_a_file_says(path):
    allowed = ["imports pickle, which runs what a file says"] if name_of(path) in PICKLES else []
    assert list(violations(tree(path))) == allowed


HARMLESS = ("importlib.metadata", "importlib.resources", "importlib.machinery")


def names_of(module, path):
    """What a file uses of a module, also in the text of a program."""
    parsed, text = tree(path), path.read_text(encoding="utf-8")
    names = {name for name in {*imported(parsed), *named_in(parsed)} if name.partition(".")[0] == module}
    names = {name for name in names - {module} if not name.startswith(HARMLESS)}
    return names | ({"import_module"} if module == "importlib" and "import_module" in text else set())


@pytest.mark.slow
@pytest.mark.parametrize(("module", "allowed"), [("importlib", IMPORTLIB), ("subprocess", SUBPROCESSES)])
def test_imports_by_a_name_and_processes_are_where_they_are_argued_for_and_nowhere_else(module, allowed):
    found = {name_of(path): names for path in SOURCES if (names := names_of(module, path))}
    assert set(found) == set(allowed), found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import _pickle",
        "from yaml import load",
        "import joblib.externals",
        "eval('1')",
        "run = exec",
        "import builtins\nbuiltins.eval('1')",
        "__import__('os')",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x')",
        "from torch import load",
        "from torch import load as read\nread('x')",
        "import torch.jit as j\nj.load('x')",
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "from numpy import load as read\nread('x', allow_pickle=no)",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import os\nos.system('x')",
        "code = compile('1', '', 'eval')",
        "def f(eval):\n    eval('1')",
    ],
)
def test_the_look_finds_what_it_is_for(text):
    assert list(violations(ast.parse(text)))


@pytest.mark.slow
def test_every_module_of_the_packages_is_looked_at():
    program = f"import sys, json, ismcore.cli, {', '.join(f'ismcore_{name}.backend' for name in READY)}\n"
    program += "print(json.dumps([getattr(m, '__file__', '') for n, m in sys.modules.items() if n.startswith('ismcore')]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert {Path(file).resolve() for file in json.loads(done.stdout)} <= {path.resolve() for path in SOURCES}


WATCH = """
import json, sys
import ismcore
from saved_results import OWN, RESULTS, path as golden

def load(path):
    try:
        ismcore.load(path, model=OWN if "own" in str(path) else None)
        return "loaded"
    except ismcore.IsmError:
        return "refused"

for name in RESULTS:  # what is imported and looked up once is imported and looked up here
    load(golden(name))
seen, watching = [], False

def hook(event, arguments):
    if watching:
        seen.append([event, str(arguments[0]) if arguments else ""])

sys.addaudithook(hook)
outcomes = {}
for path in sys.argv[1:]:
    watching = True
    outcomes[path] = load(path)
    watching = False
print(json.dumps([outcomes, seen]))
"""


def test_loading_a_file_opens_that_file_and_does_nothing_else(tmp_path):
    files = {name: golden(name).read_bytes() for name in RESULTS}
    hostile = {
        "named": files["mlp"].replace(b"autograd", b"os.systm"),
        "cut": files["mlp"][:900],
        "pickled": b"cos\nsystem\n(S'touch hacked'\ntR.",
        "empty": b"",
    }
    for name, data in {**files, **hostile}.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in (*files, *hostile)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *paths],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    outcomes, seen = json.loads(done.stdout)
    assert outcomes == {path: "loaded" if Path(path).name in files else "refused" for path in paths}
    opened = [path for event, path in seen if event == "open" and not path.isdecimal()]  # not what is opened by its number
    assert opened == paths
    assert {event for event, _ in seen} == {"open"}, seen
    assert not (tmp_path / "hacked").exists()

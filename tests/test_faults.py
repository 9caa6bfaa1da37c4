"""What goes wrong around a fit, and what comes of it: threads, forks, long-lived processes, odd names, clocks that jump."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from truth import BACKENDS, SMALL_SAMPLE, correlated

import ismcore

pytestmark = pytest.mark.filterwarnings(*SMALL_SAMPLE)

TESTS = Path(__file__).parent
X = correlated()


def test_every_test_in_the_table_of_faults_is_there():
    rows = [line for line in (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8").splitlines() if "::" in line]
    named = [re.findall(r"`(tests/\w+\.py)::(\w+)`", line) for line in rows]
    assert len(rows) >= 30
    assert all(line.count("|") == 4 for line in rows)
    for path, test in (pair for pairs in named for pair in pairs):
        functions = [node.name for node in ast.parse((TESTS.parent / path).read_text()).body if hasattr(node, "args")]
        assert test in functions, (path, test)
    assert all(named)


def fit(backend, seed=0, **options):
    given = {"model": ismcore.MLP((4,), "tanh"), "epochs": 5, "progress": False, "seed": seed, **options}
    return ismcore.fit(X, backend=backend, **given)


def assert_same(one, two):
    assert one.history["loss"].tobytes() == two.history["loss"].tobytes()
    assert {name: value.tobytes() for name, value in one.params.items()} == {n: v.tobytes() for n, v in two.params.items()}


def run(code, *arguments, **environment):
    """What a program in a process of its own printed last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_8_threads_that_fit_and_score_at_once_do_what_they_do_one_after_the_other(backend):
    def work(seed):
        result = fit(backend, seed)
        at = ismcore.evaluate(result.model, result.params, X, backend=backend)
        return result, result.score(X), at.loss

    serial = [work(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, [*range(8), *range(8)]))
    for (one, score, loss), (two, expected, expected_loss) in zip(found, serial * 2, strict=True):
        assert_same(one, two)
        assert score.tobytes() == expected.tobytes()
        assert loss == expected_loss


@pytest.mark.slow
def test_after_a_fork_and_in_a_spawned_process_a_fit_goes_on_or_says_why_not(backend):
    done = subprocess.run(
        [sys.executable, TESTS / "forking.py", backend],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["spawn"] is True
    assert found["fork"]["score"] == "same"
    for what in ("fit", "evaluate"):
        if backend == "jax":
            assert found["fork"][what].startswith("BackendUnavailable: backend 'jax' cannot run in a process that was forked")
            assert "spawn" in found["fork"][what]
        else:
            assert found["fork"][what] == "same"


MANY = """
import json, os, sys
import numpy as np
import ismcore

def use():
    with open("/proc/self/statm") as stream:
        pages = int(stream.read().split()[1])
    return [pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))]

def one(seed):
    x = np.random.default_rng(seed).normal(size=(40, 2))
    result = ismcore.fit(x, backend=sys.argv[1], model=ismcore.MLP((3,)), epochs=2, progress=False, seed=seed)
    result.score(x)
    result.save(sys.argv[2])
    ismcore.load(sys.argv[2])

for seed in range(30):
    one(seed)
before = use()
for seed in range(200):
    one(seed)
print(json.dumps([after - start for after, start in zip(use(), before)]))
"""


@pytest.mark.slow
def test_200_fits_in_one_process_leave_memory_descriptors_and_threads_as_they_are(backend, tmp_path):
    memory, descriptors, threads = run(MANY, backend, str(tmp_path / "fit"))
    assert memory < 8 * 2**20  # 40 KB a fit; a compiled program that is not let go takes more than ten times that
    assert (descriptors, threads) == (0, 0)


ROWS = """
import json, sys, numpy as np, ismcore

def use():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096

x, marks = np.random.default_rng(0).normal(size=(300, 3)), []
for n in range(50, 74):
    ismcore.fit(x[:n], backend="jax", model=ismcore.Affine(), epochs=2, validation=0, progress=False)
    if n in (63, 73):
        marks.append(use())
print(json.dumps(marks[1] - marks[0]))
"""


@pytest.mark.slow
def test_jax_fits_of_ever_other_numbers_of_rows_do_not_grow_memory_without_end():
    assert run(ROWS) < 16 * 2**20  # 10 fits that each keep a program take more than twice that


NAMES = ["with space", "größe 数", "quote'\"$(x);", "-dash", "new\nline", os.fsdecode(b"\xff\xfe")]

SHELL = """
import json, os, sys
from ismcore.cli.main import main

for name in sys.argv[1:]:
    os.chdir(name)
    table, out = os.path.join(".", name + ".csv"), os.path.join(".", name)
    assert main(["fit", table, "--epochs", "2", "--out", out]) == 0
    assert main(["score", out, table, "--out", out + ".npy"]) == 0
    assert main(["inspect", out]) == 0
    assert main(["inspect", table]) == 5
    os.chdir("..")
print(json.dumps([sys.stdout.encoding, sys.getfilesystemencoding()]))
"""


@pytest.mark.parametrize(("locale", "encoding"), [("C", "ascii"), ("C.UTF-8", "utf-8")])
def test_the_command_line_works_in_any_locale_and_on_any_path(tmp_path, monkeypatch, locale, encoding):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        folder = tmp_path / name
        folder.mkdir()
        np.savetxt(folder / f"{name}.csv", X, delimiter=",", header="größe,b,c", comments="", encoding="utf-8")
    environment = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "ISMCORE_BACKEND": "autograd"}
    found = run(SHELL, *NAMES, **environment)
    assert [name.lower().replace("ansi_x3.4-1968", "ascii") for name in found] == [encoding] * 2
    for name in NAMES:
        result = ismcore.load(tmp_path / name / name)
        np.testing.assert_array_equal(np.load(tmp_path / name / f"{name}.npy"), result.score(X))


def test_a_clock_that_jumps_changes_nothing(monkeypatch):
    expected = fit("autograd")
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 - 1e8 * next(jumps))
    found = fit("autograd")
    assert_same(found, expected)
    assert all(0.0 <= seconds < 60.0 for seconds in found.timings.values())


def test_durations_are_never_taken_from_the_clock_on_the_wall():
    found = set()
    for top in ("ismcore", "backends"):
        for path in (TESTS.parent / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in ("time", "now", "utcnow", "today"):
                    owner = node.value.id if isinstance(node.value, ast.Name) else ""
                    if owner in ("time", "datetime", "date"):
                        found.add(path.name)
    # The age of a file, on systems without locks; the moment of an event, in a log.
    assert found <= {"tempfiles.py", "tracking.py"}, found


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_saved_by_any_backend_goes_into_torch_by_its_names(tmp_path, backend):
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 6), torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)])

        def forward(self, x):
            for layer in self.layers[:-1]:
                x = torch.tanh(layer(x))
            return self.layers[-1](x)

    fit(backend, model=ismcore.MLP((6, 5), "tanh"), dtype="float64").save(tmp_path / "fit")
    result = ismcore.load(tmp_path / "fit")
    net = Net().double()
    report = net.load_state_dict({name: torch.tensor(value) for name, value in result.params.items()})
    assert (report.missing_keys, report.unexpected_keys) == ([], [])
    z = torch.tensor(result.coordinates(X))  # the network of standardised samples, as it was trained
    np.testing.assert_allclose(net(z).detach().numpy() / result.coordinates.scale, result.score(X), rtol=1e-12, atol=1e-12)


WITHOUT = """
import json, sys
for name in ("jax", "jaxlib", "torch", "autograd", "optax"):
    sys.modules[name] = None
import ismcore
result = ismcore.load(sys.argv[1])
try:
    result.divergence([[0.0, 0.0, 0.0]])
    said = ""
except ismcore.BackendUnavailable as error:
    said = str(error)
print(json.dumps([result.score([[0.5, 1.0, 2.0]]).tolist(), said]))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_result_is_read_and_scored_where_no_framework_is(tmp_path, backend):
    result = fit(backend)
    result.save(tmp_path / "fit")
    score, said = run(WITHOUT, str(tmp_path / "fit"))
    np.testing.assert_array_equal(np.array(score), result.score([[0.5, 1.0, 2.0]]))
    assert f"backend '{backend}'" in said


SEEDED = """
import hashlib, json, sys
import ismcore
from truth import correlated
objective = ismcore.SlicedScoreMatching(2)
result = ismcore.fit(correlated(), backend=sys.argv[1], epochs=5, objective=objective, progress=False)
arrays = {**result.params, **result.history}
print(json.dumps([hashlib.sha256(b"".join(arrays[n].tobytes() for n in sorted(arrays))).hexdigest(), list(arrays)]))
"""


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_in_every_process(backend, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", backend])
    exec(SEEDED, {})  # noqa: S102  (the program above)
    here = json.loads(capsys.readouterr().out)
    assert run(SEEDED, backend, PYTHONHASHSEED="1", PYTHONPATH=str(TESTS)) == here

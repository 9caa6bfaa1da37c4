"""The suite of benchmarks runs, leaves out what is wrong or has no device, and its JSON becomes a report. Speed is no test."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from late import torch

from ismcore.cli.main import main

ROOT = Path(__file__).parent.parent
SUITE = ROOT / "bench"


@pytest.fixture
def suite(monkeypatch):
    """The modules of the suite, importable as they are when pytest runs it."""
    monkeypatch.syspath_prepend(SUITE)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(SUITE) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def pytest_of_the_suite(tmp_path, *words):
    """Output of a run of the suite, and its JSON."""
    file = tmp_path / "found.json"
    command = [sys.executable, "-m", "pytest", str(SUITE), "-q", f"--benchmark-json={file}", *words]
    # pytest-benchmark measures nothing where it takes itself for a worker of pytest-xdist
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # the extra `bench` has not what the tests need beside it
    (tmp_path / "sybil.py").write_text("raise ImportError('not here')\n")
    alone["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    return done, json.loads(file.read_text()) if file.exists() and file.stat().st_size else None


@pytest.mark.slow
def test_smallest_cells_run_and_become_a_report(tmp_path, capfd):
    words = ["--backend=autograd", "--smallest", "--part=reference", "--part=n", "--part=kit", "--part=memory"]
    done, found = pytest_of_the_suite(tmp_path, *words)
    assert done.returncode == 0, done.stdout
    assert "node" not in found["machine_info"]  # the host's name
    by_program = {(b["extra_info"]["case"], b["extra_info"]["program"]): b for b in found["benchmarks"]}
    ours = by_program["reference", "ours"]
    assert ours["group"] == "reference cpu float32"
    assert {"backend", "device", "threads", "route", "first_seconds"} <= ours["extra_info"].keys()
    assert ours["extra_info"]["route"] == "OneHidden"
    assert {"hand", "NumPy"} <= {program for case, program in by_program if case == "reference"}
    assert all(benchmark["stats"]["median"] > 0.0 for benchmark in found["benchmarks"])

    assert main(["bench", "--suite", str(SUITE), "--from", str(tmp_path / "found.json"), "--out", str(tmp_path / "out")]) == 0
    assert capfd.readouterr().out.strip() == str(tmp_path / "out" / "speed.md")
    page = (tmp_path / "out" / "speed.md").read_text()
    assert "| the reference run | reference: ours / hand | autograd |" in page
    assert (tmp_path / "out" / "speed-by-hand.png").read_bytes().startswith(b"\x89PNG")
    again = ["bench", "--suite", str(SUITE), "--from", str(tmp_path / "out" / "speed.json"), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert (tmp_path / "again" / "speed.md").read_text() == page


@pytest.mark.slow
def test_the_cells_of_a_gpu_are_found_and_without_one_said_to_have_no_device(tmp_path):
    done, found = pytest_of_the_suite(tmp_path, "--device=cuda", "--backend=torch", "--smallest", "--part=reference")
    if torch.cuda.is_available():
        assert found["benchmarks"][0]["group"] == "reference cuda float32"
    else:
        assert done.returncode == 0, done.stdout
        assert found is None
        assert "no device 'cuda'; torch has cpu" in done.stdout
        assert "passed" not in done.stdout


def gpu(*words):
    command = [sys.executable, str(SUITE / "gpu.py"), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_for_a_gpu_runs_on_a_cpu_and_calls_its_report_a_dry_run(tmp_path):
    done = gpu("--device", "cpu", "--smallest", "--backends", "autograd", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "gpu.md")
    assert {file.name for file in tmp_path.iterdir()} == {"gpu.json", "gpu.md", "matrix-gpu.md"}
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["dry_run"] is True
    assert found["stopped"] == []
    assert {row["part"] for row in found["rows"]} == {"device", "reference", "wide", "rows", "memory", "kit"}
    timed = [row for row in found["rows"] if row["part"] in ("reference", "wide", "rows")]
    assert {row["program"] for row in timed} == {"ours", "hand"}
    assert all(min(row["seconds"]) > 0.0 for row in timed)
    assert all(row["mib"] > 10.0 for row in found["rows"] if row["part"] == "memory")
    for name in ("gpu.md", "matrix-gpu.md"):
        text = (tmp_path / name).read_text()
        assert text.startswith("# A dry run on a CPU")
        assert "# On a GPU" not in text
    assert "| reference | reference | autograd | hand |" in (tmp_path / "gpu.md").read_text()
    assert "| check_vjp | ok | " in (tmp_path / "matrix-gpu.md").read_text()


@pytest.mark.slow
def test_without_a_gpu_the_command_for_one_says_what_is_there_and_writes_nothing():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    before = sorted((SUITE / "reports").iterdir())
    done = gpu("--backends", "torch")
    assert done.returncode == 3
    assert "torch: no device 'cuda'; torch has cpu" in done.stderr
    assert gpu("--device", "cpu", "--smallest", "--backends", "autograd").returncode == 3  # no folder for a dry run
    assert sorted((SUITE / "reports").iterdir()) == before


@pytest.mark.slow
@pytest.mark.usefixtures("suite")
def test_a_part_that_is_stopped_or_dies_keeps_what_it_had_found(tmp_path, monkeypatch):
    import gpu as program

    job = program.Job("kit", "autograd", "cpu", True, 2.0)
    begun = """import sys, time; open(sys.argv[-1], 'w').write('{"part": "kit"}\\n{"pa'); """
    monkeypatch.setattr(program, "__file__", str(tmp_path / "worker.py"))
    for ending, why in (("time.sleep(60)", "stopped after 2 s"), ("raise OSError('no driver')", "OSError: no driver")):
        (tmp_path / "worker.py").write_text(begun + ending)
        assert program.in_a_process(job) == ([{"part": "kit"}], why)


def test_no_suite_is_said_with_what_to_do(tmp_path, capsys):
    assert main(["bench", "--suite", str(tmp_path)]) == 2
    assert "checkout" in capsys.readouterr().err


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize("hidden", [(5,), (5, 4), (5, 4, 6)])
@pytest.mark.parametrize("curvature_weight", [0.0, 0.3])
@pytest.mark.parametrize(("d", "activation"), [(3, "softplus"), (1, "sigmoid")])
def test_gradients_derived_by_hand_are_those_of_finite_differences(d, hidden, activation, curvature_weight):
    from cases import Case

    assert_gradient_is_that_of_finite_differences(Case("tiny", "tiny", 7, d, hidden, activation, curvature_weight))


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize("hidden", [(5,), (5, 4), (5, 4, 6)])
@pytest.mark.parametrize("d", [1, 3])
def test_gradients_of_energies_derived_by_hand_are_those_of_finite_differences(d, hidden):
    from cases import Case

    assert_gradient_is_that_of_finite_differences(Case("tiny", "tiny", 7, d, hidden, energy=True))


def assert_gradient_is_that_of_finite_differences(case):
    from by_hand.with_numpy import loss_and_gradient

    loss = loss_and_gradient(case, "float64")
    params = {name: value.copy() for name, value in case.params.items()}
    gradient, unused = ({name: np.zeros_like(value) for name, value in params.items()} for _ in range(2))
    loss(params, gradient)
    for name, value in params.items():
        for place in np.ndindex(value.shape):
            at, found = value[place], []
            for step in (1e-5, -1e-5):
                value[place] = at + step
                found.append(loss(params, unused))
            value[place] = at
            assert abs((found[0] - found[1]) / 2e-5 - gradient[name][place]) < 1e-9


@pytest.mark.usefixtures("suite")
def test_what_is_wrong_is_not_timed():
    from programs import Program
    from rounds import Timed, checked, interleaved

    sound = Program("sound", lambda epochs: (np.full(epochs, 2.0), 0.5), 4, np.full(3, 2.0))
    wrong = replace(sound, expected=np.array([2.0, 2.0, 2.001]))

    def broken(epochs):
        raise ValueError("no such thing")

    found = interleaved({"sound": sound, "wrong": wrong, "broken": replace(sound, take=broken)}, 3, 1e-4)
    assert found["sound"].steps == [0.5] * 3
    assert found["wrong"] == "the first losses are off by 5.0e-04, which is more than 1e-04"
    assert found["broken"] == "ValueError: no such thing"
    assert isinstance(checked(sound, 1e-4), Timed)
    assert checked(replace(sound, take=lambda epochs: (np.full(epochs, np.nan), 0.5)), 1e-4) == "a loss is not finite"


@pytest.mark.usefixtures("suite")
def test_a_library_that_is_not_installed_is_no_program_and_without_any_there_is_no_cell(monkeypatch):
    import by_others
    from cases import case
    from programs import names

    monkeypatch.setattr(by_others, "find_spec", lambda module: None)
    assert [names(case(id), backend) for id in ("energy-2", "score-1") for backend in ("autograd", "torch", "jax")] == [[]] * 6
    monkeypatch.setattr(by_others, "find_spec", lambda module: module in ("torchebm", "coreax") or None)
    assert names(case("energy-2"), "torch") == ["ours", "ours, sliced", "torchebm"]
    assert names(case("score-1"), "jax") == ["ours", "ours, sliced", "coreax", "coreax, patched"]
    assert names(case("energy-2"), "jax") == names(case("score-1"), "torch") == []
    assert by_others.installed() == ("torchebm", "coreax")


@pytest.mark.filterwarnings("ignore:too few rows:ismcore.IsmWarning")
@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_library_is_timed_where_its_losses_are_right_and_one_that_cannot_be_imported_is_not(monkeypatch, sign):
    import by_others
    from cases import Case
    from programs import programs
    from rounds import Timed, checked

    def exact(energy, x):
        x = x.requires_grad_()
        psi = -sign * torch.autograd.grad(energy(x).sum(), x, create_graph=True)[0]
        columns = (torch.autograd.grad(psi[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1]))
        return SimpleNamespace(loss=(0.5 * psi.square().sum(dim=1) + sum(columns)).mean())

    monkeypatch.setattr(by_others, "find_spec", lambda module: module in ("ebm", "toy_gradlogp") or None)
    monkeypatch.setitem(sys.modules, "ebm", SimpleNamespace(ExactScoreMatching=lambda: exact))
    monkeypatch.setitem(sys.modules, "toy_gradlogp", None)
    case = Case("tiny", "rivals", 7, 3, (5, 4), slow_epochs=3, beside=("sliced", "others"), whole=True, energy=True)
    found = {name: checked(program, 1e-9) for name, program in programs(case, "torch", "float64", "cpu").items()}
    assert list(found) == ["ours", "ours, sliced", "ebmkit", "toy-gradlogp"]
    assert isinstance(found["ours"], Timed)
    assert isinstance(found["ours, sliced"], Timed)
    assert isinstance(found["ebmkit"], Timed) if sign == 1.0 else found["ebmkit"].startswith("the first losses are off")
    assert found["toy-gradlogp"].startswith("ModuleNotFoundError")


@pytest.mark.usefixtures("suite")
def test_every_figure_that_is_asked_for_has_a_cell():
    from cases import case
    from claims import RATIOS, slope
    from programs import names

    for row in RATIOS:
        programs = names(case(row.case), row.backend)
        assert row.program in programs
        assert row.over in programs or row.over == "C"  # where there is a compiler
    assert abs(slope([(10.0, 3.0), (100.0, 30.0), (1000.0, 300.0)]) - 1.0) < 1e-12


@pytest.mark.usefixtures("suite")
def test_claims_are_ratios_of_medians_with_their_limits():
    from claims import answers
    from programs import on_rows
    from report import Found, claims_table

    def entry(case, program, *seconds, **more):
        common = {"family": "reference", "backend": "torch", "dtype": "float32", "device": "cpu"}
        return {**common, "case": case, "program": program, "seconds": list(seconds), **more}

    entries = [entry("reference", "ours", 1.0, 9.0, 2.0), entry("reference", "hand", 4.0, 4.0, 50.0)]
    entries += [entry("n-1000000", on_rows(n), max(n, 20_000) * 1e-8) for n in (10_000, 30_000, 100_000, 300_000)]
    entries.append(entry("n-1000000", "ours", 1_000_000 * 1e-8))
    mib = {"imported": 100.0, "sampled": 110.0, "peak": 500.0, "data": 8.0}
    entries.append(entry("n-1000000", "ours", 1.0, **{"family": "memory", "mib": mib}))
    found = Found([{"entries": entries, "not_timed": [], "machine": {}}])
    given = claims_table(found)
    found = {answer.what: (answer.found, answer.limit, answer.met) for answer in answers(found)}
    assert found["reference: ours / hand"] == ("0.5", "<= 0.35", False)
    assert found["slope of log time by log n, above 1e4"] == ("1.00", "1.0 +- 0.1", True)
    assert found["slope of log time by log n, with 1e4"] == ("0.88", "", None)
    assert found["n-1000000: extra peak memory, MiB"] == ("400", "<= 324", False)
    assert "| the reference run | reference: ours / hand | torch | 0.5 | <= 0.35 | **no** |" in given

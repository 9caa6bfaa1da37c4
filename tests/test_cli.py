"""The command line: what it writes, what it says, and its exit codes; no traceback for a user's mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ismcore
from ismcore.cli import main

WINE = Path(__file__).parent / "data" / "winequality-red.csv"
MEASURED = range(11)
X = np.loadtxt(WINE, delimiter=",", usecols=MEASURED)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Commands run in a folder of their own, on the backend that starts soonest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISMCORE_BACKEND", "autograd")
    return tmp_path


def run(capsys, *words):
    """Exit code, standard output and standard error of `ismcore WORDS`."""
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def fit(capsys, data=WINE, *words):
    return run(capsys, "fit", data, "--columns", "0-10", "--epochs", 5, *words)


def test_fit_writes_a_result_in_the_units_of_the_data(capsys, folder):
    code, out, err = fit(capsys)
    assert (code, err) == (0, "")
    assert os.listdir(folder) == ["winequality-red.ismcore.safetensors"]
    result = ismcore.load("winequality-red.ismcore.safetensors")
    expected = ismcore.fit(X, backend="autograd", epochs=5)
    assert result.score(X).tobytes() == expected.score(X).tobytes()
    at = ismcore.evaluate(result.model, result.params, X, backend="autograd", dtype="float32").score
    np.testing.assert_allclose(result.score(X), at, rtol=1e-5, atol=1e-5 * np.abs(at).max())
    first, last = result.history["loss"][[0, -1]]
    for said in ("n = 1599, d = 11", f"{first:.6g} -> {last:.6g} in 5 epochs", "autograd (named by ISMCORE_BACKEND)"):
        assert said in out
    assert out.endswith("winequality-red.ismcore.safetensors\n")


def test_the_score_of_data_in_a_unit_c_times_smaller_is_c_times_smaller(capsys, folder):
    units = 10.0 ** np.arange(-5, 6)
    np.save("scaled.npy", X * units)
    for data, out in ((WINE, "plain"), ("scaled.npy", "scaled")):
        assert fit(capsys, data, "--dtype", "float64", "--out", out)[0] == 0
    plain, scaled = ismcore.load("plain"), ismcore.load("scaled")
    np.testing.assert_allclose(scaled.score(X * units) * units, plain.score(X), rtol=1e-9, atol=1e-9)
    assert np.abs(plain.score(X)).min() > 0.0
    # d log p of standardised samples / dz, divided by the columns' own scale
    z = ismcore.fit((X - X.mean(0)) / X.std(0), backend="autograd", epochs=5, dtype="float64", standardize=False)
    np.testing.assert_allclose(plain.score(X), z.score((X - X.mean(0)) / X.std(0)) / X.std(0), rtol=1e-9, atol=1e-9)


def test_every_option_of_fit_arrives(capsys, folder):
    words = ["--model-hidden", "6,5", "--activation", "tanh", "--curvature-weight", "0.25", "--learning-rate", "0.02"]
    words += ["--seed", "3", "--dtype", "float64", "--device", "cpu", "--backend", "torch", "--no-standardize", "--out", "here"]
    code, out, err = fit(capsys, WINE, *words, "--json")
    assert (code, err) == (0, "")
    found = ismcore.load("here")
    expected = ismcore.fit(
        X,
        backend="torch",
        model=ismcore.MLP((6, 5), "tanh"),
        objective=ismcore.ImplicitScoreMatching(0.25),
        optimizer=ismcore.Adam(0.02),
        epochs=5,
        seed=3,
        dtype="float64",
        device="cpu",
        standardize=False,
    )
    np.testing.assert_array_equal(found.history["loss"], expected.history["loss"])
    assert (found.model, found.objective, found.seed) == (expected.model, expected.objective, 3)
    said = json.loads(out)
    assert {name: said[name] for name in ("n", "d", "backend", "dtype", "device", "epochs", "file", "status")} == {
        "n": 1599,
        "d": 11,
        "backend": "torch",
        "dtype": "float64",
        "device": "cpu",
        "epochs": 5,
        "file": "here",
        "status": "completed",
    }
    assert (said["first_loss"], said["last_loss"]) == (expected.history["loss"][0], expected.history["loss"][-1])


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--columns", "0-10"], [*MEASURED]),
        (["--columns", "10,0-2"], [10, 0, 1, 2]),
        (["--columns", "4"], [4]),
        ([], [*MEASURED, 11]),
    ],
)
def test_columns_are_those_asked_for(capsys, words, kept):
    code, out, _ = run(capsys, "fit", WINE, "--epochs", 1, "--out", "r", *words, "--json")
    assert code == 0
    table = np.loadtxt(WINE, delimiter=",")
    np.testing.assert_allclose(ismcore.load("r").mean, table[:, kept].mean(axis=0))
    assert json.loads(out)["d"] == len(kept)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "the following arguments are required: COMMAND"),
        (["fix"], 2, "invalid choice: 'fix'"),
        (["fit"], 2, "required: DATA"),
        (["fit", WINE, "--columns", "5-2"], 2, "'5-2' is no list of columns"),
        (["fit", WINE, "--columns", "3-"], 2, "'3-' is no list of columns"),
        (["fit", WINE, "--columns", "12"], 2, "winequality-red.csv: there is no column 12"),
        (["fit", WINE, "--model-hidden", "8;8"], 2, "'8;8' is no list of widths"),
        (["fit", WINE, "--model-hidden", "0"], 2, "hidden must be"),
        (["fit", WINE, "--activation", "relu"], 2, "piecewise linear"),
        (["fit", WINE, "--activation", "sine"], 2, "invalid choice: 'sine'"),
        (["fit", WINE, "--epochs", "0"], 2, "epochs must be"),
        (["fit", WINE, "--seed", "-1"], 2, "seed must be"),
        (["fit", WINE, "--curvature-weight", "nan"], 2, "curvature_weight must be"),
        (["fit", "text.csv"], 2, "text.csv: line 2, column 1 ('kind')"),
        (["fit", "constant.csv"], 2, "column 1 of the samples is constant"),
        (["fit", "data.parquet"], 2, "'.parquet'"),
        (["fit", WINE, "--backend", "autogard"], 3, "did you mean 'autograd'"),
        (["fit", WINE, "--device", "cuda:7"], 3, "device 'cuda:7' is not available"),
        (["demo", "--backend", "autogard"], 3, "did you mean 'autograd'"),
        (["fit", "missing.csv"], 5, "missing.csv: No such file"),
        (["fit", "missing.npy"], 5, "missing.npy: No such file"),
        (["fit", "folder.csv"], 5, "folder.csv: Is a directory"),
        (["fit", WINE, "--out", "none/result"], 5, "none/result: cannot be written: there is no such folder"),
        (["fit", WINE, "--out", "folder.csv"], 5, "folder.csv: cannot be written: it is a folder"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(capsys, folder, words, code, said):
    Path("text.csv").write_text("acid,kind\n1,red\n")
    Path("constant.csv").write_text("1,2\n2,2\n")
    Path("folder.csv").mkdir()
    found, out, err = run(capsys, *words)
    assert found == code
    assert out == ""
    assert said in err.splitlines()[-1]
    assert ": error: " in err.splitlines()[-1]
    assert "Traceback" not in err
    assert code == 2 or len(err.splitlines()) == 1
    assert sorted(os.listdir(folder)) == ["constant.csv", "folder.csv", "text.csv"]


def test_the_data_are_never_overwritten(capsys, folder):
    text = "1,2\n2,3\n4,1\n"
    Path("data.csv").write_text(text)
    Path("link").symlink_to("data.csv")
    for out in ("data.csv", folder / "data.csv", "link"):
        code, _, err = run(capsys, "fit", "data.csv", "--epochs", "1", "--out", out)
        assert (code, Path("data.csv").read_text()) == (2, text)
        assert "would overwrite the data" in err


def test_where_the_result_goes_is_checked_before_the_work(capsys, monkeypatch):
    monkeypatch.setattr("ismcore.cli.fit", lambda *args, **options: pytest.fail("the fit was started"))
    assert fit(capsys, WINE, "--out", "none/result")[0] == 5


def test_a_fit_that_diverges_is_exit_code_4_and_writes_nothing(capsys, folder):
    code, out, err = fit(capsys, WINE, "--learning-rate", "1e30")
    assert (code, out) == (4, "")
    assert "at epoch 2: lower --learning-rate" in err
    assert len(err.splitlines()) == 1
    assert os.listdir(folder) == []


def test_an_interrupt_is_exit_code_130(capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ismcore.cli.fit", interrupted)
    assert fit(capsys) == (130, "", "ismcore: interrupted\n")


def test_a_full_disk_is_exit_code_5_and_leaves_nothing(capsys, folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, out, err = fit(capsys, WINE, "--out", "r")
    assert (code, out, err) == (5, "", "ismcore: error: r: cannot be written: No space left on device\n")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("words", [["--debug", "fit", "missing.csv"], ["fit", "missing.csv", "--debug"]])
def test_debug_shows_the_traceback_and_keeps_the_exit_code(capsys, words):
    code, _, err = run(capsys, *words)
    assert code == 5
    assert err.startswith("Traceback")
    assert err.endswith("ismcore: error: missing.csv: No such file or directory\n")


def test_a_bug_is_no_mistake_of_the_user(monkeypatch):
    def wrong(*args, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("ismcore.cli.fit", wrong)
    with pytest.raises(ZeroDivisionError):
        main(["fit", str(WINE)])


@pytest.mark.parametrize(
    ("backend", "names"), [("auto", ["autograd"]), ("torch", ["torch"]), ("all", ["autograd", "jax", "torch"])]
)
@pytest.mark.parametrize("met", [True, False])
def test_demo_runs_the_backends_asked_for(capsys, monkeypatch, backend, names, met):
    calls = []

    def run_demo(backends, out, progress):
        calls.append((sorted(backends), out, progress))
        return {"published_losses_met_within_1e-6": met}

    monkeypatch.setattr("ismcore.demo.run_demo", run_demo)
    code, out, _ = run(capsys, "demo", "--backend", backend, "--out", "pictures")
    assert calls == [(names, Path("pictures"), True)]
    assert code == (0 if met else 1)
    assert ("yes" if met else "no") in out
    assert str(Path("pictures", "report.html")) in out


def test_backends_are_listed_in_words_and_in_json(capsys):
    code, out, _ = run(capsys, "backends")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()][:3] == [["jax", "ready"], ["torch", "ready"], ["autograd", "ready"]]
    code, out, _ = run(capsys, "backends", "--json")
    assert code == 0
    assert [(b["name"], b["status"]) for b in json.loads(out)][:1] == [("jax", "ready")]


def test_help_names_every_exit_code_and_version_the_version(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert [line.split()[0] for line in out.split("exit codes:")[1].splitlines() if line] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "130",
    ]
    assert run(capsys, "--version") == (0, f"ismcore {ismcore_version()}\n", "")
    assert run(capsys, "fit", "--help")[0] == 0


def ismcore_version():
    from importlib.metadata import version

    return version("ismcore")


@pytest.mark.parametrize(
    "start", [[Path(sys.executable).parent / "ismcore"], [sys.executable, "-m", "ismcore"]], ids=["script", "module"]
)
def test_the_command_is_installed(start, folder):
    np.save("x.npy", X[:50])
    done = subprocess.run([*start, "fit", "x.npy", "--epochs", "2"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ismcore.load("x.ismcore.safetensors").d == 11
    done = subprocess.run([*start, "fit", "y.npy"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (5, "ismcore: error: y.npy: No such file or directory\n")


def test_help_loads_no_framework():
    program = """
import sys
from ismcore.cli import main
try:
    main(["--help"])
except SystemExit:
    heavy = {"torch", "jax", "autograd", "scipy", "matplotlib", "PIL", "safetensors"} & set(sys.modules)
    sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_goes_away_is_no_traceback():
    with subprocess.Popen(
        [sys.executable, "-m", "ismcore", "backends"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as gone:
        gone.stdout.close()
        assert gone.wait() == 5
        assert gone.stderr.read() == b""

"""The command line: what it writes, what it says, and its exit codes; no traceback for a user's mistake."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import commands
import numpy as np
import pytest
from saved_results import OWN, RESULTS
from saved_results import path as golden
from truth import BUNDLED, READY

import ismcore
from ismcore.cli.main import main
from ismcore.cli.program_cache import is_own_folder, prune
from ismcore.coordinates import Coordinates
from ismcore.files.tensorfile import pack

WARNED = (
    *("ignore:.* rows repeat:ismcore.IsmWarning", "ignore:the samples have atoms:ismcore.IsmWarning"),
    "ignore:discrete columns:ismcore.IsmWarning",
)
pytestmark = [pytest.mark.usefixtures("interrupts_are_heard"), pytest.mark.filterwarnings(*WARNED)]

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
    """Exit code, standard output, and standard error but for warnings, of `ismcore WORDS`."""
    code, out, err = commands.run(capsys, *words)
    return code, out, without_warnings(err)


def without_warnings(err):
    """What is left of standard error: `tests/test_warnings.py` is about the warnings."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("ismcore: warning: "))


def fit(capsys, data=WINE, *words):
    return run(capsys, "fit", data, "--columns", "0-10", "--epochs", 5, "--recipe", "single", *words)


def test_fit_writes_a_result_in_the_units_of_the_data(capsys, folder):
    code, out, err = fit(capsys)
    assert (code, err) == (0, "")
    assert os.listdir(folder) == ["winequality-red.ismcore.safetensors"]
    result = ismcore.load("winequality-red.ismcore.safetensors")
    expected = ismcore.fit(X, backend="autograd", epochs=5, recipe="single")
    assert result.score(X).tobytes() == expected.score(X).tobytes()
    at = ismcore.evaluate(result.model, result.params, X, backend="autograd").score
    np.testing.assert_allclose(result.score(X), at, rtol=1e-5, atol=1e-5 * np.abs(at).max())
    first, last = result.history["loss"][[0, -1]]
    for said in ("n = 1599, d = 11", f"{first:.6g} -> {last:.6g} in 5 epochs", "autograd (named by ISMCORE_BACKEND)"):
        assert said in out
    assert out.endswith("winequality-red.ismcore.safetensors\n")


def test_a_fit_in_folds_says_where_the_normal_law_is_what_came_back(capsys, folder):
    np.save("normal.npy", np.random.default_rng(0).normal(size=(300, 2)))
    code, out, _ = run(capsys, "fit", "normal.npy", "--ensemble", 3, "--epochs", 6, "--out", "r")
    assert code == 0
    assert "note     the fit is the normal law in closed form" in out
    assert ismcore.load("r").model == ismcore.Affine()


def test_the_score_of_data_in_a_unit_c_times_smaller_is_c_times_smaller(capsys, folder):
    units = 10.0 ** np.arange(-5, 6)
    np.save("scaled.npy", X * units)
    for data, out in ((WINE, "plain"), ("scaled.npy", "scaled")):
        assert fit(capsys, data, "--dtype", "float64", "--out", out)[0] == 0
    plain, scaled = ismcore.load("plain"), ismcore.load("scaled")
    np.testing.assert_allclose(scaled.score(X * units) * units, plain.score(X), rtol=1e-9, atol=1e-9)
    assert np.abs(plain.score(X)).min() > 0.0
    # d log p of standardised samples / dz, divided by the columns' own scale
    standardised = plain.coordinates(X)
    options = {"objective": plain.objective, "epochs": 5, "dtype": "float64", "standardize": False, "recipe": "single"}
    z = ismcore.fit(standardised, backend="autograd", **options)
    np.testing.assert_allclose(plain.score(X), z.score(standardised) / plain.coordinates.scale, rtol=1e-9, atol=1e-9)


def test_a_transform_arrives(capsys, folder):
    assert fit(capsys, WINE, "--transform", "asinh", "--out", "here")[0] == 0
    found = ismcore.load("here")
    assert found.coordinates.transform == "asinh"
    expected = ismcore.fit(X, backend="autograd", epochs=5, transform="asinh", recipe="single")
    assert found.score(X).tobytes() == expected.score(X).tobytes()


def test_every_option_of_fit_arrives(capsys, folder):
    words = ["--model-hidden", "6,5", "--activation", "tanh", "--curvature-weight", "0.25", "--learning-rate", "0.02"]
    words += ["--seed", "3", "--dtype", "float64", "--device", "cpu", "--backend", READY[-2], "--no-standardize"]
    words += ["--batch-size", "300", "--schedule", "constant", "--validation", "0.3", "--patience", "2", "--timeout", "600"]
    words += ["--recipe", "reference", "--checkpoint", "there", "--out", "here", "--quiet"]
    code, out, err = fit(capsys, WINE, *words, "--json")
    assert (code, err) == (0, "")
    found = ismcore.load("here")
    expected = ismcore.fit(
        X,
        backend=READY[-2],
        model=ismcore.MLP((6, 5), "tanh"),
        objective=ismcore.ImplicitScoreMatching(0.25),
        optimizer=ismcore.Adam(0.02),
        epochs=5,
        seed=3,
        dtype="float64",
        device="cpu",
        standardize=False,
        batch_size=300,
        schedule="constant",
        validation=0.3,
        patience=2,
        recipe="reference",
    )
    for name in ("loss", "validation_loss", "learning_rate"):
        np.testing.assert_array_equal(found.history[name], expected.history[name])
    np.testing.assert_array_equal(ismcore.load("there").score(X), found.score(X))
    assert (found.model, found.objective, found.seed) == (expected.model, expected.objective, 3)
    said = json.loads(out)
    assert {name: said[name] for name in ("n", "d", "backend", "dtype", "device", "epochs", "file", "status")} == {
        "n": 1599,
        "d": 11,
        "backend": READY[-2],
        "dtype": "float64",
        "device": "cpu",
        "epochs": 5,
        "file": "here",
        "status": "completed",
    }
    assert (said["first_loss"], said["last_loss"]) == (expected.history["loss"][0], expected.history["loss"][-1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("out", [None, "s.csv", "s.npy"])
def test_score_writes_the_scores_of_every_row_to_the_bit(capsys, folder, dtype, out):
    assert fit(capsys, WINE, "--dtype", dtype, "--out", "r")[0] == 0
    code, said, err = run(capsys, "score", "r", WINE, "--columns", "0-10", *([] if out is None else ["--out", out]))
    name = out or "winequality-red.score.csv"
    assert (code, said, err) == (0, f"samples  n = 1599, d = 11\nfile     {name}\n", "")
    assert sorted(os.listdir(folder)) == sorted(["r", name])
    expected = ismcore.load("r").score(X)
    if name.endswith(".npy"):
        found = np.load(name, allow_pickle=False)
    else:
        lines = Path(name).read_text().splitlines()
        assert lines[0] == ",".join(f"score_{i}" for i in range(11))
        found = np.array([line.split(",") for line in lines[1:]], dtype=float)
    np.testing.assert_array_equal(found, expected, strict=True)


def test_score_of_an_affine_result_is_the_closed_form(capsys):
    put_results()
    code, out, _ = run(capsys, "score", "good", WINE, "--columns", "0-10", "--out", "s.npy", "--json")
    assert code == 0
    said = {"n": 1599, "d": 11, "dtype": "float64", "not_finite": 0, "file": "s.npy", "columns": [], "notes": []}
    assert json.loads(out) == said
    np.testing.assert_array_equal(np.load("s.npy"), -X)  # psi(x) = weight x + bias, with weight -I


def test_score_takes_the_epoch_and_the_noise_scale_asked_for(capsys):
    np.save("x.npy", X[:5, :3])
    for name, words, options in (
        ("mlp", ["--epoch", 12], {"epoch": 12}),
        ("conditional", ["--noise-scale", 0.5], {"context": 0.5}),
    ):
        assert run(capsys, "score", golden(name), "x.npy", *words, "--out", "s.npy")[0] == 0
        np.testing.assert_array_equal(np.load("s.npy"), RESULTS[name].score(X[:5, :3], **options))


def test_a_score_that_is_not_finite_is_said(capsys):
    put_results()
    huge = np.full((2, 11), 1.0)
    huge[1] = 1.5e308
    np.save("x.npy", huge)
    result = ismcore.load("good")
    replace(result, params={"weight": np.full((11, 11), 2.0), "bias": np.zeros(11)}).save("steep")
    capsys.readouterr()
    assert main(["score", "steep", "x.npy"]) == 0
    assert capsys.readouterr().err == "ismcore: warning: the score is not finite in 1 of 2 rows: they lie too far out\n"


def chain(n=600):
    x = np.random.default_rng(4).laplace(size=(n, 2))
    for i in range(1, n):
        x[i] += 0.9 * x[i - 1]
    return x


@pytest.mark.parametrize("words", [[], ["--columns", "1,0"]])
def test_diagnose_prints_the_table_or_json(capsys, words):
    x = chain()
    np.savetxt("x.csv", x, delimiter=",", header="a,b", comments="")
    found = ismcore.diagnose(ismcore.read_table("x.csv", columns=["b", "a"] if words else None))
    assert "ranks of column 'a'" in str(found)
    assert run(capsys, "diagnose", "x.csv", *words) == (0, f"{found}\n", "")
    code, out, err = run(capsys, "diagnose", "x.csv", *words, "--json")
    said = json.loads(out)
    assert (code, err, said["n"], said["d"]) == (0, "", 600, 2)
    assert [row["name"] for row in said["findings"]] == ["dependent rows"]
    assert said["findings"] == [asdict_of(finding) for finding in found.findings]
    assert os.listdir() == ["x.csv"]


def asdict_of(finding):
    return {name: getattr(finding, name) for name in ("name", "what", "evidence", "effect", "cure")}


def test_diagnose_of_samples_without_a_fault(capsys):
    np.save("x.npy", np.random.default_rng(0).normal(size=(700, 3)))
    assert run(capsys, "diagnose", "x.npy") == (0, "700 rows, 3 columns: no findings\n", "")
    assert json.loads(run(capsys, "diagnose", "x.npy", "--json")[1])["findings"] == []


def test_groups_come_from_a_column_or_a_file(capsys, folder):
    x, subject = chain(), np.array([f"s{k}" for k in np.arange(600) // 50])
    Path("x.csv").write_text("the.who,a,b\n" + "".join(f"{s},{a},{b}\n" for s, (a, b) in zip(subject, x, strict=True)))
    Path("labels.txt").write_text("subject\n" + "".join(f"{s}\n" for s in subject))
    np.save("labels.npy", subject)
    table = ismcore.read_table("x.csv", drop=["the.who"])
    expected = ismcore.fit(table, groups=subject, backend="autograd", epochs=3)
    assert [text for text in expected.notes if "as groups= says" in text]
    for k, (words, columns) in enumerate(
        (("0", []), ("the.who", []), ("labels.txt", ["--columns", "1-2"]), ("labels.npy", ["--columns", "1-2"]))
    ):
        code, out, err = run(
            capsys, "fit", "x.csv", "--groups", words, *columns, "--epochs", 3, "--out", f"o{k}", "--checkpoint", f"c{k}"
        )
        assert (code, err) == (0, "")
        assert f"note     {expected.notes[0]}\n" in out
        np.testing.assert_array_equal(ismcore.load(f"o{k}").score(x), expected.score(x))
        assert run(capsys, "resume", f"c{k}", "x.csv", "--groups", words, *columns, "--out", f"r{k}")[0] == 0
        np.testing.assert_array_equal(ismcore.load(f"r{k}").score(x), expected.score(x))


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ("9", "x.csv: there is no column 9: it has 2, counted from 0"),
        ("short.txt", "short.txt: it has 3 labels, and there are 20 samples"),
        ("x.csv", "x.csv: labels must be one column, and line 1 has 2 cells"),
        ("long.txt", "long.txt: it has more than 21 lines"),
        ("ragged.csv", "ragged.csv: labels must be one column, and line 1 has 2 cells"),
        ("labels.dat", "x.csv: there is no column 'labels.dat': its 2 columns have no names"),
        ("bytes.txt", "bytes.txt: it is no text in UTF-8, as which it is to be written anew, by iconv"),
    ],
)
def test_groups_that_are_none_are_a_mistake(capsys, groups, said):
    np.savetxt("x.csv", np.random.default_rng(0).normal(size=(20, 2)), delimiter=",")
    Path("long.txt").write_text("a\n" * 22)
    Path("short.txt").write_text("a\nb\nc\n")
    Path("ragged.csv").write_text("a,b\nc\n")
    Path("bytes.txt").write_bytes(b"\xff\xfe\n")
    code, _, err = run(capsys, "fit", "x.csv", "--groups", groups, "--epochs", 2)
    assert code == 2
    assert err.startswith(f"ismcore: error: {said}")


def test_inspect_shows_what_a_file_holds_in_words_and_in_json(capsys):
    code, out, err = run(capsys, "inspect", golden("mlp"))
    assert (code, err) == (0, "")
    said = {line[:16].strip(): line[17:] for line in out.splitlines() if not line.startswith("array")}
    assert said["holds"] == "a result, in schema ismcore/1"
    assert said["model"] == "MLP(activation=softplus, hidden=(4, 2), init=kaiming_uniform)"
    assert said["warnings"] == "(values repeat; ü, 数)"
    assert "array            params.layers.0.weight, float64 (4, 3)" in out.splitlines()
    code, out, _ = run(capsys, "inspect", golden("mlp"), "--json")
    found = json.loads(out)
    assert (code, found["kind"], found["schema"], found["needs"]) == (0, "result", 1, "")
    assert found["size"] == golden("mlp").stat().st_size
    assert said["verified"] == f"sha256 {found['sha256']}"
    assert found["content"]["model"]["hidden"] == [4, 2]
    assert found["arrays"]["params.layers.0.weight"] == {"dtype": "float64", "shape": [4, 3]}


def test_inspect_says_what_a_file_needs_and_knows_other_kinds(capsys):
    code, out, _ = run(capsys, "inspect", golden("own"))
    assert code == 0
    assert "needs            the model is a ScoreFunction of your own" in out
    assert "ScoreFunction of your own\n" in out
    assert OWN.backend is None
    Path("other").write_bytes(pack("checkpoint", {"step": 3, "note": None, "rates": []}, {"a": np.zeros(2)}))
    code, out, _ = run(capsys, "inspect", "other")
    assert code == 0
    assert out.splitlines()[1] == "holds            a checkpoint, in schema ismcore/2"
    assert out.splitlines()[3:] == [f"{n:<16} {v}" for n, v in (("note", "none"), ("rates", "none"), ("step", 3))] + [
        "array            a, float64 (2,)"
    ]


def test_inspect_sends_no_control_characters_of_a_file_to_the_terminal(capsys):
    Path("odd").write_bytes(pack("x\x1b[2J", {"a\x07": "b\r\x1b]0;c", "d": {"$type": "\x1b", "e\n": ["\x9b"]}}, {}))
    code, out, _ = run(capsys, "inspect", "odd")
    assert code == 0
    assert all(line.isprintable() for line in out.splitlines())
    assert len(out.splitlines()) == 5


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
    # Some rows are held out; no two columns are as close as this.
    np.testing.assert_allclose(ismcore.load("r").coordinates.mean, table[:, kept].mean(axis=0), rtol=0.05)
    assert json.loads(out)["d"] == len(kept)


def put_results():
    """Files in this folder: a good result, one whose model no file holds, and some that are none."""
    params = {"weight": -np.eye(11), "bias": np.zeros(11)}
    good = replace(RESULTS["affine"], params=params, coordinates=Coordinates.identity(11), dtype="float64")
    good.save("good")
    RESULTS["own"].save("own")
    Path("altered").write_bytes(Path("good").read_bytes().replace(b"autograd", b"autogard"))
    tensors = {"standardize.mean": np.zeros(1), "standardize.scale": np.ones(1)}
    Path("forged").write_bytes(pack("result", {"status": "completed"}, tensors))


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
        (["fit", "data.json"], 2, "'.json'"),
        (["fit", WINE, "--backend", "autogard"], 3, "did you mean 'autograd'"),
        (["fit", WINE, "--device", "cuda:7"], 3, "device 'cuda:7' is not available"),
        (["demo", "--backend", "autogard"], 3, "did you mean 'autograd'"),
        (["score"], 2, "required: FILE, DATA"),
        (["score", "good", WINE], 2, "samples must have 11 columns, as the model has; got shape (1599, 12)"),
        (["score", "good", WINE, "--columns", "5-2"], 2, "'5-2' is no list of columns"),
        (["score", "good", WINE, "--columns", "0-10", "--out", "score.txt"], 2, "must end in .csv or .npy, not in '.txt'"),
        (["score", "good", WINE, "--columns", "0-10", "--epoch", "3"], 2, "no parameters were kept after epoch 3"),
        (["score", "good", WINE, "--columns", "0-10", "--noise-scale", "1"], 2, "takes no context"),
        (["score", "good", "text.csv"], 2, "text.csv: line 2, column 1 ('kind')"),
        (["score", "good", "constant.csv", "--out", "constant.csv"], 2, "constant.csv would overwrite constant.csv"),
        (["score", "own", WINE, "--columns", "0-2"], 2, "own: the model is a ScoreFunction of your own"),
        (["score", "text.csv", WINE], 5, "text.csv cannot be loaded: "),
        (["score", "missing", WINE], 5, "missing: No such file"),
        (["score", "good", "missing.csv"], 5, "missing.csv: No such file"),
        (["score", "good", WINE, "--columns", "0-10", "--out", "none/s.csv"], 5, "none/s.csv: cannot be written"),
        (["inspect"], 2, "required: FILE"),
        (["inspect", "missing"], 5, "missing: No such file"),
        (["inspect", "text.csv"], 5, "text.csv cannot be read: "),
        (["inspect", "folder.csv"], 5, "folder.csv cannot be read: it is no regular file"),
        (["inspect", "altered"], 5, "altered cannot be read: its content does not match its checksum"),
        (["inspect", "forged"], 5, "forged cannot be loaded: its FitResult lacks 'model'"),
        (["fit", "missing.csv"], 5, "missing.csv: No such file"),
        (["fit", "missing.npy"], 5, "missing.npy: No such file"),
        (["fit", "folder.csv"], 5, "folder.csv: Is a directory"),
        (["fit", WINE, "--batch-size", "few"], 2, "'few' is neither a number nor 'all'"),
        (["fit", WINE, "--batch-size", "0"], 2, "batch_size must be"),
        (["fit", WINE, "--validation", "1.5"], 2, "validation must be"),
        (["fit", WINE, "--patience", "-1"], 2, "patience must be"),
        (["fit", WINE, "--timeout", "0"], 2, "timeout must be"),
        (["fit", WINE, "--schedule", "steps"], 2, "invalid choice: 'steps'"),
        (["fit", WINE, "--recipe", "best"], 2, "invalid choice: 'best'"),
        (["fit", WINE, "--checkpoint", "good"], 2, "good is there already: go on with it by 'ismcore resume good "),
        (["fit", WINE, "--checkpoint", "r", "--out", "r"], 2, "--out r would overwrite --checkpoint"),
        (["fit", WINE, "--checkpoint", "none/c"], 5, "none/c: cannot be written: there is no such folder"),
        (["resume"], 2, "required: FILE, DATA"),
        (["resume", "missing", WINE], 5, "missing: No such file"),
        (["resume", "good", WINE], 5, "good: it cannot be gone on with: it holds a 'result', not a 'checkpoint'"),
        (["resume", "good", WINE, "--out", "good"], 2, "--out good would overwrite the checkpoint"),
        (["fit", WINE, "--out", "none/result"], 5, "none/result: cannot be written: there is no such folder"),
        (["fit", WINE, "--out", "folder.csv"], 5, "folder.csv: cannot be written: it is a folder"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(capsys, folder, words, code, said):
    Path("text.csv").write_text("acid,kind\n1,red\n")
    Path("constant.csv").write_text("1,2\n2,2\n")
    Path("folder.csv").mkdir()
    put_results()
    found, out, err = run(capsys, *words)
    assert found == code
    assert out == ""
    assert said in err.splitlines()[-1]
    assert ": error: " in err.splitlines()[-1]
    assert "Traceback" not in err
    assert code == 2 or len(err.splitlines()) == 1
    assert sorted(os.listdir(folder)) == ["altered", "constant.csv", "folder.csv", "forged", "good", "own", "text.csv"]


def test_the_data_are_never_overwritten(capsys, folder):
    text = "1,2\n2,3\n4,1\n"
    Path("data.csv").write_text(text)
    Path("link").symlink_to("data.csv")
    for out in ("data.csv", folder / "data.csv", "link"):
        code, _, err = run(capsys, "fit", "data.csv", "--epochs", "1", "--out", out)
        assert (code, Path("data.csv").read_text()) == (2, text)
        assert "would overwrite the data" in err


def test_the_recipe_s_network_changes_as_far_as_it_is_told_to(capsys):
    for words, model in (
        ([], ismcore.MLP((64,), "silu")),
        (["--model-hidden", "5"], ismcore.MLP((5,), "silu")),
        (["--activation", "tanh"], ismcore.MLP((64,), "tanh")),
        (["--recipe", "reference"], ismcore.MLP((8,), "sigmoid")),
        (["--recipe", "reference", "--activation", "tanh"], ismcore.MLP((8,), "tanh")),
    ):
        assert fit(capsys, WINE, *words, "--epochs", 1, "--out", "r")[0] == 0
        found = ismcore.load("r").model
        assert getattr(found, "inner", found) == model


@pytest.mark.slow
def test_a_time_out_writes_the_result_and_the_run_goes_on_to_the_same_end(capsys, folder):
    np.save("x.npy", X[:100])
    code, out, err = run(capsys, "fit", "x.npy", "--epochs", 10**6, "--timeout", 0.3, "--checkpoint", "c", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["status"] == "timed_out"
    assert sorted(os.listdir(folder)) == ["c", "x.ismcore.safetensors", "x.npy"]
    assert ismcore.load("x.ismcore.safetensors").status == "timed_out"
    more = said["epochs"] + 3
    code, out, err = run(capsys, "resume", "c", "x.npy", "--timeout", 1e-6, "--out", "early")
    assert (code, err) == (0, "")
    assert "status   timed out\n" in out
    code, out, err = run(capsys, "resume", "c", "x.npy", "--epochs", more, "--quiet", "--out", "late")
    assert (code, err) == (0, "")
    assert "status   completed\n" in out
    assert len(ismcore.load("late").history["loss"]) == more
    late = ismcore.load("late")
    np.testing.assert_array_equal(late.history["loss"][:-3], ismcore.load("x.ismcore.safetensors").history["loss"])
    code, out, _ = run(capsys, "resume", "c", "x.npy", "--backend", READY[-2], "--epochs", more + 1, "--json")
    assert (code, json.loads(out)["backend"], json.loads(out)["epochs"]) == (0, READY[-2], more + 1)


def test_a_fit_that_no_epoch_was_left_for_is_said(capsys):
    np.save("x.npy", X[:50])
    code, out, _ = run(capsys, "fit", "x.npy", "--timeout", 1e-6)
    assert code == 0
    assert "made of  1 of normal law, " in out
    assert "status   timed out\n" in out
    code, out, _ = run(capsys, "fit", "x.npy", "--timeout", 1e-6, "--json")
    assert json.loads(out)["last_loss"] is None


def test_progress_is_shown_where_it_is_asked_for(capsys):
    np.save("x.npy", X[:50])
    words = ["fit", "x.npy", "--epochs", 2]
    assert run(capsys, *words)[2] == ""
    assert run(capsys, *words, "--quiet")[2] == ""
    assert re.search("^epoch 2/2, loss .*, completed\n$", run(capsys, *words, "--progress")[2], re.MULTILINE)
    assert run(capsys, *words, "--progress", "--quiet")[0] == 2


def test_where_the_result_goes_is_checked_before_the_work(capsys, monkeypatch):
    monkeypatch.setattr("ismcore.cli.fit.fit", lambda *args, **options: pytest.fail("the fit was started"))
    assert fit(capsys, WINE, "--out", "none/result")[0] == 5


def test_a_fit_that_diverges_is_exit_code_4_and_writes_nothing(capsys, folder):
    code, out, err = fit(capsys, WINE, "--learning-rate", "1e30")
    assert (code, out) == (4, "")
    assert re.search("at epoch [12]: lower --learning-rate", err)
    assert len(err.splitlines()) == 1
    assert os.listdir(folder) == []


ENDLESS = [
    "--recipe",
    "single",
    "--columns",
    "0-10",
    "--backend",
    "autograd",
    "--epochs",
    str(10**7),
    "--checkpoint",
    "c",
    "--out",
    "r",
]


@contextmanager
def started(*words, hangup=signal.SIG_DFL):
    """A fit without an end in a process of its own, once it has written that an epoch is done."""
    environment = {**os.environ, "ISMCORE_EVENTS": "events"}
    command = [sys.executable, "-m", "ismcore", "fit", str(WINE), *ENDLESS, *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    before = signal.signal(signal.SIGHUP, hangup)  # the tests may themselves run under nohup, whose children never hear of one
    try:
        child = subprocess.Popen(command, **streams, env=environment)
    finally:
        signal.signal(signal.SIGHUP, before)
    with child as process:
        try:
            deadline = time.monotonic() + 60.0
            while not (os.path.exists("events") and '"validation"' in Path("events").read_text()):
                assert time.monotonic() < deadline
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGXCPU, 152)]
)
def test_a_signal_writes_checkpoint_and_result_and_has_its_exit_code(folder, number, code):
    with started("--json") as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, without_warnings(err)) == (code, "")
    said = json.loads(out)
    assert (said["status"], said["file"]) == ("interrupted", "r")
    assert said["epochs"] > 0
    assert sorted(os.listdir(folder)) == ["c", "events", "r"]
    np.testing.assert_array_equal(ismcore.load("c").score(X), ismcore.load("r").score(X))
    assert ismcore.resume("c", X, timeout=1e-6).status == "timed_out"


def test_signals_in_quick_succession_lose_nothing(folder):
    with started("--json") as process:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    assert process.returncode in (129, 143)  # which of those that wait is heard first, Python says
    assert json.loads(out)["status"] == "interrupted"
    np.testing.assert_array_equal(ismcore.load("c").score(X), ismcore.load("r").score(X))


@pytest.mark.slow
def test_a_hangup_that_is_ignored_stays_so(folder):
    with started(hangup=signal.SIG_IGN) as process:  # as nohup has it
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143


@pytest.mark.slow
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
def test_streams_that_are_closed_or_full_change_no_exit_code_of_what_is_saved(folder, streams):
    np.savetxt("x.txt", X)
    line = f"{sys.executable} -m ismcore fit x.txt --backend autograd --epochs 3 --out r {streams}"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert ismcore.load("r").d == X.shape[1]


@pytest.mark.parametrize("streams", ["2>&-", pytest.param("2>/dev/full", marks=pytest.mark.slow)])
def test_an_error_that_nobody_can_read_has_its_exit_code(folder, streams):
    line = f"{sys.executable} -m ismcore inspect nothing {streams}"
    assert subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=False).returncode == 5


def test_a_path_drives_no_terminal(capsys, folder):
    assert "\x1b" not in fit(capsys, WINE, "--out", "\x1b[31mr")[1]
    code, out, err = run(capsys, "inspect", "\x1b[31mnone")
    assert (code, out) == (5, "")
    assert "\x1b" not in err
    assert "\\x1b[31mnone" in err


def test_a_cache_of_compiled_programs_is_the_users_alone(tmp_path, capsys):
    old = os.umask(0)
    try:
        assert is_own_folder(str(tmp_path / "ismcore" / "jax"))
    finally:
        os.umask(old)
    for folder in (tmp_path / "ismcore", tmp_path / "ismcore" / "jax"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for mode in (0o770, 0o702):
        (tmp_path / "ismcore" / "jax").chmod(mode)
        assert not is_own_folder(str(tmp_path / "ismcore" / "jax"))
        assert "not this user's alone" in capsys.readouterr().err
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "other" / "ismcore").mkdir(parents=True, mode=0o700)
    (tmp_path / "other" / "ismcore" / "jax").symlink_to(tmp_path / "mine")
    assert not is_own_folder(str(tmp_path / "other" / "ismcore" / "jax"))
    if os.getuid() == 0:
        os.chown(tmp_path / "mine", 12345, 12345)
        assert not is_own_folder(str(tmp_path / "mine"))


def test_a_cache_that_is_too_large_loses_what_was_not_used_for_longest(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}").write_bytes(bytes(100))
        os.utime(tmp_path / f"{number}", (1e9 + number, 1e9 + number))
    os.utime(tmp_path / "0", (2e9, 1e9))  # read last
    prune(str(tmp_path), 250)
    assert sorted(os.listdir(tmp_path)) == ["0", "4"]
    prune(str(tmp_path / "none"), 250)


def test_sigterm_is_heard_in_the_background_too(folder):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell has it for a command that ends in '&'
    try:
        with started() as process:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.returncode == 143
    assert "status   interrupted" in out
    assert ismcore.load("r").status == "interrupted"


def test_sigterm_before_the_run_writes_nothing(capsys, folder, monkeypatch):
    monkeypatch.setattr("ismcore.cli.fit.fit", lambda *args, **options: signal.raise_signal(signal.SIGTERM))
    assert fit(capsys) == (143, "", "ismcore: terminated\n")
    assert os.listdir(folder) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_sigterm_handler_of_somebody_else_s_stays(capsys):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert fit(capsys)[0] == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interrupt_is_exit_code_130(capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ismcore.cli.fit.fit", interrupted)
    assert fit(capsys) == (130, "", "ismcore: interrupted\n")


FULL = "free some space, or name a file on another disk\n"


def test_a_full_disk_is_exit_code_5_and_leaves_nothing(capsys, folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, out, err = fit(capsys, WINE, "--out", "r")
    assert (code, out, err) == (5, "", "ismcore: error: r: cannot be written: No space left on device; " + FULL)
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

    monkeypatch.setattr("ismcore.cli.fit.fit", wrong)
    with pytest.raises(ZeroDivisionError):
        main(["fit", str(WINE)])


@pytest.mark.parametrize(("backend", "names"), [("auto", ["autograd"]), ("torch", ["torch"]), ("all", sorted(READY))])
@pytest.mark.parametrize("met", [True, False])
def test_demo_runs_the_backends_asked_for(capsys, monkeypatch, backend, names, met):
    calls = []

    def run_demo(backends, out, progress):
        calls.append((sorted(backends), out, progress))
        return {"published_losses_met_within_1e-6": met}

    monkeypatch.setattr("ismcore.cli.demo.run_demo", run_demo)
    code, out, _ = run(capsys, "demo", "--backend", backend, "--out", "pictures")
    assert calls == [(names, Path("pictures"), True)]
    assert code == (0 if met else 1)
    assert ("yes" if met else "no") in out
    assert str(Path("pictures", "report.html")) in out


def test_backends_are_listed_in_words_and_in_json(capsys):
    code, out, _ = run(capsys, "backends")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()][:3] == [list(row) for row in BUNDLED.items()]
    code, out, _ = run(capsys, "backends", "--json")
    assert code == 0
    assert [(b["name"], b["status"]) for b in json.loads(out)][:1] == [("jax", "ready")]


def test_help_names_every_exit_code_and_version_the_version(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert [line.split()[0] for line in out.split("exit codes:")[1].splitlines() if line[2:3].strip()] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "130",
        "143",
    ]
    assert run(capsys, "--version") == (0, f"ismcore {ismcore_version()}\n", "")
    assert run(capsys, "fit", "--help")[0] == 0


def ismcore_version():
    from importlib.metadata import version

    return version("ismcore")


@pytest.mark.parametrize(
    "start",
    [
        pytest.param([Path(sys.executable).parent / "ismcore"], id="script", marks=pytest.mark.slow),
        pytest.param([sys.executable, "-m", "ismcore"], id="module"),
    ],
)
def test_the_command_is_installed(start, folder):
    np.save("x.npy", X[:50])
    done = subprocess.run([*start, "fit", "x.npy", "--epochs", "2"], capture_output=True, text=True, check=False)
    assert (done.returncode, without_warnings(done.stderr)) == (0, "")
    assert ismcore.load("x.ismcore.safetensors").d == 11
    done = subprocess.run([*start, "fit", "y.npy"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (5, "ismcore: error: y.npy: No such file or directory\n")


def test_help_loads_no_framework():
    program = """
import sys
from ismcore.cli.main import main
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

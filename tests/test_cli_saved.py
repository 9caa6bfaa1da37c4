"""The commands on a saved fit, `plot`, `sample`, `check` and `report`; models and objectives of `fit` by name; suggestions."""

import io
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from commands import run
from PIL import Image

import ismcore

TRAIN, NEW = (np.random.default_rng(seed).normal(size=(300, 2)) @ [[1.0, 0.6], [0.0, 0.8]] + [5.0, -3.0] for seed in (0, 1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Rows that were fitted, others of their law, and two fits, as files."""
    folder = tmp_path_factory.mktemp("made")
    for name, x in (("train.csv", TRAIN), ("new.csv", NEW)):
        np.savetxt(folder / name, x, delimiter=",", header="wide,high", comments="")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ismcore.IsmWarning)
        for name, x in (("good", TRAIN), ("wrong", 3.0 * TRAIN)):
            options = {"backend": "autograd", "model": ismcore.Affine(), "epochs": 600, "progress": False}
            result = ismcore.fit(ismcore.read_table(folder / "train.csv") if name == "good" else x, **options)
            result.save(folder / f"{name}.ismcore.safetensors")
    return folder


@pytest.fixture(autouse=True)
def folder(made, tmp_path, monkeypatch):
    """A folder with copies of these."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISMCORE_BACKEND", "autograd")
    for file in made.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path


GOOD, WRONG = "good.ismcore.safetensors", "wrong.ismcore.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--loss"], ["train.csv", "-o", "p.png"]])
def test_plot_writes_the_picture_of_the_result(capsys, folder, words):
    name = "p.png" if "-o" in words else "good.png"
    code, out, err = run(capsys, "plot", GOOD, *words)
    assert (code, err) == (0, "")
    assert out.endswith(f"file     {name}\n")
    result = ismcore.load(GOOD)
    x = ismcore.read_table("train.csv") if "train.csv" in words else None
    drawn = result.plot_loss().figure if "--loss" in words else result.plot(x)
    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=200)
    with Image.open(name) as found, Image.open(buffer) as expected:
        np.testing.assert_array_equal(np.asarray(found.convert("RGB")), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("out", [None, "draws.npy"])
def test_sample_writes_the_draws_of_the_result(capsys, folder, out):
    words = ["-n", 60, "--start", "new.csv", "--steps", 40, "--thin", 3, "--seed", 7, *([] if out is None else ["-o", out])]
    code, said, _ = run(capsys, "sample", GOOD, *words, "--json")
    assert code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ismcore.IsmWarning)
        draws = ismcore.load(GOOD).sample(60, start=ismcore.read_table("new.csv"), steps=40, thin=3, seed=7)
    if out is None:
        lines = Path("good.sample.csv").read_text().splitlines()
        assert lines[0] == "wide,high"
        found = np.array([line.split(",") for line in lines[1:]], dtype=float)
    else:
        found = np.load(out, allow_pickle=False)
    np.testing.assert_array_equal(found, draws.x, strict=True)
    summary = json.loads(said)
    assert (summary["draws"], summary["chains"], summary["r_hat"]) == (60, draws.chains, draws.r_hat.max())
    assert summary["warnings"] == list(draws.warnings)


def test_check_says_its_verdict_in_words_json_and_exit_code(capsys):
    for name, verdict, code in ((WRONG, "fault found", 1), (GOOD, "no fault found", 0)):
        expected = ismcore.load(name).check(NEW, train=TRAIN)
        assert expected.verdict == verdict
        assert run(capsys, "check", name, "new.csv", "--train", "train.csv") == (code, f"{expected}\n", "")
        found, out, _ = run(capsys, "check", name, "new.csv", "--train", "train.csv", "--json")
        assert found == code
        assert json.loads(out) == json.loads(json.dumps({"file": name, **expected.to_dict()}))
    code, out, _ = run(capsys, "check", GOOD)
    assert code == 0
    assert out.startswith("cannot tell: no rows were given")


@pytest.mark.parametrize(("given", "rows"), [("40", 40), ("0.25", 0.25)])
def test_rows_set_aside_by_the_command_judge_the_fit(given, rows, capsys):
    quick = ("--model", "affine", "--recipe", "single", "--epochs", 2, "--out", "r")
    assert run(capsys, "fit", "train.csv", "--test", given, *quick)[0] == 0
    expected = ismcore.fit(TRAIN, model=ismcore.Affine(), recipe="single", epochs=2, test=rows, progress=False).test.x
    assert np.array_equal(ismcore.load("r").test.x, expected)
    assert run(capsys, "check", "r")[:2] == (1, f"{ismcore.load('r').check()}\n")  # two epochs are too few
    assert run(capsys, "fit", "train.csv", "--test", given, "--no-rows", *quick)[0] == 2
    assert "neither a share" in run(capsys, "fit", "train.csv", "--test", "half", *quick)[2]


@pytest.mark.slow
def test_report_writes_the_page_with_the_check_by_new_rows(capsys):
    assert run(capsys, "report", WRONG, "train.csv", "--test", "new.csv")[0] == 0
    page = Path("wrong.html").read_text()
    assert "fault found" in page
    assert f"ismcore.load(&#x27;{WRONG}&#x27;)" in page
    assert run(capsys, "report", WRONG, "new.csv", "--test", "new.csv", "-o", "new.html")[0] == 0
    assert ismcore.load(WRONG).check(ismcore.read_table("new.csv")).verdict in Path("new.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["plot", "missing"], 5, "missing: No such file"),
        (["plot", "train.csv"], 5, "train.csv"),
        (["plot", GOOD, "-o", "p.jpg"], 2, "--out must end in .png, not in '.jpg'"),
        (["plot", GOOD, "none.csv"], 5, "none.csv: No such file"),
        (["plot", GOOD, "train.csv", "--columns", "wide"], 2, "columns"),
        (["plot", GOOD, "--epoch", "3"], 2, "no parameters were kept after epoch 3"),
        (["sample", GOOD, "-n", "0"], 2, "n must be a whole number from 1, not 0"),
        (["sample", GOOD, "--noise-scale", "0.1"], 2, "takes no context"),
        (["sample", GOOD, "--start", "new.csv", "-o", "new.csv"], 2, "--out new.csv would overwrite new.csv"),
        (["report", GOOD, "-o", "none/page.html"], 5, "none/page.html: cannot be written: there is no such folder"),
        (["check", GOOD, "train.csv", "--train", "train.csv"], 2, "among those of"),
    ],
)
def test_a_mistake_is_an_exit_code_and_leaves_nothing(capsys, folder, words, code, said):
    before = sorted(os.listdir(folder))
    found, out, err = run(capsys, *words)
    assert (found, out) == (code, "")
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    assert sorted(os.listdir(folder)) == before


MLP = ismcore.MLP
NAMED = {
    "--model mlp": (MLP((64,), "silu"), None),
    "--model energy --model-hidden 5 --activation tanh": (ismcore.Energy(MLP((5,), "tanh")), None),
    "--model residual --model-hidden 6,6,6": (ismcore.ResidualMLP(6, 3), None),
    "--model affine": (ismcore.Affine(), None),
    "--objective ism": (MLP((64,), "silu"), ismcore.ImplicitScoreMatching()),
    "--model mlp --objective regularised": (MLP((64,), "silu"), ismcore.ImplicitScoreMatching(0.1)),
    "--model mlp --objective regularised --curvature-weight 0.3": (MLP((64,), "silu"), ismcore.ImplicitScoreMatching(0.3)),
    "--model mlp --objective denoising --noise-scale 0.4": (MLP((64,), "silu"), ismcore.DenoisingScoreMatching(0.4)),
    "--model mlp --objective sliced": (MLP((64,), "silu"), ismcore.SlicedScoreMatching()),
}


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
@pytest.mark.parametrize("words", NAMED)
def test_models_and_objectives_by_name(capsys, words):
    model, objective = NAMED[words]
    code, out, _ = run(capsys, "fit", "train.csv", *words.split(), "--epochs", 1, "--recipe", "single", "--out", "r")
    assert code == 0
    found = ismcore.load("r")
    assert getattr(found.model, "inner", found.model) == model
    assert objective is None or repr(found.objective) == repr(objective)
    assert f"model    {found.model!r}\n" in out
    assert f"by       {found.objective!r}\n" in out


@pytest.mark.filterwarnings("ignore::ismcore.IsmWarning")
def test_a_model_of_noise_scales_is_sampled_and_reported(capsys):
    assert run(capsys, "fit", "train.csv", "--model", "noise", "--model-hidden", 8, "--epochs", 60, "--out", "r")[0] == 0
    assert ismcore.load("r").model.inner == ismcore.NoiseConditional(ismcore.ResidualMLP(8, 1))
    assert run(capsys, "sample", "r", "-n", 20, "--steps", 5, "-o", "s.npy")[0] == 0
    assert np.load("s.npy").shape == (20, 2)


def test_the_summary_names_the_candidates_and_each_warning(capsys):
    np.save("ints.npy", np.random.default_rng(0).integers(0, 5, size=(200, 2)).astype(float))
    code, out, err = run(capsys, "fit", "ints.npy", "--epochs", 2, "--out", "r")
    assert code == 0
    result = ismcore.load("r")
    assert len(result.warnings) >= 2
    said = [line.removeprefix("warning  ") for line in out.splitlines() if line.startswith("warning  ")]
    assert len(said) == len(result.warnings)
    assert all(text.startswith(head) for head, text in zip(said, result.warnings, strict=True))
    assert all(" ".join(text.split()) in err for text in result.warnings)
    assert f"made of  {repr(result).splitlines()[0].partition(', ')[2]}, " in out
    assert "loss " not in out  # of which each candidate has its own


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["repotr", "x"], "report"),
        (["smaple", "x"], "sample"),
        (["fit", "x", "--epocs", "3"], "--epochs"),
        (["fit", "x", "--epocs=3"], "--epochs"),
        (["fit", "x", "--model", "enrgy"], "energy"),
        (["fit", "x", "--objective", "Regularized"], "regularised"),
        (["fit", "x", "--activation", "ReLU"], "relu"),
        (["fit", "x", "--random-state", "0"], "--seed"),
        (["fit", "x", "--random_state", "0"], "--seed"),
        (["fit", "x", "--step-size", "0.1"], "--learning-rate"),
        (["fit", "x", "--hidden-layer-sizes", "8"], "--model-hidden"),
        (["fit", "x", "--early-stopping", "8"], "--patience"),
        (["fit", "x", "--save", "y"], "--out"),
        (["sample", "x", "--star", "y", "--sede", "1"], "--seed"),
    ],
)
def test_typing_errors_get_a_suggestion(capsys, words, meant):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert err.endswith(f"; did you mean {meant!r}?\n")


def test_no_option_is_suggested_that_the_command_has_not(capsys):
    code, _, err = run(capsys, "inspect", GOOD, "--hidden-layer-sizes", "3")
    assert (code, "did you mean" in err) == (2, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model affine --model-hidden 3", "--model affine has no hidden layers"),
        ("--model residual --model-hidden 3,4", "one width for each"),
        ("--objective sliced --curvature-weight 0.1", "--curvature-weight is of --objective regularised, not of sliced"),
        ("--objective ism --curvature-weight 0.1", "--objective ism has no curvature weight"),
        ("--noise-scale 0.1", "--noise-scale is of --objective denoising"),
        ("--objective zzzz", "invalid choice: 'zzzz'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(capsys, words, said):
    code, _, err = run(capsys, "fit", "train.csv", *words.split())
    assert code == 2
    assert said in err.splitlines()[-1]
    assert "did you mean" not in err

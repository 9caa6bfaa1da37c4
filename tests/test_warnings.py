"""What is in `result.warnings` is also said by Python's `warnings`: once a fit, at the caller's line; nothing is lost by it."""

import subprocess
import sys
import warnings
from inspect import currentframe

import numpy as np
import pytest
from truth import correlated

import ismcore
from ismcore.cli.main import main
from ismcore.training.warning import warn_now

COARSE = np.round(correlated(n=400) * 3.0)
OPTIONS = {"backend": "autograd", "model": ismcore.Affine(), "epochs": 4}


def heard(work):
    """What a call said by `warnings`, and what it returned; one that raises returns its error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = work()
        except ismcore.IsmError as error:
            value = error
    assert all(warned.category is ismcore.IsmWarning for warned in caught)
    return [str(warned.message) for warned in caught], value


def test_an_ism_warning_is_a_user_warning():
    assert issubclass(ismcore.IsmWarning, UserWarning)


@pytest.mark.parametrize("options", [{}, {"restarts": 3}, {"optimizer": ismcore.LBFGS()}, {"recipe": "reference"}])
def test_every_warning_of_a_result_is_heard_once(options):
    said, result = heard(lambda: ismcore.fit(COARSE, **{**OPTIONS, **options}))
    assert len(said) > 0
    assert said == list(dict.fromkeys(result.warnings))


def test_a_fit_that_has_nothing_to_say_is_silent():
    said, result = heard(lambda: ismcore.fit(correlated(n=400), **OPTIONS, validation=0))
    assert said == list(result.warnings) == []


def test_the_next_fit_says_it_again():
    one, two = (heard(lambda: ismcore.fit(COARSE, **OPTIONS))[0] for _ in range(2))
    assert one == two != []


def test_a_warning_points_at_the_line_that_called(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ismcore.fit(COARSE, checkpoint=tmp_path / "run", **OPTIONS)
        line = currentframe().f_lineno - 1
        ismcore.resume(tmp_path / "run", COARSE)
        ismcore.compare(COARSE, backends=("autograd", "torch"), model=ismcore.Affine(), epochs=1)
    assert {warned.filename for warned in caught} == {__file__}
    assert {warned.lineno for warned in caught} == {line, line + 2, line + 3}


def test_resume_says_what_its_result_does_and_load_nothing(tmp_path):
    path = tmp_path / "run"
    heard(lambda: ismcore.fit(COARSE, checkpoint=path, **OPTIONS))
    said, result = heard(lambda: ismcore.resume(path, COARSE, epochs=6))
    assert said == list(result.warnings) != []
    result.save(tmp_path / "result")
    for name in ("run", "result"):
        assert heard(lambda name=name: ismcore.load(tmp_path / name))[0] == []


def test_warnings_raised_as_errors_lose_nothing(tmp_path):
    expected = heard(lambda: ismcore.fit(COARSE, **OPTIONS))[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ismcore.IsmWarning)
        with pytest.raises(ismcore.IsmWarning, match="discrete columns") as raised:
            ismcore.fit(COARSE, checkpoint=tmp_path / "run", **OPTIONS)
    result = raised.value.result
    assert str(raised.value) == result.warnings[0]
    assert (result.status, result.warnings) == ("completed", expected.warnings)
    for found in (result, ismcore.load(tmp_path / "run")):
        np.testing.assert_array_equal(found.score(COARSE), expected.score(COARSE))


@pytest.mark.parametrize("action", ["always", "error"])
def test_an_error_that_carries_a_fit_is_raised_in_any_case(action):
    def fail(event):
        raise ZeroDivisionError

    for wrong, kind in (
        ({"optimizer": ismcore.Adam(1e300)}, ismcore.Diverged),
        ({"callbacks": [fail]}, ismcore.CallbackFailed),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)
            with pytest.raises(kind) as raised:
                ismcore.fit(COARSE, **{**OPTIONS, **wrong})
        assert [str(warned.message) for warned in caught] == list(raised.value.result.warnings) * (action == "always")
        assert raised.value.result.warnings


def test_a_callback_that_fits_changes_nothing_of_what_is_said():
    expected = heard(lambda: ismcore.fit(COARSE, **OPTIONS))[0]
    inner = []

    def fit_again(event):
        if event.kind == "end":
            inner.append(ismcore.fit(COARSE, **OPTIONS))

    said, _ = heard(lambda: ismcore.fit(COARSE, callbacks=[fit_again], **OPTIONS))
    assert said == expected * 2
    assert len(inner) == 1


def test_what_is_said_on_the_way_ends_no_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_now("the disk is full")
    assert heard(lambda: warn_now("the disk is full"))[0] == ["the disk is full"]


def test_the_command_says_each_on_standard_error_in_a_line(capsys, tmp_path):
    np.save(tmp_path / "x.npy", COARSE)
    words = ["fit", str(tmp_path / "x.npy"), "--backend", "autograd", "--epochs", "4"]
    for more in ([], ["--json"]):
        assert main([*words, "--out", str(tmp_path / f"out{len(more)}"), *more]) == 0
        out, err = capsys.readouterr()
        result = ismcore.load(tmp_path / f"out{len(more)}")
        assert err.splitlines() == [f"ismcore: warning: {text}" for text in result.warnings] != []
        assert (result.warnings[0] in out) == bool(more)


@pytest.mark.parametrize("closed", [False, True])
def test_the_command_writes_its_result_whatever_the_filters(closed, tmp_path):
    np.save(tmp_path / "x.npy", COARSE)
    words = ["fit", "x.npy", "--backend", "autograd", "--epochs", "4", "--out", "out"]
    command = [sys.executable, "-W", "error::UserWarning", "-m", "ismcore", *words]
    if closed:  # by a shell: closed by a preexec_fn, this process would be forked, of which JAX warns in whatever test is next
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    result = ismcore.load(tmp_path / "out")
    assert done.stderr == ("" if closed else "".join(f"ismcore: warning: {text}\n" for text in result.warnings))
    assert "file     out" in done.stdout


NOTED = {**OPTIONS, "objective": ismcore.ImplicitScoreMatching(ismcore.CurvatureSearch((0.05, 0.2)))}


def test_a_note_is_kept_and_shown_and_no_warning(tmp_path):
    path = tmp_path / "run"
    said, result = heard(lambda: ismcore.fit(COARSE, checkpoint=path, **NOTED))
    (chosen, bounded) = (text for text in result.notes if "curvature" in text)
    assert chosen.startswith("curvature_weight ")
    assert "was chosen, by the held-out loss of each that was tried" in chosen
    assert "discrete columns" in bounded
    assert "bounds it" in bounded
    assert not {chosen, bounded} & {*said, *result.warnings}
    assert all(f"  note       {text}" in repr(result) for text in result.notes)
    result.save(tmp_path / "result")
    assert ismcore.load(tmp_path / "result").notes == result.notes
    assert chosen in ismcore.load(path).notes
    assert heard(lambda: ismcore.resume(path, COARSE))[1].notes == result.notes


@pytest.mark.parametrize(
    ("objective", "cured"),
    [(None, False), (ismcore.ImplicitScoreMatching(0.1), True), (ismcore.ImplicitScoreMatching(), False)],
)
def test_the_cure_of_the_recipe_stays_a_warning_and_that_of_the_user_does_not(objective, cured, tmp_path):
    _, first = heard(lambda: ismcore.fit(COARSE, objective=objective, checkpoint=tmp_path / "run", **OPTIONS))
    _, again = heard(lambda: ismcore.resume(tmp_path / "run", COARSE, epochs=5))
    for result in (first, again):
        assert any("discrete columns" in text for text in result.notes) is cured
        assert any("discrete columns" in text for text in result.warnings) is not cured
        assert any("was therefore used" in text for text in result.warnings) is (objective is None)

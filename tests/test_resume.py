"""A run that is stopped anywhere and gone on with is the run that was never stopped; what cannot be gone on with is named."""

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damage import put
from saved_checkpoints import CHECKPOINTS
from saved_checkpoints import path as golden
from truth import SMALL_SAMPLE, correlated

import ismcore
from ismcore.errors import printable
from ismcore.files import tensorfile
from ismcore.files.atomic import previous_files, write_first
from ismcore.files.encoding import TYPES
from ismcore.training import loop as training

pytestmark = pytest.mark.filterwarnings(
    *SMALL_SAMPLE,
    "ignore:training raised the loss:ismcore.IsmWarning",
    "ignore:.* rolled back to the end:ismcore.IsmWarning",
)

X = correlated(n=46)
WEIGHT = np.arange(1.0, 47.0)
JUDGES = correlated(n=9, seed=8)

EVERYTHING = {
    "model": ismcore.MLP((5,), "tanh"),
    "epochs": 8,
    "batch_size": 16,
    "average_decay": 0.9,
    "clip_norm": 0.5,
    "schedule": ismcore.Schedule("cosine", warmup=0.2, end=0.1),
    "optimizer": ismcore.Adam(0.05),
    "validation": 0.2,
    "patience": 100,
    "snapshots": [0, 3, 8],
    "sample_weight": WEIGHT,
    "dtype": "float64",
}
"""All that a run can carry from step to step, at once; its epochs have three batches of unequal size."""
DRAWS = {
    "model": ismcore.MLP((5,), "softplus"),
    "objective": ismcore.SlicedScoreMatching(2),
    "epochs": 8,
    "batch_size": 16,
    "optimizer": ismcore.SGD(0.01, 0.9),
    "validation": JUDGES,
    "recipe": "reference",
    "standardize": True,
}
STOPS_EARLY = {
    "model": ismcore.MLP((16,), "tanh"),
    "epochs": 12,
    "batch_size": 20,
    "optimizer": ismcore.Adam(0.1),
    "schedule": "constant",
    "validation": 0.3,
    "patience": 4,
}
ROLLS_BACK = {
    "model": ismcore.Affine(),
    "epochs": 12,
    "batch_size": 16,
    "optimizer": ismcore.SGD(0.1, 0.0),
    # The loss is of the sixth power of the fifth rate: beyond the largest number, until the rate is halved a few times.
    "schedule": [1e-3] * 4 + [1e52] + [1e-3] * 7,
    "on_nonfinite": "rollback",
    "recipe": "reference",
    "standardize": True,
    "dtype": "float64",
}
RUNS = {"everything": EVERYTHING, "draws": DRAWS, "rolls back": ROLLS_BACK, "stops early": STOPS_EARLY}


@pytest.fixture(autouse=True)
def few_judgements(monkeypatch):
    """Held-out rows are asked after epochs 1, 2, 4 and 8 of 8, and after 1, 2, 4, 6 and 12 of 12."""
    monkeypatch.setattr("ismcore.fitting.options.VALIDATIONS", 2)


@pytest.fixture(params=RUNS)
def options(request):
    return RUNS[request.param]


@pytest.fixture
def single_steps(monkeypatch):
    """A chunk is one step, so that a run can be stopped after any."""
    monkeypatch.setattr(training, "_chunk_limit", lambda problem: 1)


def stop_after(chunks):
    def count(event):
        nonlocal chunks
        chunks -= event.kind == "chunk"
        return ismcore.STOP if chunks <= 0 else None

    return count


def same_arguments(options):
    """Those arguments of `fit` that `resume` takes again."""
    given = {name: options[name] for name in ("sample_weight", "validation") if name in options}
    return {name: value for name, value in given.items() if np.ndim(value)}


def assert_same(found, expected):
    assert (found.status, found.best_epoch, found.held_out) == (expected.status, expected.best_epoch, expected.held_out)
    assert found.warnings == expected.warnings
    assert found.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_array_equal(found.history[name], values, err_msg=name, strict=True)
    assert found.snapshots.keys() == expected.snapshots.keys()
    trees = [(found.params, expected.params), *((found.snapshots[e], expected.snapshots[e]) for e in expected.snapshots)]
    for ours, theirs in trees:
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=name, strict=True)


@pytest.mark.slow
def test_stopped_after_any_step_and_gone_on_with_is_the_same_to_the_bit(options, tmp_path, request):
    whole = ismcore.fit(X, backend="autograd", **options)
    request.getfixturevalue("single_steps")
    batches = -(-(46 - whole.held_out * ("sample_weight" in options)) // options["batch_size"])
    steps = len(whole.history["loss"]) * batches
    for stop in {*range(1, min(steps, 18)), steps - 1, steps}:
        path = tmp_path / str(stop)
        stopped = ismcore.fit(X, backend="autograd", checkpoint=path, callbacks=[stop_after(stop)], **options)
        if stopped.status == "interrupted":
            stored = ismcore.load(path)
            np.testing.assert_array_equal(stored.history["loss"], stopped.history["loss"])
            np.testing.assert_array_equal(stored.score(X), stopped.score(X))
        assert_same(ismcore.resume(path, X, **same_arguments(options)), whole)


@pytest.mark.parametrize("name", ["everything", "draws", "rolls back"])
def test_stopped_again_and_again_it_is_the_same_to_the_bit(name, backend, tmp_path, monkeypatch):
    options = RUNS[name]
    whole = ismcore.fit(X, backend=backend, **options)
    monkeypatch.setattr(training, "_chunk_limit", lambda problem: 5)
    path, again = tmp_path / "run", same_arguments(options)
    part = ismcore.fit(X, backend=backend, checkpoint=path, callbacks=[stop_after(2)], **options)
    stops = 0
    while part.status == "interrupted":
        stops += 1
        part = ismcore.resume(path, X, callbacks=[stop_after(2)], **again)
    assert stops >= 2
    assert_same(part, whole)
    assert_same(ismcore.resume(path, X, **again), whole)


def test_a_run_that_rolls_back_does_so():
    found = ismcore.fit(X, backend="autograd", **ROLLS_BACK)
    assert found.status == "completed"
    assert 1 <= len([text for text in found.warnings if "rolled back" in text]) < training.ROLLBACKS


def test_a_run_that_stops_early_does_so():
    found = ismcore.fit(X, backend="autograd", **STOPS_EARLY)
    assert found.status == "early_stopped"
    judged = 1 + np.flatnonzero(np.isfinite(found.history["validation_loss"]))
    assert found.best_epoch + 4 not in judged  # or it would be the same, whatever ends the run in between
    assert len(found.history["loss"]) == next(epoch for epoch in judged if epoch >= found.best_epoch + 4)


@pytest.mark.parametrize("order", [("autograd", "torch", "jax"), ("jax", "autograd", "torch")])
def test_another_backend_goes_on_up_to_rounding(order, tmp_path, single_steps):
    first, second, third = order
    path, again = tmp_path / "run", same_arguments(EVERYTHING)
    whole = ismcore.fit(X, backend=first, **EVERYTHING)
    ismcore.fit(X, backend=first, checkpoint=path, callbacks=[stop_after(7)], **EVERYTHING)
    ismcore.resume(path, X, backend=second, callbacks=[stop_after(8)], **again)
    found = ismcore.resume(path, X, backend=third, **again)
    assert (found.backend, found.status, found.best_epoch) == (third, "completed", whole.best_epoch)
    for name, values in whole.history.items():
        np.testing.assert_allclose(found.history[name], values, rtol=1e-10, atol=1e-10, err_msg=name)
    for name, value in whole.params.items():
        np.testing.assert_allclose(found.params[name], value, rtol=1e-10, atol=1e-10, err_msg=name)


def test_a_process_that_was_killed_is_gone_on_with_from_its_last_checkpoint(tmp_path, single_steps):
    path, kept = tmp_path / "run", tmp_path / "kept"
    whole = ismcore.fit(X, backend="autograd", **EVERYTHING)

    def keep(event):
        if event.kind == "checkpoint" and event.epoch == 4:
            shutil.copy(event.checkpoint, kept)

    ismcore.fit(X, backend="autograd", checkpoint=ismcore.Checkpoint(path, every=0.0), callbacks=[keep], **EVERYTHING)
    assert ismcore.load(kept).status == "interrupted"  # it holds no end
    assert_same(ismcore.resume(kept, X, **same_arguments(EVERYTHING)), whole)


def test_a_run_that_has_ended_comes_back_as_it_is_or_goes_on_for_more_epochs(tmp_path, backend):
    path = tmp_path / "run"
    options = {"model": ismcore.Affine(), "recipe": "reference", "backend": backend}
    short = ismcore.fit(X, epochs=5, checkpoint=path, **options)
    assert_same(ismcore.resume(path, X), short)
    assert_same(ismcore.resume(path, X, epochs=5), short)
    longer = ismcore.resume(path, X, epochs=9)
    assert_same(longer, ismcore.fit(X, epochs=9, **options))
    assert_same(ismcore.resume(path, X), longer)


def test_a_diverged_run_says_so_again_and_its_last_finite_state_is_on_disk(tmp_path):
    path = tmp_path / "run"
    options = {**ROLLS_BACK, "on_nonfinite": "raise", "backend": "autograd"}
    with pytest.raises(ismcore.Diverged) as first:
        ismcore.fit(X, checkpoint=path, **options)
    stored = ismcore.load(path)
    assert stored.status == "diverged"
    np.testing.assert_array_equal(stored.score(X), first.value.result.score(X))
    with pytest.raises(ismcore.Diverged) as second:
        ismcore.resume(path, X)
    assert str(second.value) == str(first.value)
    with pytest.raises(ismcore.CheckpointMismatch, match=r"epochs=13: it diverged; begin a new fit with a lower"):
        ismcore.resume(path, X, epochs=13)


def test_an_interrupted_run_at_its_last_epoch_is_completed(tmp_path, single_steps):
    path = tmp_path / "run"
    options = {**EVERYTHING, "backend": "autograd"}
    stopped = ismcore.fit(X, checkpoint=path, callbacks=[stop_after(9)], **options)
    assert (stopped.status, len(stopped.history["loss"])) == ("interrupted", 3)
    ended = ismcore.resume(path, X, epochs=3, sample_weight=WEIGHT)
    assert (ended.status, len(ended.history["loss"])) == ("completed", 3)


@pytest.fixture
def stopped(tmp_path, single_steps):
    """A checkpoint in mid-epoch, and the one before it."""
    path = tmp_path / "run"
    where = ismcore.Checkpoint(path, every=0.0)
    ismcore.fit(X, backend="autograd", checkpoint=where, callbacks=[stop_after(7)], **EVERYTHING)
    return path


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"x": X + 1e-9}, ismcore.CheckpointMismatch, "another x: x is not bit for bit that of the run"),
        ({"x": X[::-1]}, ismcore.CheckpointMismatch, "another x"),
        ({"x": X[:-1], "sample_weight": WEIGHT[:-1]}, ismcore.CheckpointMismatch, "another x and sample_weight"),
        ({"x": X[:, :2]}, ismcore.CheckpointMismatch, "samples with 3 columns; these have 2"),
        ({"sample_weight": WEIGHT + np.eye(46)[3]}, ismcore.CheckpointMismatch, "another sample_weight: .* is not bit for bit"),
        ({"sample_weight": None}, ismcore.CheckpointMismatch, "the run had sample_weight, and here is none"),
        ({"validation": JUDGES}, ismcore.CheckpointMismatch, "another validation: the run had no validation"),
        ({"model": ismcore.MLP((6,), "tanh")}, ismcore.ModelError, r"run is of model MLP\(hidden=\(5,\)"),
        ({"epochs": 2}, ismcore.CheckpointMismatch, "cannot be given epochs=2: it has begun 3"),
        ({"epochs": 0}, ismcore.OptionError, "epochs must be"),
        ({"backend": "autogard"}, ismcore.UnknownBackend, "did you mean 'autograd'"),
        ({"timeout": -1}, ismcore.OptionError, "timeout must be"),
        ({"callbacks": print}, ismcore.OptionError, "must be a sequence of callbacks"),
    ],
)
def test_what_is_not_as_it_was_is_refused_and_named(stopped, change, error, said):
    before = stopped.read_bytes()
    given = {"x": X, "sample_weight": WEIGHT, **change}
    with pytest.raises(error, match=said):
        ismcore.resume(stopped, given.pop("x"), **given)
    assert stopped.read_bytes() == before


def apply(ops, params, x):
    return ops.tanh(x @ params["a"])


def test_a_model_that_no_file_holds_is_passed_again(tmp_path):
    path = tmp_path / "run"
    model = ismcore.ScoreFunction(apply, {"a": -0.5 * np.eye(3)})
    options = {"backend": "autograd", "recipe": "reference", "epochs": 4}
    whole = ismcore.fit(X, model=model, **options)
    ismcore.fit(X, model=model, checkpoint=path, callbacks=[stop_after(1)], **{**options, "epochs": 40})
    with pytest.raises(ismcore.ModelError, match=r"run: the model is a ScoreFunction of your own.*model="):
        ismcore.resume(path, X)
    other = ismcore.ScoreFunction(apply, {"b": np.eye(3)})
    with pytest.raises(ismcore.ModelError, match=r"model= is not the model of the run: .*missing: b; unknown: a"):
        ismcore.resume(path, X, model=other)
    found = ismcore.resume(path, X, model=model)
    np.testing.assert_array_equal(found.history["loss"][:4], whole.history["loss"])
    assert ismcore.load(path, model=model).status == "completed"


def test_rates_for_each_epoch_cannot_be_stretched(tmp_path):
    path = tmp_path / "run"
    ismcore.fit(X, backend="autograd", checkpoint=path, **ROLLS_BACK)
    with pytest.raises(ismcore.CheckpointMismatch, match="its schedule has one rate an epoch"):
        ismcore.resume(path, X, epochs=13)


def flip(path, at=-9):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_file_is_passed_over_for_the_one_before_it_and_a_warning_says_so(stopped):
    whole = ismcore.fit(X, backend="autograd", **EVERYTHING)
    flip(stopped)
    with pytest.warns(ismcore.IsmWarning, match="was passed over"):
        found = ismcore.resume(stopped, X, sample_weight=WEIGHT)
    said = [text for text in found.warnings if "was passed over" in text]
    assert len(said) == 1
    assert "does not match its checksum" in said[0]
    assert_same(replace(found, warnings=whole.warnings), whole)
    assert ismcore.load(stopped).status == "completed"


def test_no_whole_file_is_an_error_that_names_each(stopped):
    for path in (stopped, *previous_files(stopped)):
        flip(path)
    with pytest.raises(ismcore.FileInvalid, match=r"none of the 2 files .*run: .*checksum.*run\.previous1: .*checksum"):
        ismcore.resume(stopped, X)
    with pytest.raises(FileNotFoundError):
        ismcore.resume(stopped.with_name("none"), X)
    ismcore.fit(X[:, :2], backend="autograd", epochs=1).save(stopped.with_name("result"))
    with pytest.raises(ismcore.FileInvalid, match="holds a 'result', not a 'checkpoint'"):
        ismcore.resume(stopped.with_name("result"), X)


def test_fit_writes_over_no_file_of_an_earlier_run(stopped):
    before = stopped.read_bytes()
    with pytest.raises(ismcore.OptionError, match=r"is there already: go on with it by ismcore\.resume"):
        ismcore.fit(X, backend="autograd", checkpoint=stopped)
    assert stopped.read_bytes() == before
    with pytest.raises(ismcore.FileNotWritten, match="no such folder"):
        ismcore.fit(X, backend="autograd", checkpoint=stopped / "none" / "run")


@pytest.mark.parametrize(
    "fault", [{"every": -1.0}, {"every": np.inf}, {"every": "often"}, {"keep": 0}, {"keep": 1.5}, {"path": ""}, {"path": 7}]
)
def test_unusable_checkpoint_options_are_refused(fault):
    with pytest.raises(ismcore.OptionError, match=f"checkpoint's {next(iter(fault))} must be"):
        ismcore.Checkpoint(**{"path": "run", **fault})


def full(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("name", "call", "said"),
    [("fsync", full, "No space left on device"), ("access", lambda *arguments: False, "read-only")],
    ids=["full disk", "read-only folder"],
)
def test_a_checkpoint_that_cannot_be_written_costs_the_run_nothing(name, call, said, tmp_path, monkeypatch, single_steps):
    path = tmp_path / "run"
    whole = ismcore.fit(X, backend="autograd", **EVERYTHING)

    options = {"checkpoint": ismcore.Checkpoint(path, every=0.0), "backend": "autograd", **EVERYTHING}
    with monkeypatch.context() as disk:

        def fill(event):
            if event.epoch == 3:
                disk.setattr(os, name, call)

        with pytest.warns(ismcore.IsmWarning, match=f"the checkpoint .*{said}") as caught:
            found = ismcore.fit(X, callbacks=[fill], **options)
    assert sum("cannot be written" in str(warned.message) for warned in caught) == 1
    assert sum("cannot be written" in text for text in found.warnings) == 1
    assert_same(replace(found, warnings=whole.warnings), whole)
    assert len(ismcore.load(path).history["loss"]) in (2, 3)
    assert sorted(os.listdir(tmp_path)) == ["run", "run.previous1"]
    assert_same(ismcore.resume(path, X, sample_weight=WEIGHT), whole)


def test_the_files_kept_are_so_many(tmp_path, single_steps):
    where = ismcore.Checkpoint(tmp_path / "run", every=0.0, keep=3)
    ismcore.fit(X, backend="autograd", checkpoint=where, **EVERYTHING)
    assert sorted(os.listdir(tmp_path)) == ["run", "run.previous1", "run.previous2"]
    done = [len(ismcore.load(path).history["loss"]) for path in (where.path, *previous_files(where.path))]
    assert done == [8, 7, 7]


def types_in(value):
    if isinstance(value, dict):
        yield from ([value["$type"]] if "$type" in value else [])
        for inner in value.values():
            yield from types_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from types_in(inner)
    else:
        assert value is None or isinstance(value, bool | int | float | str)


def test_a_checkpoint_names_specifications_and_no_code(stopped):
    found = tensorfile.read_any(str(stopped))
    assert set(types_in(found.content)) <= set(TYPES)
    assert {array.dtype.kind for array in found.tensors.values()} <= set("fiub")
    content = {**found.content, "settings": {"$type": "os.system", "command": "exit"}}
    stopped.write_bytes(tensorfile.pack("checkpoint", content, found.tensors))
    for path in previous_files(stopped):
        path.unlink()
    with pytest.raises(ismcore.FileInvalid, match=r"names 'os\.system', which this ismcore does not know"):
        ismcore.resume(stopped, X)


def changed(content, **changes):
    return {**content, **changes}


@pytest.mark.parametrize(
    "change",
    [
        {"best": 7},
        {"anchor": [2, 3]},
        {"step": "many"},
        {"held_out": []},
        {"fingerprints": "abc"},
        {"versions": None},
        {"settings": []},
        {"settings": None},
        {"timings": {"run": "long"}},
        {"warnings": 3},
        {"rate_factor": None},
        {"status": "fine"},
    ],
)
def test_a_forged_checkpoint_is_refused_by_name(stopped, change):
    found = tensorfile.read_any(str(stopped))
    stopped.write_bytes(tensorfile.pack("checkpoint", changed(found.content, **change), found.tensors))
    for path in previous_files(stopped):
        path.unlink()
    with pytest.raises(ismcore.FileInvalid, match="run"):
        ismcore.resume(stopped, X, sample_weight=WEIGHT)
    with pytest.raises(ismcore.FileInvalid, match="run cannot be loaded"):
        ismcore.load(stopped)


def array(name, f):
    """A change of an array."""
    return lambda content, tensors: tensors.update({name: np.asarray(f(tensors[name]))})


def dropped(part):
    """All arrays of a part are gone."""
    return lambda content, tensors: [tensors.pop(name) for name in list(tensors) if name.startswith(part)]


PLAN, WEIGHTS = "settings/plan", "layers.0.weight"


@pytest.mark.parametrize(
    "change",
    [
        put("settings/batch_size", 0),
        put("settings/batch_size", True),
        put("settings/validation", 1.5),
        put("settings/clip_norm", -1.0),
        put("settings/seed", "1"),
        put("settings/precision", "low"),
        put("settings/standardize", 1),
        put("settings/optimizer/b1", 1.5),
        put(f"{PLAN}/epochs", 2),  # fewer than are done
        put(f"{PLAN}/epochs", 8.5),
        put(f"{PLAN}/judge_every", -2),
        put(f"{PLAN}/average_decay", None),  # and yet there is an average
        put(f"{PLAN}/schedule", [0.1]),
        put(f"{PLAN}/schedule/shape", "sine"),
        put(f"{PLAN}/on_nonfinite", "ignore"),
        put(f"{PLAN}/snapshot_epochs", [0, 99]),
        put("step", True),
        put("step", 2**70),
        put("held_out", -4),
        put("best", [1, 0.25]),
        put("rate_factor", 1.5),
        put("rollbacks", -1),
        put("timings", {"prepare": -1.0, "run": 0.0}),
        put("anchor", [99, 4]),
        array("history.losses", lambda a: a[None]),
        array("history.losses", lambda a: a - np.inf),
        array("history.open_losses", lambda a: np.zeros(5)),
        array("history.validation_epochs", lambda a: a[::-1]),
        array("standardize.scale", lambda a: -a),
        array("standardize.mean", lambda a: a * np.nan),
        array(f"state.second_moment.{WEIGHTS}", lambda a: a - 1.0),
        array(f"state.average.{WEIGHTS}", lambda a: a * np.inf),
        dropped("state.second_moment"),
        dropped("state.average"),
        lambda content, tensors: tensors.update({f"snapshots.7.{n[13:]}": tensors[n] for n in tensors if "state.params" in n}),
    ],
)
def test_a_checkpoint_that_no_fit_has_written_is_refused(stopped, change):
    found = tensorfile.read_any(str(stopped))
    content, tensors = json.loads(json.dumps(found.content)), dict(found.tensors)
    change(content, tensors)
    stopped.write_bytes(tensorfile.pack("checkpoint", content, tensors))
    with pytest.raises(ismcore.FileInvalid, match="run cannot be loaded"):
        ismcore.load(stopped)


def test_a_checkpoint_whose_steps_are_of_other_batches_is_refused(stopped):
    found = tensorfile.read_any(str(stopped))
    stopped.write_bytes(tensorfile.pack("checkpoint", {**found.content, "step": found.content["step"] + 2}, found.tensors))
    assert ismcore.load(stopped).status  # how many rows there were, no file says
    with pytest.raises(ismcore.CheckpointMismatch, match="steps"):
        ismcore.resume(stopped, X, sample_weight=WEIGHT)


def test_what_a_checkpoint_says_drives_no_terminal(stopped):
    found = tensorfile.read_any(str(stopped))
    content = json.loads(json.dumps(found.content))
    content["warnings"], content["failure"] = ["\x1b[2Jgone \x9b31m"], "\x07"
    content["settings"]["backend_reason"] = "\x1b]8;;http://x\x1b\\\\"
    stopped.write_bytes(tensorfile.pack("checkpoint", content, found.tensors))
    result = ismcore.load(stopped)
    assert (
        printable(f"{result!r}{result.warnings}{result.backend_reason}")
        == f"{result!r}{result.warnings}{result.backend_reason}"
    )
    assert "\\x1b[2Jgone \\x9b31m" in result.warnings[0]


def test_a_damaged_newest_file_displaces_no_whole_one(stopped):
    flip(stopped)
    with pytest.warns(ismcore.IsmWarning, match="was passed over"):
        ismcore.resume(stopped, X, sample_weight=WEIGHT, checkpoint=ismcore.Checkpoint(stopped, every=1e9))
    assert [ismcore.load(path).model for path in (stopped, *previous_files(stopped))] == [ismcore.load(stopped).model] * 2


def test_a_relative_path_is_where_it_was_when_the_run_began(tmp_path, monkeypatch, single_steps):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    where = ismcore.Checkpoint("run", every=0.0)
    ismcore.fit(X, backend="autograd", checkpoint=where, callbacks=[lambda event: os.chdir(tmp_path / "two")], **EVERYTHING)
    assert sorted(os.listdir(tmp_path / "one")) == ["run", "run.previous1"]
    assert not os.listdir(tmp_path / "two")


def test_a_run_is_on_disk_from_its_start_and_once_more_after_a_second(tmp_path, monkeypatch, single_steps):
    now, seen = [0.0], []
    monkeypatch.setattr("ismcore.files.checkpoint_writer.time.monotonic", lambda: now[0])

    def tick(event):
        now[0] += 0.4
        seen.append(len(ismcore.load(tmp_path / "run").history["loss"]))

    ismcore.fit(X, backend="autograd", checkpoint=tmp_path / "run", callbacks=[tick], **EVERYTHING)
    assert seen[:3] == [0, 0, 0]
    assert seen[-1] > 0


def test_a_run_that_is_killed_before_its_first_step_is_gone_on_with(tmp_path):
    def stop(event):
        raise RuntimeError

    path = tmp_path / "run"
    with pytest.raises(ismcore.CallbackFailed):
        ismcore.fit(X, backend="autograd", checkpoint=path, callbacks=[stop], **EVERYTHING)
    assert len(ismcore.load(path).history["loss"]) == 0
    assert_same(ismcore.resume(path, X, sample_weight=WEIGHT), ismcore.fit(X, backend="autograd", **EVERYTHING))


@pytest.mark.filterwarnings("ignore:older checkpoints of another run:ismcore.IsmWarning")
def test_older_files_of_another_run_are_set_aside_and_never_taken_for_this_one_s(tmp_path, single_steps):
    path = tmp_path / "run"
    for seed, said in ((1, 0), (2, 1), (3, 1)):
        where = ismcore.Checkpoint(path, every=0.0, keep=2)
        found = ismcore.fit(X, backend="autograd", seed=seed, checkpoint=where, **EVERYTHING)
        assert sum("older checkpoints of another run" in text for text in found.warnings) == said
        path.unlink()
    assert sorted(os.listdir(tmp_path)) == ["run.1.previous1", "run.2.previous1", "run.previous1"]
    assert [ismcore.load(tmp_path / name).seed for name in sorted(os.listdir(tmp_path))] == [1, 2, 3]
    with pytest.warns(ismcore.IsmWarning, match=r"run is missing: the older .*run\.previous1 was taken"):
        assert ismcore.resume(path, X, sample_weight=WEIGHT).seed == 3


def test_of_two_runs_on_one_path_the_second_is_refused_at_its_start(tmp_path):
    path, inner = tmp_path / "run", []

    def another(event):
        if not inner:
            inner.append("began")
            with pytest.raises(ismcore.OptionError, match="is there already"):
                ismcore.fit(X, backend="autograd", seed=2, checkpoint=path, **EVERYTHING)
            inner.append("refused")

    ismcore.fit(X, backend="autograd", seed=1, checkpoint=path, callbacks=[another], **EVERYTHING)
    assert inner == ["began", "refused"]
    assert ismcore.load(path).seed == 1
    with pytest.raises(FileExistsError):  # also where both have looked before one has written
        write_first(path, b"2")


@pytest.mark.parametrize("array", ["state.params.layers.0.bias", "history.losses", "history.rates", "standardize.mean"])
def test_a_checkpoint_that_lacks_an_array_is_refused(stopped, array):
    found = tensorfile.read_any(str(stopped))
    left = {name: value for name, value in found.tensors.items() if name != array}
    stopped.write_bytes(tensorfile.pack("checkpoint", found.content, left))
    with pytest.raises(ismcore.FileInvalid, match="run cannot be loaded"):
        ismcore.load(stopped)


@pytest.mark.filterwarnings("ignore:.* rows repeat:ismcore.IsmWarning", "ignore:the samples have atoms:ismcore.IsmWarning")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_schema_1_are_gone_on_with_for_ever(name, tmp_path):
    path = tmp_path / "run"
    shutil.copy(golden(name), path)
    whole = ismcore.load(golden(name, "end"))
    assert ismcore.load(path).status == "interrupted"
    found = ismcore.resume(path, CHECKPOINTS[name]["x"], **same_arguments(CHECKPOINTS[name]))
    assert (found.status, found.best_epoch, found.model) == (whole.status, whole.best_epoch, whole.model)
    assert found.snapshots.keys() == whole.snapshots.keys()
    for key, values in whole.history.items():
        np.testing.assert_allclose(found.history[key], values, rtol=1e-9, atol=1e-9, err_msg=key)
    for key, value in whole.params.items():
        np.testing.assert_allclose(found.params[key], value, rtol=1e-8, atol=1e-8, err_msg=key)


def test_a_run_without_trouble_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = correlated(n=600)
        plain = {"backend": "autograd", "epochs": 2, "validation": 0}  # nothing held out, so nothing is said of the baseline
        whole = ismcore.fit(x, **plain, checkpoint=Path(tmp_path, "run"))
        resumed = ismcore.resume(Path(tmp_path, "run"), x)
    assert resumed.warnings == whole.warnings == ()
    assert (resumed.status, len(resumed.history["loss"])) == ("completed", 2)

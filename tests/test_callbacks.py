"""Callbacks and trackers: what they are told, how they end a run, and that one that fails costs nothing but itself."""

import json
import os

import numpy as np
import pytest
from shelf import shelf_on_path
from truth import PLAIN, SMALL_SAMPLE, correlated

import ismcore
from ismcore.plugins import lookup as plugins
from ismcore.training import loop as training
from ismcore.training.events import KINDS

pytestmark = pytest.mark.filterwarnings(*SMALL_SAMPLE)

X = correlated(n=40)
SMALL = {"model": ismcore.MLP((4,), "tanh"), "backend": "autograd"}


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """A chunk takes few steps, so that a short run has many; no tracker of the environment's listens."""
    monkeypatch.setattr(training, "CHUNK_SECONDS", 1e-6)
    monkeypatch.delenv("ISMCORE_EVENTS", raising=False)


class Recorder:
    """An object with a method for each kind of event, which keeps them all, and answers as it is told to."""

    def __init__(self, answer=lambda event: None):
        self.events, self._answer = [], answer
        for kind in KINDS:
            setattr(self, f"on_{kind}", self._take)

    def _take(self, event):
        self.events.append(event)
        return self._answer(event)

    @property
    def kinds(self):
        return [event.kind for event in self.events]


def fit(*callbacks, **options):
    return ismcore.fit(X, **{**PLAIN, **SMALL, "epochs": 60, "callbacks": callbacks, **options})


def failing(kind, after=0):
    def fail(event):
        if event.kind == kind and event.epoch >= after:
            raise ZeroDivisionError("mine")

    return fail


def test_functions_and_objects_are_told_the_same():
    heard, recorder = [], Recorder()
    result = fit(heard.append, recorder, validation=0.25)
    assert recorder.events == heard
    assert (recorder.kinds[0], recorder.kinds[-1]) == ("start", "end")
    assert set(recorder.kinds) == {"start", "chunk", "validation", "end"}
    assert [event.epoch for event in heard if event.kind == "validation"] == list(range(1, 61))
    assert result.status == "completed"


def test_an_object_is_told_of_what_it_has_methods_for_alone():
    class Ends:
        def on_end(self, event):
            self.status, self.epoch = event.status, event.epoch

    ends = Ends()
    fit(ends)
    assert (ends.status, ends.epoch) == ("completed", 60)


def test_events_hold_what_the_result_will(tmp_path):
    recorder = Recorder()
    path = tmp_path / "run"
    result = fit(recorder, validation=0.25, schedule="cosine", checkpoint=ismcore.Checkpoint(path, every=0.0))
    history = result.history
    assert len({event.run for event in recorder.events}) == 1
    for event in recorder.events:
        assert (event.epochs, event.status) == (60, "completed" if event.kind == "end" else "")
        np.testing.assert_array_equal(event.losses, history["loss"][: event.epoch])
        for epoch, loss in event.validation.items():
            assert loss == history["validation_loss"][epoch - 1]
        if event.epoch < 60:
            assert event.learning_rate == history["learning_rate"][event.epoch]
        assert event.checkpoint == (str(path) if event.kind == "checkpoint" else "")
    seconds = [event.seconds for event in recorder.events]
    assert seconds == sorted(seconds)
    chunks = [event for event in recorder.events if event.kind == "chunk"]
    assert np.isnan(recorder.events[0].remaining)
    assert all(event.remaining > 0.0 for event in chunks[:-1])
    assert chunks[-1].remaining == 0.0
    assert recorder.kinds.count("checkpoint") == len(chunks)


def test_an_event_is_told_in_words_and_numbers_that_json_holds(tmp_path):
    recorder = Recorder()
    with pytest.raises(ismcore.CallbackFailed):
        fit(recorder, failing("chunk", 20), validation=0.25)
    found = [json.loads(json.dumps(event.as_dict(), allow_nan=False)) for event in recorder.events]
    numbers = {"epoch", "epochs", "loss", "validation_loss", "learning_rate", "seconds", "remaining"}
    assert all(numbers | {"run", "kind"} <= set(event) for event in found)
    assert (found[0]["loss"], found[0]["validation_loss"], found[0]["remaining"]) == (None, None, None)
    assert found[3]["loss"] == recorder.events[3].losses[-1]
    assert (found[-1]["kind"], found[-1]["status"]) == ("error", "interrupted")
    assert "ZeroDivisionError('mine')" in found[-1]["error"]


def test_what_a_listener_gets_it_cannot_change():
    def meddle(event):
        event.validation.clear()
        with pytest.raises(ValueError, match="read-only"):
            event.losses[:] = 0.0

    plain, meddled = fit(validation=0.25), fit(meddle, validation=0.25)
    np.testing.assert_array_equal(plain.history["loss"], meddled.history["loss"])
    np.testing.assert_array_equal(plain.history["validation_loss"], meddled.history["validation_loss"])


@pytest.mark.parametrize("kind", ["start", "chunk", "validation", "checkpoint", "end"])
def test_stop_ends_the_run_as_if_it_had_been_that_short(kind, tmp_path, backend):
    recorder = Recorder(lambda event: ismcore.STOP if event.kind == kind and event.epoch >= 20 * (kind != "start") else None)
    options = {"validation": 0.25, "checkpoint": ismcore.Checkpoint(tmp_path / "run", every=0.0), "backend": backend}
    stopped = fit(recorder, dtype="float64", **options)
    assert stopped.status == ("completed" if kind == "end" else "interrupted")
    epochs = len(stopped.history["loss"])
    assert epochs == {"start": 0, "end": 60}.get(kind, epochs)
    assert recorder.kinds[-1] == "end"
    assert (tmp_path / "run").exists()
    if epochs:
        short = fit(dtype="float64", epochs=epochs, validation=0.25, backend=backend)
        np.testing.assert_array_equal(stopped.history["loss"], short.history["loss"])
        for name, value in short.params.items():
            np.testing.assert_array_equal(stopped.params[name], value)


@pytest.mark.parametrize("kind", ["start", "chunk", "validation", "checkpoint", "end"])
def test_a_callback_that_raises_ends_the_run_and_the_fit_up_to_there_is_in_the_error(kind, tmp_path):
    recorder, path = Recorder(), tmp_path / "run"
    with pytest.raises(ismcore.CallbackFailed, match=f"failed on '{kind}' after epoch .*mine") as caught:
        fit(recorder, failing(kind, 20 * (kind != "start")), validation=0.25, checkpoint=ismcore.Checkpoint(path, every=0.0))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert recorder.kinds[-1] == "error"
    assert recorder.events[-1].error is caught.value
    result = caught.value.result
    assert result.status == ("completed" if kind == "end" else "interrupted")
    assert np.isfinite(result.score(X)).all()
    stored = ismcore.load(path)
    np.testing.assert_array_equal(stored.history["loss"], result.history["loss"])
    whole = fit(validation=0.25)
    np.testing.assert_array_equal(ismcore.resume(path, X).score(X), whole.score(X))


def test_callbacks_that_fail_even_on_the_error_hide_nothing(tmp_path):
    def always(event):
        if event.kind != "start":
            raise ZeroDivisionError(event.kind)

    with pytest.raises(ismcore.CallbackFailed, match="failed on 'chunk'") as caught:
        fit(always, always, checkpoint=tmp_path / "run")
    assert caught.value.result.status == "interrupted"
    assert (tmp_path / "run").exists()
    with pytest.raises(ismcore.Diverged):
        fit(failing("error"), optimizer=ismcore.SGD(1e30))


def test_an_error_of_the_backend_s_is_told_and_the_checkpoint_written(tmp_path, monkeypatch):
    recorder, path = Recorder(), tmp_path / "run"
    real = training.Loop.record

    def record(loop, *arguments):
        if loop.run_state.epoch >= 30:
            raise MemoryError("device")
        real(loop, *arguments)

    with monkeypatch.context() as broken:
        broken.setattr(training.Loop, "record", record)
        with pytest.raises(MemoryError):
            fit(recorder, checkpoint=path)
    assert isinstance(recorder.events[-1].error, MemoryError)
    assert len(ismcore.load(path).history["loss"]) >= 30
    np.testing.assert_array_equal(ismcore.resume(path, X).score(X), fit().score(X))


def test_a_divergence_is_told():
    recorder = Recorder()
    with pytest.raises(ismcore.Diverged) as caught:
        fit(recorder, optimizer=ismcore.SGD(1e30))
    assert recorder.kinds[-2:] == ["end", "error"]
    assert [event.status for event in recorder.events[-2:]] == ["diverged", "diverged"]
    assert recorder.events[-1].error is caught.value


def test_every_start_of_a_fit_with_restarts_is_a_run_of_its_own():
    recorder = Recorder()
    fit(recorder, restarts=3, epochs=3, validation=0.25)
    assert recorder.kinds.count("start") == recorder.kinds.count("end") == 3
    assert len({event.run for event in recorder.events}) == 3


@pytest.mark.parametrize(
    ("callbacks", "said"),
    [
        (print, "must be a sequence of callbacks"),
        (7, "must be a sequence of callbacks"),
        ([7], "7 is and has none"),
        (["log"], "'log' is and has none"),
        ([object()], "on_start, on_chunk, on_validation, on_checkpoint, on_end, on_error"),
        ([Recorder], "is a class: pass an object of it"),
    ],
)
def test_what_is_no_callback_is_refused(callbacks, said):
    with pytest.raises(ismcore.OptionError, match=said):
        ismcore.fit(X, **SMALL, callbacks=callbacks)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_are_there_as_soon_as_they_are_told(tmp_path):
    path = tmp_path / "events.jsonl"
    heard = []

    def look(event):
        heard.append((event.as_dict(), lines(path)[-1]))

    fit(ismcore.JsonLines(path), look, validation=0.25)
    for event, line in heard:
        assert line.pop("time").endswith("+00:00")
        assert line == event


def test_json_lines_of_many_runs_share_a_file(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"cut": tr')  # as a full disk leaves it
    for seed in range(2):
        fit(ismcore.JsonLines(path), epochs=3, seed=seed)
    cut, *found = path.read_text().splitlines()
    found = [json.loads(line) for line in found]
    assert cut == '{"cut": tr'
    assert [event["kind"] for event in found if event["kind"] != "chunk"] == ["start", "end"] * 2
    assert len({event["run"] for event in found}) == 2


def test_json_lines_that_cannot_be_written_are_refused_before_the_run(tmp_path):
    for path in (None, 7, ""):
        with pytest.raises(ismcore.OptionError, match="takes the path of a file"):
            ismcore.JsonLines(path)
    for path in (tmp_path, tmp_path / "none" / "events.jsonl"):
        with pytest.raises(ismcore.FileNotWritten, match="cannot be written"):
            ismcore.JsonLines(path)
    path = tmp_path / "events.jsonl"
    for text in ("1.5,2\n3,4\n", "words", "\n"):
        path.write_text(text)
        with pytest.raises(ismcore.FileNotWritten, match="no event, so it is a file of another kind"):
            ismcore.JsonLines(path)
        assert path.read_text() == text


def test_json_lines_that_can_no_longer_be_written_are_said_once_and_cost_no_fit(tmp_path):
    path = tmp_path / "events.jsonl"
    tracker = ismcore.JsonLines(path)
    path.unlink()
    path.mkdir()
    with pytest.warns(ismcore.IsmWarning, match=r"JsonLines.* is detached, and the fit goes on: .*cannot be written") as caught:
        assert fit(tracker).status == "completed"
    assert sum("JsonLines" in str(warned.message) for warned in caught) == 1
    path.rmdir()
    assert fit(tracker).status == "completed"
    assert [line["kind"] for line in lines(path)][-1] == "end"


def test_the_samples_own_file_gets_no_events(tmp_path, monkeypatch):
    np.savetxt(tmp_path / "x.txt", X)
    before = (tmp_path / "x.txt").read_bytes()
    monkeypatch.setenv("ISMCORE_EVENTS", str(tmp_path / "x.txt"))
    with pytest.warns(RuntimeWarning, match="detached.*file of another kind"):
        fit()
    assert (tmp_path / "x.txt").read_bytes() == before


@pytest.fixture
def fresh_plugins(tmp_path, monkeypatch):
    """Plugins as at the start of a process, so that a tracker that was detached is back afterwards."""
    with shelf_on_path(tmp_path, monkeypatch) as shelf:
        yield shelf


@pytest.mark.usefixtures("fresh_plugins")
def test_the_environment_names_a_file_for_the_events_of_all_fits(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv("ISMCORE_EVENTS", str(path))
    fit(epochs=3)
    with pytest.raises(ismcore.Diverged):
        fit(optimizer=ismcore.SGD(1e30))
    found = lines(path)
    kinds = [event["kind"] for event in found if event["kind"] != "chunk"]
    assert kinds == ["start", "end", "start", "end", "error"]
    assert found[-1]["error"].startswith("Diverged(")
    monkeypatch.delenv("ISMCORE_EVENTS")
    fit(epochs=3)
    assert lines(path) == found


@pytest.mark.usefixtures("fresh_plugins")
def test_a_tracker_that_fails_is_named_and_detached_and_costs_no_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("ISMCORE_EVENTS", str(tmp_path / "none" / "events.jsonl"))
    with pytest.warns(RuntimeWarning, match=r"plugin tracking.*is detached.*cannot be written") as caught:
        result = fit()
    assert len(caught) == 1
    assert result.status == "completed"
    (tmp_path / "none").mkdir()
    fit()
    assert os.listdir(tmp_path / "none") == []


def test_the_bundled_tracker_offers_no_backend():
    names = [name for name, _ in plugins.registry().manager.list_name_plugin()]
    assert sum(name.startswith("tracking") for name in names) == 1
    assert "tracking" not in [row.name for row in ismcore.backends()]

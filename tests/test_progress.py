"""Progress on standard error: live in a terminal and a notebook with tqdm, sparse else, silent where nobody asked."""

import fcntl
import importlib
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import types

import numpy as np
import pytest
from tqdm.auto import tqdm
from truth import PLAIN, correlated

import ismcore
from ismcore.training import progress
from ismcore.training.events import FitEvent
from ismcore.training.progress import reporter

X = correlated(n=40)
FIT = {**PLAIN, "model": ismcore.Affine(), "backend": "autograd", "epochs": 3}
BACKWARDS = (0, 10, 5, 20)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    monkeypatch.delenv("ISMCORE_PROGRESS", raising=False)
    monkeypatch.setattr(progress, "LIVE_SECONDS", 0.0)
    if hasattr(tqdm, "_instances"):  # a bar of another test, still open, would take the first line; half made, it has no close
        tqdm._instances.clear()


@pytest.fixture
def without_tqdm(monkeypatch):
    """As where it is not installed."""
    for name in ("tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(params=["tqdm", "plain"])
def library(request):
    """With tqdm, and without."""
    if request.param == "plain":
        request.getfixturevalue("without_tqdm")


def on_terminal(work, columns=100):
    """All that reaches a terminal of so many columns while the work writes to it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    seen = []

    def read():
        try:
            while data := os.read(ours, 4096):
                seen.append(data)
        except OSError:  # how Linux says that nobody writes any more
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w", encoding="utf-8") as out:
        work(out)
    reader.join(10.0)
    os.close(ours)
    return b"".join(seen).decode()


def event(kind, epoch, **more):
    losses = -1.0 - np.arange(epoch) / 100
    given = {"epochs": 20, "losses": losses, "seconds": 3.0 + epoch, "learning_rate": 0.01, "remaining": 65.0, **more}
    return FitEvent(kind, epoch, **given)


def run_of(epochs=BACKWARDS, status="completed", validation=None):
    """The events of a run: it goes back once."""
    judged = {"validation": validation or {}}
    yield event("start", epochs[0], remaining=np.nan)
    yield from (event("chunk", epoch, **judged) for epoch in epochs[1:])
    yield event("end", epochs[-1], status=status, **judged)


def shown(out, events, how=True):
    with reporter(how, out) as report:
        for one in events:
            report(one)


def test_a_terminal_shows_one_live_line():
    text = on_terminal(lambda out: shown(out, run_of(validation={5: -0.75})))
    assert text.count("\n") == 1
    assert text.endswith("\r\n")
    frames = text.strip().split("\r")
    assert any("10/20" in frame for frame in frames)
    assert any("5/20" in frame for frame in frames)
    assert "20/20" in frames[-1]
    for said in ("loss -1.19", "held out -0.75", "rate 0.01"):
        assert said in frames[-1]
    assert max(map(len, frames)) <= 100
    assert any(re.search(r"\[\d\d:\d\d<\d\d:\d\d", frame) for frame in frames)


@pytest.mark.usefixtures("without_tqdm")
def test_a_terminal_without_tqdm_gets_a_line_now_and_then():
    text = on_terminal(lambda out: shown(out, run_of()))
    assert text.splitlines()[-1] == "epoch 20/20, loss -1.19, rate 0.01, 00:23, completed"
    assert text.count("\n") == 2  # the first chunk is shown at once, and the end in any case


@pytest.mark.usefixtures("library")
def test_every_start_has_its_line():
    text = on_terminal(lambda out: shown(out, [*run_of(), *run_of((0, 20))]))
    assert text.count("20/20") >= 2
    assert text.endswith("\r\n")


@pytest.mark.usefixtures("library")
def test_a_run_that_is_gone_on_with_starts_where_it_is():
    frames = on_terminal(lambda out: shown(out, run_of((12, 15, 15), "interrupted"))).strip().split("\r")
    assert "15/20" in frames[-1]
    assert not any(re.search(r"\b[0-9]/20", frame) for frame in frames)


@pytest.mark.usefixtures("library")
def test_a_pipe_gets_a_line_now_and_then(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(progress, "SPARSE_SECONDS", 3600.0)
    shown(out, run_of(range(0, 21), validation={5: -0.75}))
    assert out.getvalue().splitlines() == [
        "epoch 1/20, loss -1, held out -0.75, rate 0.01, 00:04, 01:05 left",
        "epoch 20/20, loss -1.19, held out -0.75, rate 0.01, 00:23, completed",
    ]


def test_hours_are_told_from_minutes():
    out = io.StringIO()
    shown(out, [event("end", 1, seconds=3599.6, remaining=np.nan)])
    assert out.getvalue() == "epoch 1/20, loss -1, rate 0.01, 1:00:00\n"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("how", "setting", "terminal", "speaks"),
    [
        ("auto", None, True, True),
        ("auto", "0", True, False),
        ("auto", None, False, False),
        (False, None, True, False),
        (True, "0", False, True),
        (True, None, True, True),
    ],
)
def test_who_is_told(monkeypatch, how, setting, terminal, speaks):
    if setting is not None:
        monkeypatch.setenv("ISMCORE_PROGRESS", setting)
    if terminal:
        text = on_terminal(lambda out: shown(out, run_of(), how))
    else:
        shown(out := io.StringIO(), run_of(), how)
        text = out.getvalue()
    assert bool(text) == speaks


def test_a_notebook_shows_a_live_line(monkeypatch):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, version_info=(9,)))
    # what tqdm.auto is in a notebook needs its widgets, which the tests do not have
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=importlib.import_module("tqdm.std").tqdm))
    out = io.StringIO()
    shown(out, run_of(), "auto")
    assert "\r" in out.getvalue()
    assert "20/20" in out.getvalue()
    shell.config = {}
    shown(out := io.StringIO(), run_of(), "auto")
    assert out.getvalue() == ""


@pytest.mark.usefixtures("library")
def test_no_thread_is_left_behind():
    before = set(threading.enumerate())
    on_terminal(lambda out: shown(out, run_of()))
    assert set(threading.enumerate()) == before


class Gone(io.StringIO):
    """A terminal that was closed."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def isatty(self):
        return True

    def write(self, text):
        raise self.error


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("I/O operation on closed file")])
def test_a_terminal_that_goes_away_costs_no_fit(monkeypatch, error):
    monkeypatch.setattr("sys.stderr", Gone(error))
    assert ismcore.fit(X, **FIT, progress=True).status == "completed"
    monkeypatch.setattr("sys.stderr", None)
    assert ismcore.fit(X, **FIT, progress=True).status == "completed"


def test_fit_shows_its_progress_where_it_is_asked_to(monkeypatch):
    for how, lines in ((True, 1), (False, 0), ("auto", 0)):
        monkeypatch.setattr("sys.stderr", out := io.StringIO())
        ismcore.fit(X, **FIT, progress=how)
        assert ("epoch 3/3" in out.getvalue()) == bool(lines)
    with pytest.raises(ismcore.OptionError, match="progress must be True, False or 'auto', not 'loud'"):
        ismcore.fit(X, **FIT, progress="loud")


def test_without_progress_tqdm_is_not_imported():
    program = """
import sys
import ismcore
ismcore.fit([float(k * k) for k in range(100)], model=ismcore.Affine(), backend="autograd", epochs=2)
sys.exit("tqdm" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

"""Many fits over executors: `ismcore.sweep`."""

import os
import pickle
import signal
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import ismcore
from ismcore import errors

X = np.random.default_rng(0).normal(size=(60, 3))
PLAIN = {"model": ismcore.Affine(), "epochs": 4, "validation": 0, "backend": "autograd"}


def processes():
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def killed_until(file, event):
    """A callback that kills its process, unless there is such a file, which it leaves behind."""
    if not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def killed(event):
    """A callback that kills its process."""
    os.kill(os.getpid(), signal.SIGKILL)


def same_bits(swept, alone):
    assert swept.error is None
    assert all(np.array_equal(swept.result.params[name], alone.params[name]) for name in alone.params)


def test_each_setting_is_the_fit_of_its_own_in_its_order():
    found = ismcore.sweep([{"seed": seed} for seed in (3, 1, 2)], x=X, **PLAIN)
    assert [swept.name for swept in found] == [0, 1, 2]
    for swept, seed in zip(found, (3, 1, 2), strict=True):
        assert swept.attempts == 1
        assert swept.arguments["seed"] == seed
        same_bits(swept, ismcore.fit(X, seed=seed, progress=False, **PLAIN))


def test_groups_of_a_table_in_threads_that_are_left_open():
    groups = {"north": X[:40], "south": 2.0 * X[10:]}
    with ThreadPoolExecutor(2) as pool:
        found = ismcore.sweep({name: {"x": rows} for name, rows in groups.items()}, executor=pool, **PLAIN)
        assert pool.submit(int, "1").result() == 1
    assert [swept.name for swept in found] == list(groups)
    for swept in found:
        same_bits(swept, ismcore.fit(groups[swept.name], progress=False, **PLAIN))


def test_a_fit_that_fails_is_told_of_and_the_others_are_kept():
    wild = {"optimizer": ismcore.SGD(1e9), "standardize": False}
    with pytest.warns(ismcore.IsmWarning, match="2 of 3 fits failed; 'wild'"):
        found = ismcore.sweep({"wild": {"x": X, **wild}, "NaN": {"x": X * np.nan}, "fine": {"x": X}}, **PLAIN)
    assert isinstance(found[0].error, ismcore.Diverged)
    assert isinstance(found[1].error, ismcore.SamplesError)
    assert found[0].error.__notes__ == ["in the fit 'wild' of a sweep"]
    assert found[0].result is None
    assert found[2].result.status == "completed"


def test_warnings_of_fits_are_said_once_for_all():
    few = {"model": ismcore.MLP((64,)), "recipe": "single", "epochs": 2, "backend": "autograd"}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = ismcore.sweep([{"seed": 0}, {"seed": 1}], x=X, **few)
    assert str(said[-1].message) == f"2 of 2 fits were warned of; 0: {found[0].result.warnings[0]}"
    assert said[-1].message.result is found
    assert Path(said[-1].filename) == Path(__file__)


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "printable"])
def test_each_error_comes_back_from_a_worker(name):
    error = getattr(errors, name)("what went wrong")
    error.result = "kept"
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(found) is type(error)
    assert str(found) == "what went wrong"
    assert found.result == "kept"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fits": [{"seed": 1}], "seed": 2, "x": X}, "seed is given for all fits and for 0 too"),
        ({"fits": [3], "x": X}, "fits must be mappings of arguments of fit, and 0 is 3"),
        ({"fits": [], "attempts": 0}, "attempts must be a whole number from 1, not 0"),
    ],
)
def test_arguments_that_cannot_be_meant(given, message):
    with pytest.raises(ismcore.OptionError, match=message):
        ismcore.sweep(**given)


@pytest.mark.slow
def test_a_fit_that_diverges_in_a_worker_says_so_and_breaks_no_pool():
    wild = {"optimizer": ismcore.SGD(1e9), "standardize": False}
    with pytest.warns(ismcore.IsmWarning, match="1 of 2 fits failed; 0: "):
        wild, fine = ismcore.sweep([wild, {}], x=X, executor=processes, **PLAIN)
    assert isinstance(wild.error, ismcore.Diverged)
    assert wild.attempts == fine.attempts == 1
    assert wild.error.result.status == "diverged"
    assert fine.result.status == "completed"


@pytest.mark.slow
def test_a_killed_worker_costs_no_fit(tmp_path):
    once = {"callbacks": [partial(killed_until, Path(tmp_path, "killed"))]}
    found = ismcore.sweep([{"seed": 0}, {"seed": 1, **once}, {"seed": 2}], x=X, executor=processes, **PLAIN)
    assert found[1].attempts == 2
    for swept in found:
        same_bits(swept, ismcore.fit(X, seed=swept.name, progress=False, **PLAIN))


@pytest.mark.slow
def test_a_fit_that_kills_its_worker_each_time_is_named_and_the_others_end():
    with pytest.warns(ismcore.IsmWarning, match="1 of 3 fits failed; 1: the worker of the fit 1 died 2 times"):
        found = ismcore.sweep([{}, {"callbacks": [killed]}, {"seed": 2}], x=X, executor=processes, attempts=1, **PLAIN)
    assert isinstance(found[1].error, ismcore.WorkerLost)
    assert found[1].attempts == 2
    assert found[0].result.status == found[2].result.status == "completed"


@pytest.mark.slow
def test_of_a_pool_that_cannot_be_made_anew_lost_fits_are_named():
    with processes() as pool, pytest.warns(ismcore.IsmWarning, match="executor= is a pool and no function"):
        found = ismcore.sweep([{"callbacks": [killed]}], x=X, executor=pool, **PLAIN)
    assert isinstance(found[0].error, ismcore.WorkerLost)

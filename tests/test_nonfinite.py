"""What is not finite in a run: each policy does what it says, and the result holds the last finite state, to the last bit."""

import re
from functools import cache

import numpy as np
import pytest
from truth import BACKENDS, SMALL_SAMPLE, correlated

import ismcore
from ismcore.backend import Session
from ismcore.coordinates import Coordinates
from ismcore.plugins.lookup import load_backend
from ismcore.problem import Loss, Problem

pytestmark = pytest.mark.filterwarnings(*SMALL_SAMPLE, "ignore:.* rolled back to the end:ismcore.IsmWarning")

D, N = 3, 23
X = correlated(n=N, d=D)
X = (X - X.mean(axis=0)) / X.std(axis=0)
LIMIT = 0.55
PLANTED = ("loss", "gradient")


@cache
def breaking(where, limit=LIMIT):
    """psi(x) = -a x, whose best a is 1; from a = limit on the loss, or its gradient alone, is NaN."""

    def score(ops, params, x):
        room = limit - params["a"]
        if where == "gradient":  # the square root of 0 has a value, and no slope
            room = ops.where(room > 0.0, room, 0.0 * room)
        return 0.0 * ops.sqrt(room) - params["a"] * x

    return ismcore.ScoreFunction(score, {"a": np.zeros(())})


def fitted(backend, where="loss", limit=LIMIT, **options):
    given = {"model": breaking(where, limit), "optimizer": ismcore.Adam(0.1), "epochs": 20, "dtype": "float64"}
    return ismcore.fit(X, backend=backend, recipe="reference", **{**given, **options})


def reached(backend, model, steps, rate, batch_size=None, average_decay=None, optimizer=None):
    """The state after so many steps, all in one run of a session."""
    optimizer = optimizer or ismcore.Adam(rate)
    problem = Problem(
        Loss(model, ismcore.ImplicitScoreMatching()), optimizer, X, Coordinates.identity(D),
        batch_size=batch_size, average=average_decay is not None,
    )  # fmt: skip
    params = model.initial_params(0, D)
    state = optimizer.start(params)
    if average_decay is not None:
        t = np.arange(steps)
        object.__setattr__(state, "average", params)
        average_decay = np.minimum(average_decay, (1.0 + t) / (10.0 + t))
    engine = load_backend(backend)(dtype="float64")
    with engine.scope():
        session = engine.prepare(problem, state)
        session.run(problem.steps(0, np.full(steps, rate), average_decay))
        return session.state()


def same_bits(found, right):
    assert found.keys() == right.keys()
    for name, value in right.items():
        np.testing.assert_array_equal(found[name], value)


def taken(result, batches=1):
    """Steps whose loss was finite, where the next one's was not, or its gradient."""
    losses = result.history["loss"]
    assert np.isfinite(losses[:-1]).all()
    return (len(losses) - 1) * batches


@pytest.mark.parametrize("where", PLANTED)
def test_stop_gives_back_the_last_finite_state(backend, where):
    result = fitted(backend, where, on_nonfinite="stop")
    steps = taken(result)
    assert result.status == "diverged"
    assert 4 <= steps <= 8
    assert np.isnan(result.history["loss"][-1]) == (where == "loss")
    assert result.params["a"] >= LIMIT
    same_bits(result.params, reached(backend, breaking(where), steps, 0.1).params)
    same_bits(result.params, fitted(backend, where, epochs=steps).params)


@pytest.mark.parametrize("where", PLANTED)
def test_raise_says_what_and_where_and_loses_nothing(backend, where):
    stopped = fitted(backend, where, on_nonfinite="stop")
    said = {"loss": "the loss is nan", "gradient": "the gradient or the update is not finite"}[where]
    with pytest.raises(ismcore.Diverged, match=said) as caught:
        fitted(backend, where)
    assert caught.value.epoch == len(stopped.history["loss"])
    assert caught.value.result.status == "diverged"
    same_bits(caught.value.result.params, stopped.params)
    np.testing.assert_array_equal(caught.value.result.history["loss"], stopped.history["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("where", PLANTED)
def test_a_failure_in_the_middle_of_an_epoch_keeps_the_steps_before_it(backend, where):
    options = {"batch_size": 5, "average_decay": 0.9, "optimizer": ismcore.Adam(0.025)}
    result = fitted(backend, where, on_nonfinite="stop", **options)
    epochs = len(result.history["loss"]) - 1
    states = {steps: reached(backend, breaking(where), steps, 0.025, 5, 0.9) for steps in range(5 * epochs, 5 * epochs + 5)}
    (steps,) = [steps for steps, state in states.items() if np.array_equal(state.average["a"], result.params["a"])]
    assert steps % 5
    assert states[steps].params["a"] >= LIMIT > states[steps - 1].params["a"]
    assert np.isfinite(result.history["loss"][:-1]).all()


def test_a_start_from_which_no_step_is_finite_comes_back_as_it_is(backend):
    result = fitted(backend, "gradient", limit=-0.5, on_nonfinite="stop")
    assert len(result.history["loss"]) == 1
    same_bits(result.params, breaking("gradient", -0.5).initial_params(0, D))


class Planted(Session):
    """A session whose loss, or whose state, is not finite from one step on."""

    def __init__(self, session, step, at, what, value):
        self._session, self._step, self._at, self._what, self._value = session, step, at, what, value

    def run(self, steps):
        losses = self._session.run(steps)
        place = self._at - self._step
        self._step += steps.count
        if self._what == "loss" and 0 <= place < steps.count:
            losses[place] = self._value
        return losses

    def state(self):
        state = self._session.state()
        if self._what == "state" and self._step > self._at:
            state.params["weight"][1, 2] = self._value
        return state


@cache
def planting(name):
    """The backend with something planted at the step `at`."""

    class Planting(load_backend(name)):
        at, what, value = 0, "loss", np.nan

        def prepare(self, problem, state):
            return Planted(super().prepare(problem, state), state.step, self.at, self.what, self.value)

    return Planting


@pytest.fixture
def plant(monkeypatch):
    def into(name, at, what, value=np.nan):
        wrong = planting(name)
        for key, given in {"at": at, "what": what, "value": value}.items():
            monkeypatch.setattr(wrong, key, given)
        monkeypatch.setattr("ismcore.fitting.fit.load_backend", lambda asked: wrong)

    return into


def affine(backend, **options):
    given = {"model": ismcore.Affine(), "optimizer": ismcore.Adam(0.05), "epochs": 60, "dtype": "float64"}
    return ismcore.fit(X, backend=backend, recipe="reference", **{**given, **options})


@pytest.mark.slow
@pytest.mark.parametrize("what", ["loss", "state"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_whatever_is_not_finite_ends_the_run_before_it(backend, what, value, plant, monkeypatch):
    right = affine(backend, epochs=37)
    plant(backend, 37, what, value)
    for seconds in (1e-9, 0.2, 60.0):  # chunks of one step, of some, of all
        monkeypatch.setattr("ismcore.training.loop.CHUNK_SECONDS", seconds)
        result = affine(backend, on_nonfinite="stop")
        assert result.status == "diverged"
        assert len(result.history["loss"]) == 38
        np.testing.assert_array_equal(result.history["loss"][:37], right.history["loss"])
        np.testing.assert_array_equal(result.history["loss"][37], value if what == "loss" else affine_loss(backend))
        same_bits(result.params, right.params)


@cache
def affine_loss(backend):
    """The loss of the step 37, had nothing been planted."""
    loss = Loss(ismcore.Affine(), ismcore.ImplicitScoreMatching())
    problem = Problem(loss, ismcore.Adam(0.05), X, Coordinates.identity(D))
    engine = load_backend(backend)(dtype="float64")
    with engine.scope():
        session = engine.prepare(problem, ismcore.Adam().start(ismcore.Affine().initial_params(0, D)))
        return session.run(problem.steps(0, np.full(38, 0.05)))[37]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1e-9, 60.0])
@pytest.mark.parametrize("step", [0, 1, 2, 15, 16, 17, 18, 33])
def test_in_batches_the_last_finite_state_does_not_depend_on_the_chunks(step, seconds, plant, monkeypatch):
    states = reached("autograd", ismcore.Affine(), step, 0.05, 5).params if step else ismcore.Affine().initial_params(0, D)
    plant("autograd", step, "state")
    monkeypatch.setattr("ismcore.training.loop.CHUNK_SECONDS", seconds)
    result = affine("autograd", batch_size=5, on_nonfinite="stop")
    assert len(result.history["loss"]) == step // 5 + 1
    same_bits(result.params, states)


def halved(rates, result):
    """The rates of all epochs as the roll-backs that the result tells of have left them."""
    rates = np.array(rates)
    base = rates.copy()
    for text in result.warnings:
        found = re.search(r"rolled back to the end of epoch (\d+), and on at ([\d.e-]+) of the learning rate", text)
        if found:
            rates[int(found[1]) :] = base[int(found[1]) :] * float(found[2])
    return rates


TOO_FAST = [0.05] * 4 + [0.5] * 8
"""From a = 0 the first four lead to 0.48, the fifth to 1.26; at half of it to 0.87."""


@pytest.mark.parametrize("where", PLANTED)
def test_rollback_goes_on_from_the_last_judged_epoch_at_half_the_rate(backend, where):
    options = {"limit": 1.2, "optimizer": ismcore.SGD(1.0), "epochs": 12}
    result = fitted(backend, where, schedule=TOO_FAST, on_nonfinite="rollback", **options)
    assert result.status == "completed"
    assert [text for text in result.warnings if "rolled back to the end of epoch 4, and on at 0.5" in text]
    right = [0.05] * 4 + [0.25] * 8
    np.testing.assert_array_equal(halved(TOO_FAST, result), right)
    np.testing.assert_array_equal(result.history["learning_rate"], right)
    plain = fitted(backend, where, schedule=right, **options)
    same_bits(result.params, plain.params)
    np.testing.assert_array_equal(result.history["loss"], plain.history["loss"])
    assert abs(result.params["a"] - 1.0) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1e-9, 60.0])
@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 60, "batch_size": 5, "average_decay": 0.8},
        {"epochs": 330},
        {"epochs": 60, "validation": 0.9 * X[:9]},
        {"epochs": 60, "batch_size": 7, "snapshots": [3, 17, 40]},
    ],
    ids=["batches", "long", "judged", "snapshots"],
)
def test_the_run_after_roll_backs_is_the_one_that_was_never_as_fast(options, seconds, monkeypatch):
    monkeypatch.setattr("ismcore.training.loop.CHUNK_SECONDS", seconds)
    epochs = options["epochs"]
    rates = np.concatenate([np.full(epochs // 2, 0.02), np.full(epochs - epochs // 2, 1.0)])
    options = {**options, "limit": 1.5, "optimizer": ismcore.SGD(1.0)}
    result = fitted("autograd", schedule=rates, on_nonfinite="rollback", **options)
    slower = halved(rates, result)
    assert slower[-1] < rates[-1]
    plain = fitted("autograd", schedule=slower, on_nonfinite="rollback", **options)
    assert not any("rolled back" in text for text in plain.warnings)
    same_bits(result.params, plain.params)
    for key, value in plain.history.items():
        np.testing.assert_array_equal(result.history[key], value)
    for epoch, kept in plain.snapshots.items():
        same_bits(result.snapshots[epoch], kept)
    assert (result.status, result.best_epoch) == (plain.status, plain.best_epoch)


def test_rollback_gives_up_after_ten(plant, backend):
    # the loss of step 9 is NaN whatever the rate; a state whose loss is NaN is no place to go back to, so the run always
    # goes back to the end of epoch 8
    right = affine(backend, epochs=9, schedule=[0.05] * 8 + [0.05 / 1024])
    plant(backend, 9, "loss")
    with pytest.raises(ismcore.Diverged, match="the loss is nan at epoch 10") as caught:
        affine(backend, on_nonfinite="rollback")
    result = caught.value.result
    assert sum("rolled back to the end of epoch 8" in text for text in result.warnings) == 10
    same_bits(result.params, right.params)
    np.testing.assert_array_equal(result.history["loss"][:9], right.history["loss"])


@pytest.mark.parametrize("policy", ["raise", "stop"])
def test_held_out_rows_have_chosen_before_the_run_diverged(policy, backend):
    # judged by rows that spread wider, whose best a is smaller than the limit
    options = {"validation": 2.0 * X[:9], "where": "gradient"}
    if policy == "raise":
        with pytest.raises(ismcore.Diverged) as caught:
            fitted(backend, **options)
        result = caught.value.result
    else:
        result = fitted(backend, on_nonfinite="stop", **options)
    judged = result.history["validation_loss"]
    assert result.best_epoch == 1 + np.nanargmin(judged) < len(judged) - 1
    same_bits(result.params, fitted(backend, epochs=result.best_epoch).params)


def test_the_best_epoch_of_a_run_that_diverged_is_the_last_one_that_was_finite(backend):
    result = fitted(backend, on_nonfinite="stop")
    assert result.best_epoch == len(result.history["loss"]) - 1
    same_bits(result.params, fitted(backend, epochs=result.best_epoch).params)


def test_no_warning_of_the_framework_s_comes_through(recwarn):
    for backend in BACKENDS:
        fitted(backend, on_nonfinite="stop")
    assert {warned.category for warned in recwarn.list} == {ismcore.IsmWarning}

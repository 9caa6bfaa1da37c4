"""Plugins of other distributions adopt their own framework's models, and what goes wrong in one hurts no other."""

import threading

import numpy as np
import pytest
from late import torch
from shelf import shelf_on_path
from truth import SMALL_SAMPLE, correlated

import ismcore
from ismcore.models import ScoreFunction

X = correlated(n=30)

ADOPT = """
from ismcore import hookimpl, ScoreFunction
import test_adoption_plugins as here

@hookimpl
def ismcore_adopt_model(model, sample):
    if isinstance(model, here.Foreign):
        {answer}
"""


class Foreign:
    """A model of some framework that only a plugin knows."""

    slope = -1.0


def apply(ops, params, x):
    return params["slope"] * x


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    with shelf_on_path(tmp_path, monkeypatch) as shelf:
        yield shelf


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
def test_a_plugin_adopts_its_own_models_as_score_and_as_energy(shelf):
    answer = "return ScoreFunction(here.apply, {'slope': model.slope})"
    shelf.put("mine", ADOPT.format(answer=answer))
    result = ismcore.fit(X, model=Foreign(), backend="autograd", epochs=2, progress=False)
    assert list(result.params) == ["slope"]
    assert isinstance(result.model.inner, ScoreFunction)
    with pytest.raises(ismcore.ModelError, match="an energy must have shape"):
        ismcore.fit(X, model=ismcore.Energy(Foreign()), backend="autograd", epochs=2, progress=False)


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ("1 / 0", ismcore.ModelError, "plugin bad .* fails in ismcore_adopt_model: ZeroDivisionError"),
        ("raise SystemExit(3)", ismcore.ModelError, "fails in ismcore_adopt_model: SystemExit: 3"),
        ("return 7", ismcore.PluginError, "must adopt Foreign as an ismcore.models.UserModel, not 7"),
        ("return None", ismcore.ModelError, "model must be .* not Foreign; wrap a function"),
    ],
)
def test_what_goes_wrong_is_named(shelf, answer, error, words):
    shelf.put("bad", ADOPT.format(answer=answer))
    with pytest.raises(error, match=words):
        ismcore.fit(X, model=Foreign(), epochs=2, progress=False)
    ismcore.fit(X, model=torch.nn.Linear(3, 3), epochs=2, progress=False)


def test_a_plugin_that_fails_leaves_the_model_to_another(shelf):
    shelf.put("bad", ADOPT.format(answer="1 / 0"))
    shelf.put("good", ADOPT.format(answer="return ScoreFunction(here.apply, {'slope': model.slope})"))
    assert ismcore.evaluate(Foreign(), None, X, backend="autograd").score == pytest.approx(-X)


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
def test_a_backend_without_a_form_of_its_own_gives_a_function(shelf):
    shelf.put_good("mirror")
    result = ismcore.fit(X, model=ismcore.MLP((4,)), backend="mirror", epochs=2, dtype="float64", progress=False)
    np.testing.assert_allclose(result.native()(X), result.score(X), rtol=1e-12)
    with pytest.raises(ismcore.ModelError, match="into= takes a module that was passed to fit"):
        result.native(into=torch.nn.Linear(3, 3))


@pytest.mark.filterwarnings(*SMALL_SAMPLE)
def test_threads_may_share_a_network_and_its_result():
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    options = {"model": net, "epochs": 3, "validation": 0, "batch_size": "all", "dtype": "float64", "progress": False}
    result = ismcore.fit(X, **options)
    expected, wrong = result.score(X), []

    def work():
        for _ in range(20):
            wrong.append(np.abs(result.score(X) - expected).max())
        wrong.append(np.abs(ismcore.fit(X, **options).score(X) - expected).max())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 63
    assert max(wrong) < 1e-12

"""The kit's check of adopted functions catches a plugin whose adoption loses names, units or parameters."""

import re

import pytest
from shelf import PLUGIN, shelf_on_path

from ismcore.backend import API
from ismcore.testing import check_backend

BACKEND = """
from ismcore_autograd.backend import AutogradBackend

class Mirror(AutogradBackend):
    name = "odd"
    {line}
"""
ADOPT = """

from dataclasses import replace
from ismcore import ScoreFunction
from ismcore.models.function import pair

class Model(ScoreFunction):
    {method}

@hookimpl
def ismcore_adopt_model(model, sample):
    if isinstance(model, ScoreFunction) and model.backend == "odd":
        return Model(model.apply, model.params, "odd", by_row=model.apply.by_row)
"""
RENAMED = "def shapes(self, d): return {name.upper(): shape for name, shape in super().shapes(d).items()}"
WITHOUT_UNITS = "def native(self, engine, params, frame, into=None): return self.apply, self.tree(engine.asarrays(params))"
START = "def native(self, engine, params, frame, into=None): return pair(engine.at, self.apply, self.params, frame)"
UPSIDE_DOWN = """def map_rows(self, f, /):
        return lambda tree, *rows: super(Mirror, self).map_rows(f)(tree, *(each[::-1] for each in rows))"""


@pytest.fixture
def report(tmp_path, monkeypatch):
    def found(method=None, line="pass"):
        with shelf_on_path(tmp_path, monkeypatch) as shelf:
            code = PLUGIN.format(name="odd", module="odd", api=API)
            adopt = "" if method is None else ADOPT.replace("{method}", method)
            shelf.put("odd", code + adopt, backend=BACKEND.format(line=line))
            return check_backend("odd", only=["check_adopted_model"])

    return found


@pytest.mark.parametrize("method", [None, "pass"], ids=["by the core", "by the plugin"])
def test_a_function_that_is_adopted_passes(method, report):
    assert report(method).ok


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (RENAMED, "ParameterError: .*missing: DENSE_1"),
        (WITHOUT_UNITS, "the score that is given back: off by"),
        (START, "the score that is given back: off by"),
    ],
    ids=["renamed", "without units", "with the parameters it began with"],
)
def test_a_plugin_that_adopts_wrongly_is_caught(method, said, report):
    failures = report(method).failures
    assert len(failures) == 2
    assert all(re.search(said, row.message) for row in failures), failures


def test_rows_that_are_mapped_in_another_order_are_caught(report):
    (row,) = report(line=UPSIDE_DOWN).failures
    assert row.scenario == "row"

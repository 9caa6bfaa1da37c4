"""Nested parameters become a flat dict of arrays and come back as they were."""

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ismcore
from ismcore.errors import ParameterError
from ismcore.models.trees import as_array, flatten

Pair = namedtuple("Pair", ["w", "b"])


@dataclass(frozen=True)
class Layer:
    weight: np.ndarray
    scale: float = 1.0
    activation: Callable = np.tanh
    name: str = "layer"
    hidden: list = field(default_factory=list)


def test_leaves_are_named_by_their_path():
    tree = {"a": [np.ones(2), {"b": 3}], "c": Pair(1.0, (2.0, np.zeros((1, 1)))), "d": Layer(np.arange(3.0)), "e": {}}
    leaves, rebuild = flatten(tree)
    assert list(leaves) == ["a.0", "a.1.b", "c.w", "c.b.0", "c.b.1", "d.weight", "d.scale"]
    again = rebuild(leaves)
    assert type(again["c"]) is Pair
    assert type(again["d"]) is Layer
    found, given = vars(again["d"]), vars(tree["d"])  # from Python 3.13 on, == of dataclasses asks arrays for one truth
    assert found.keys() == given.keys()
    assert all(np.array_equal(found[name], given[name]) for name in given)
    assert again["e"] == {}
    assert rebuild({**leaves, "d.weight": 7})["d"].weight == 7


def test_a_lone_array_has_a_name_and_lists_of_numbers_are_arrays():
    assert list(flatten(np.ones(3))[0]) == ["params"]
    leaves, rebuild = flatten({"a": [1.0, 2.0], "b": [[1, 2], [3, 4]]})
    assert {name: np.shape(value) for name, value in leaves.items()} == {"a": (2,), "b": (2, 2)}
    assert rebuild(leaves) == {"a": [1.0, 2.0], "b": [[1, 2], [3, 4]]}


def test_mappings_keep_their_type():
    leaves, rebuild = flatten(OrderedDict(z=np.ones(1), a=np.zeros(1)))
    assert type(rebuild(leaves)) is OrderedDict
    assert list(leaves) == ["z", "a"]


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(ismcore.ParameterError, match=r"both be called 'a\.b'"):
        flatten({"a": {"b": 1.0}, "a.b": 2.0})


@pytest.mark.parametrize("value", ["text", None, [1.0, "x"], 1j, np.array(["a"])])
def test_what_is_no_array_of_numbers_is_refused(value):
    with pytest.raises(ismcore.ModelError, match="'k' must be an array of real numbers"):
        as_array("k", value)


def test_tensors_with_a_graph_and_short_floats_become_arrays():
    import torch

    assert as_array("k", torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).tolist() == [1.0, 1.0]
    source = np.ones(2)
    assert as_array("k", source) is not source


TREES = st.recursive(
    st.floats(-1, 1).map(np.asarray),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
    ),
    max_leaves=8,
)


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_any_tree_comes_back(tree):
    leaves, rebuild = flatten(tree)
    assert str(rebuild(leaves)) == str(tree)
    assert str(rebuild(dict(reversed(leaves.items())))) == str(tree)


@pytest.mark.parametrize("name", ["dense/kernel", "Schicht 1: Gewicht", "sequential/dense_1/kernel:0", "\u03b8", "a.b/c"])
def test_any_printable_text_names_a_parameter_that_is_trained_saved_and_given_back(name, tmp_path):
    x = np.linspace(-1.0, 2.0, 40)[:, None]
    model = ismcore.ScoreFunction(lambda ops, p, x: -p[name] * x, {name: 2.0})
    result = ismcore.fit(x, model=model, backend="autograd", epochs=2, validation=0, checkpoint=tmp_path / "run")
    result.save(tmp_path / "result")
    assert list(ismcore.load(tmp_path / "result", model=model).params) == [name]
    assert ismcore.resume(tmp_path / "run", x, model=model).params[name] == result.params[name]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "\ud800", "\u202eright to left", "a\0"])
def test_a_name_that_no_file_could_hold_is_refused_before_training(name):
    with pytest.raises(ParameterError, match="cannot name a parameter"):
        ismcore.ScoreFunction(lambda ops, p, x: x, {name: 2.0, "other": 1.0})


def test_a_name_that_a_plugin_s_model_gives_is_looked_at_on_adoption():
    class Named(ismcore.Affine):
        def shapes(self, d):
            return {"a\nb": (d,)}

    with pytest.raises(ParameterError, match="cannot name a parameter"):
        ismcore.models.check_params(Named(), {"a\nb": np.ones(2)}, 2)

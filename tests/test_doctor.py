"""`ismcore doctor`: it finds nothing wrong here, and finds what is made wrong on purpose."""

import json

import pytest
from shelf import shelf_on_path
from truth import READY

from ismcore.cli import doctor
from ismcore.cli.main import main

CHECKS = ["loads", "loss and gradient, float32", "loss and gradient, float64", "reference fit, float32"]


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    with shelf_on_path(tmp_path, monkeypatch) as found:
        yield found


def findings(*names):
    return {(one.backend, one.check): one for one in doctor.examine(names).findings}


@pytest.mark.slow
def test_nothing_is_wrong_here(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    expected = [(name, check) for name in READY for check in CHECKS]
    assert [(f["backend"], f["check"]) for f in found["findings"]][: len(expected)] == expected
    assert all(f["passed"] for f in found["findings"])
    assert {"python", "ismcore", "numpy", *READY} <= found["versions"].keys()
    assert "unknown" not in found["versions"].values()
    assert found["threads"]["usable"] >= 1
    assert set(READY) <= found["devices"].keys()
    assert found["plugins"][0]["origin"] == "ismcore_jax.plugin"
    assert found["plugins"][0]["file"].endswith("plugin.py")


def test_the_report_in_words_names_everything():
    text = str(doctor.examine(["autograd"]))
    for word in (
        "python 3.",
        "numpy",
        "usable",
        "blas",
        "autograd: cpu",
        "ismcore_autograd.plugin",
        *CHECKS,
        "all 4 checks passed",
    ):
        assert word in text


WRONG = {
    "a gradient twice too large": (
        "    def value_and_grad(self, f):\n"
        "        both = super().value_and_grad(f)\n"
        "        def wrong(*args):\n"
        "            value, gradient = both(*args)\n"
        "            return value, {k: 2 * g for k, g in gradient.items()}\n"
        "        return wrong\n",
        {"loss and gradient, float32", "loss and gradient, float64"},
    ),
    "the column sums of the Jacobian": (
        "    def jacobian_diagonal(self, f, x):\n"
        "        psi, pull = self.vjp(f, x)\n"
        "        return psi, pull(self.ops.broadcast_to(self.asarray([[1.0]]), x.shape))\n",
        {"loss and gradient, float32", "loss and gradient, float64"},
    ),
    "a session that stands still": (
        "    def prepare(self, problem, state):\n"
        "        import dataclasses\n"
        "        return super().prepare(dataclasses.replace(problem, optimizer=Still()), state)\n"
        "class Still:\n"
        "    def update(self, state, gradient, learning_rate): return state\n",
        {"reference fit, float32"},
    ),
    "an error when made": ("    def __init__(self, **options): raise SystemExit('no licence')\n", set(CHECKS[1:])),
    # the loop of the class that it derives from has NumPy arrays, and asks for none
    "not a number": (
        "    def to_numpy(self, array): return super().to_numpy(array) * float('nan')\n",
        {check for check in CHECKS[1:] if "fit" not in check},
    ),
    "devices that raise": ("    @classmethod\n    def devices(cls): raise OSError('no driver')\n", set(CHECKS)),
}


@pytest.mark.parametrize(("more", "failing"), WRONG.values(), ids=WRONG)
def test_a_wrong_backend_is_found(more, failing, shelf):
    shelf.put_good("wrong", more=more)
    found = findings("wrong", "autograd")
    assert {check for name, check in found if name == "wrong" and not found[name, check].passed} == failing
    assert all(one.passed for one in found.values() if one.backend == "autograd")


def test_a_wrong_backend_makes_the_command_fail(shelf, monkeypatch, capsys):
    shelf.put_good("wrong", more=WRONG["a gradient twice too large"][0])
    whole = doctor.examine
    monkeypatch.setattr(doctor, "examine", lambda: whole(["wrong"]))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAILED  wrong        loss and gradient, float64" in out
    assert "2 of 4 checks failed" in out


def test_a_plugin_that_cannot_be_used_is_a_finding_and_a_missing_framework_is_none(shelf):
    shelf.put("broken", "import nowhere_at_all")
    shelf.put_good("old", api=0)
    shelf.put_good("intruder", offers="torch")
    shelf.put(
        "absent",
        "from ismcore import BackendInfo, hookimpl\n@hookimpl\ndef ismcore_backends():\n"
        "    return [BackendInfo('absent', 'a:B', ('nowhere_at_all',), 'pip install nowhere')]",
    )
    examined = doctor.examine(["broken", "old", "torch of intruder 1.0", "absent"])
    assert not examined.ok
    assert [(f.backend, f.detail.partition(":")[0]) for f in examined.findings] == [
        ("old", "incompatible"),
        ("broken", "broken"),
        ("torch of intruder 1.0", "conflict"),
    ]
    assert [status.status for status in examined.plugins] == ["missing", "incompatible", "broken", "conflict"]


def test_without_a_backend_nothing_is_well():
    examined = doctor.examine(["none of this name"])
    assert not examined.ok
    assert "no backend is ready" in str(examined)

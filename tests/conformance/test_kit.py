"""The kit's machinery: reports, expected failures, the command, the faces for pytest."""

import json
import os
import subprocess
import sys
import traceback
from dataclasses import replace

import numpy as np
import pytest
from ismcore_autograd.backend import AutogradBackend
from ismcore_autograd.ops import AutogradOps
from wrong_backends import PenaltyDropped, SummedOutputs

import ismcore
from ismcore import models, objectives
from ismcore.analytic import find_route
from ismcore.plugins.lookup import registry
from ismcore.testing import (
    BackendConformance,
    CheckFailed,
    all_checks,
    all_items,
    all_scenarios,
    check_backend,
    parametrize_with_checks,
)
from ismcore.testing.__main__ import main
from ismcore.testing.cases import batch_cases, clip_cases, drawing_cases, training_cases
from ismcore.testing.checks import routes
from ismcore.testing.conformance import BoundCheck
from ismcore.testing.functions import Conditional
from ismcore.testing.report import SHOWN, Report, Row
from ismcore.testing.scenarios import scored_scenarios

CONCRETE = ("Affine", "Energy", "MLP", "NoiseConditional", "ResidualMLP", "ScoreFunction")
ONLY = ["check_jacobian_diagonal", "check_vjp"]


def test_every_check_says_what_it_checks_and_has_a_name_of_its_own():
    assert len({item.id for item in all_items()}) == len(list(all_items()))
    for check in all_checks():
        assert check.name.startswith("check_")
        assert check.about.endswith(".")


def test_scenarios_cover_the_dimensions_the_shapes_and_large_inputs():
    shapes = {case.x.shape for case in all_scenarios()}
    assert {d for _, d in shapes} >= {1, 2, 3, 5}
    assert any(n == 1 for n, _ in shapes)
    assert all(n != d for n, d in shapes if d > 1)
    assert max(abs(case.x).max() for case in all_scenarios()) >= 1000.0


def test_scenarios_cover_every_objective_and_model():
    found = [case.objective for case in all_scenarios() if not isinstance(case.objective, Conditional)]
    assert {type(objective).__name__ for objective in found} == {n for n in objectives.__all__ if n.endswith("Matching")}
    assert {type(case.model).__name__ for case in all_scenarios()} >= {n for n in models.__all__ if n in CONCRETE}
    implicit = [objective for objective in found if isinstance(objective, ismcore.ImplicitScoreMatching)]
    assert {objective.curvature_weight for objective in implicit} >= {0.0, 0.1, 0.75, (0.5, 0.0, 2.0)}
    assert {objective.penalised for objective in implicit if isinstance(objective.divergence, ismcore.Hutchinson)} == {
        False,
        True,
    }
    assert {objective.variance_reduced for objective in found if isinstance(objective, ismcore.SlicedScoreMatching)} == {
        False,
        True,
    }
    assert any(case.row_weight is not None for case in all_scenarios())
    drawing = {type(case.scenario.objective).__name__ for case in drawing_cases()}
    assert drawing == {type(objective).__name__ for objective in found} - {"ExplicitScoreMatching"}


def lengths(case, steps):
    """The length of the gradient at each of so many steps, as the oracle takes them."""
    state = case.start()
    for _ in range(steps):
        yield np.sqrt(sum((slope**2).sum() for slope in case.value_and_grad(state.params, state.step)[1].values()))
        state = case.train([0.05], state)[1]


def test_training_cases_cover_batches_of_unequal_size_and_gradients_on_both_sides_of_the_limit():
    full = [case for case in training_cases() if case.batch_size and case.average and case.clip_norm]
    assert {type(case.optimizer) for case in full} == {ismcore.Adam, ismcore.SGD}
    for case in (*full, *batch_cases()):
        _, weight = case.problem().rows(0, case.problem().batches)
        assert len({int(count) for count in (weight > 0.0).sum(axis=1)}) > 1
    for case in (*full, *clip_cases()):
        found = list(lengths(case, 7))
        assert min(found) < case.clip_norm < max(found)
    held = {name for case in batch_cases() for name in case.scenario.objective.row_axes if name in case.problem().inputs()}
    assert held == {"probes", "noise", "target_score", "context"}


def test_closed_formulas_are_those_that_are_checked():
    cases = [*routes.by_route("analytic"), *(case for case in all_scenarios() if case.session)]
    found = {
        type(find_route(c.model, c.x.shape[1], trace=not getattr(c.objective, "penalised", True), n=len(c.x))) for c in cases
    }
    named = {family.__name__ for family in found if family is not type(None)}
    scores = {"OneHidden", "TwoHiddenTrace", "TwoHiddenDiagonal", "PrecomputedTrace", "Tangents"}
    assert named == scores | {"ShallowEnergy", "DeepEnergy"}


def test_report_counts_and_prints():
    report = check_backend(AutogradBackend, only=ONLY)
    assert report.ok
    assert report.count("passed") == len(report.rows) == len(scored_scenarios()) + 1
    assert 0.0 < report.worst < 1.0
    assert "check_jacobian_diagonal" in str(report)
    assert json.loads(report.to_json())["rows"][0]["status"] == "passed"


def test_failure_is_reported_with_its_size():
    report = check_backend(SummedOutputs, only=ONLY)
    assert not report.ok
    assert {row.check for row in report.failures} == {"check_jacobian_diagonal"}
    assert min(row.error for row in report.failures) > 1e6
    assert "FAILED check_jacobian_diagonal[" in str(report)


def test_expected_failure_carries_its_reason():
    reason = {"check_session_objective[affine3]": "the penalty is not written yet"}
    report = check_backend(PenaltyDropped, only=["check_session_objective"], expected_failures=reason)
    (row,) = [row for row in report.rows if row.status == "expected"]
    assert row.message == "the penalty is not written yet"
    assert "affine3" not in {row.scenario for row in report.failures}


def test_expected_failure_that_passes_is_a_failure():
    report = check_backend(AutogradBackend, only=ONLY, expected_failures={"check_vjp": "it was wrong once"})
    (row,) = report.failures
    assert "it was wrong once" in row.message
    assert "passed" in row.message


def test_unknown_check_is_refused_with_the_list():
    with pytest.raises(ismcore.OptionError, match=r"check_nothing.*check_round_trip"):
        check_backend(AutogradBackend, expected_failures={"check_nothing": "a slip"})


def test_undeclared_capability_is_skipped_with_its_reason():
    class NoJvp(AutogradBackend):
        jvp = ismcore.backend.Backend.jvp

    report = check_backend(NoJvp, only=["check_jvp", "check_vjp", "check_gradient", "check_undeclared_product"])
    assert report.ok
    assert [(row.check, row.message) for row in report.rows if row.status == "skipped"] == [("check_jvp", "declares no jvp")]


def test_exception_is_a_failure_not_a_skip():
    class Raises(AutogradBackend):
        def vjp(self, f, x, /):
            raise NotImplementedError("later")

    assert not check_backend(Raises, only=["check_vjp"]).ok


class Single(AutogradBackend):
    dtypes = ("float32",)


class Double(AutogradBackend):
    dtypes = ("float64",)


def test_undeclared_dtype_is_an_error():
    with pytest.raises(ismcore.OptionError, match=r"declares float32, not 'float64'.*dtypes = \('float32',\)"):
        check_backend(Single, dtype="float64")
    with pytest.raises(ismcore.OptionError, match="declares float64, not 'float32'"):
        check_backend(Double, dtype="float32")
    with pytest.raises(ismcore.OptionError, match="float16"):
        check_backend(Single, dtype="float16")


@pytest.mark.slow
@pytest.mark.parametrize("backend", [Single, Double])
def test_a_backend_of_one_dtype_is_tested_in_it_and_can_be_green(backend):
    report = check_backend(backend, within=0.0)
    assert report.ok, str(report)
    assert (report.dtype,) == backend.dtypes


def test_without_a_dtype_a_backend_of_both_is_tested_in_float64():
    assert check_backend(AutogradBackend, only=["check_vjp"]).dtype == "float64"


def test_command_refuses_an_undeclared_dtype_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("ismcore.testing.subject.load_backend", lambda name: Single)
    assert main(["autograd", "--dtype", "float64"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def bound(check, backend):
    """The checks of a name, for pytest, by id."""
    items = [item for item in all_items() if item.check.name == check]
    return [BoundCheck(item, backend, backend.dtypes[0], "cpu") for item in items]


def test_class_fails_in_a_dtype_that_is_not_declared_and_says_what_to_write():
    (one,) = (replace(each, dtype="float64") for each in bound("check_vjp", Single))
    with pytest.raises(ismcore.OptionError, match=r"dtypes = \('float32',\)"):
        one()


def ran_out(x, /):
    raise RuntimeError("the framework ran out\nof tape")


class Breaks(AutogradBackend):
    """One that fails in its own code."""

    class ops(AutogradOps):
        sin = staticmethod(lambda x, /: ran_out(x))


def test_exception_is_reported_with_its_place_and_a_traceback():
    (row,) = check_backend(Breaks, only=["check_vjp"]).failures
    assert row.message.startswith("RuntimeError: the framework ran out (test_kit.py:")
    assert row.place.endswith(", in ran_out")
    assert row.place in row.message
    assert row.traceback.splitlines()[1].endswith(", in check_vjp")
    assert "of tape" in row.traceback


def test_report_prints_one_traceback_a_place_and_stays_a_table(monkeypatch, capsys):
    monkeypatch.setattr("ismcore.testing.subject.load_backend", lambda name: Breaks)
    assert main(["autograd", "--only", "check_vjp", "--only", "check_op_value"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("Traceback (most recent call last):") == 1
    failed = [line for line in lines if line.startswith("FAILED ")]
    assert {line.split(":")[0] for line in failed} == {
        "FAILED check_vjp",
        *(f"FAILED check_op_value[{id}]" for id in ("sin", "sin-far", "where")),
    }
    (head,) = (line for line in lines if line.startswith("at test_kit.py:"))
    assert head.endswith(f"in ran_out: {len(failed)} failed; this is check_vjp")
    assert any(line.startswith("autograd in float64 on cpu: ") for line in lines[-1:])


def test_report_prints_every_traceback_where_that_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr("ismcore.testing.subject.load_backend", lambda name: Breaks)
    assert main(["autograd", "--only", "check_vjp", "--only", "check_op_value", "--traceback"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("Traceback (most recent call last):") == sum(line.startswith("FAILED ") for line in lines) > 1


PATTERNS = {
    "check_vjp": {"check_vjp"},
    "check_vjp*": {"check_vjp", "check_vjp_nests_under_value_and_grad"},
    "check_op_value[sin]": {"check_op_value[sin]"},
    "*[sin]": {"check_op_value[sin]", "check_op_derivative[sin]", "check_op_second_derivative[sin]"},
}


@pytest.mark.parametrize(("pattern", "meant"), PATTERNS.items(), ids=PATTERNS)
def test_only_takes_names_cases_and_patterns(pattern, meant):
    assert {row.id for row in check_backend(AutogradBackend, only=[pattern]).rows} >= meant
    assert len(check_backend(AutogradBackend, only=[pattern, "check_vjp"]).rows) < 12


def test_a_pattern_of_no_check_is_refused():
    with pytest.raises(ismcore.OptionError, match=r"there is no check 'check_nothing\*'"):
        check_backend(AutogradBackend, only=["check_vjp", "check_nothing*"])


def test_a_run_within_some_time_takes_every_check_and_says_what_it_left_out():
    only = ["check_op_value", "check_vjp", "check_layout"]
    report = check_backend(AutogradBackend, only=only, within=-1.0)
    assert sorted(row.check for row in report.rows) == sorted(only)
    assert report.left_out > 20
    assert f"{report.left_out} left out for want of time" in str(report)
    whole = check_backend(AutogradBackend, only=only, within=100.0)
    assert len(whole.rows) == len(report.rows) + report.left_out
    assert "left out" not in str(whole)


@pytest.mark.slow
def test_a_quick_run_begins_no_further_case_once_its_time_is_over(monkeypatch, capsys):
    monkeypatch.setattr("ismcore.testing.__main__.QUICK", 0.5)
    began = os.times()
    assert main(["autograd", "--quick"]) == 0
    spent = [now - then for now, then in zip(os.times(), began, strict=True)]
    assert sum(spent[:4]) < 20.0
    assert "left out for want of time" in capsys.readouterr().out


def test_what_a_backend_prints_is_folded(monkeypatch, capfd, tmp_path):
    class Loud(AutogradBackend):
        def scope(self):
            os.write(2, b"I am loud\n")
            return super().scope()

    monkeypatch.setattr("ismcore.testing.subject.load_backend", lambda name: Loud)
    assert main(["autograd", "--only", "check_vjp", "--json", str(tmp_path / "report")]) == 0
    said = capfd.readouterr()
    assert "loud" not in said.out
    assert said.err == "1 line printed meanwhile, the first: 'I am loud'\n"
    assert json.loads((tmp_path / "report").read_text())["printed"] == "I am loud\n"


def test_report_prints_so_many_tracebacks_and_names_the_rest():
    rows = [
        Row("check_vjp", str(k), "failed", message="m", place=f"a.py:{k}", traceback=f"trace {k}") for k in range(SHOWN + 2)
    ]
    printed = str(Report("b", "float64", "cpu", tuple(rows), {}, 0.0))
    assert printed.count("trace ") == SHOWN
    assert "at 2 more places" in printed


def test_comparison_that_fails_needs_no_traceback():
    assert not any(row.traceback for row in check_backend(SummedOutputs, only=ONLY).failures)


def test_pytest_is_given_the_exception_as_the_cause():
    (one,) = bound("check_vjp", Breaks)
    with pytest.raises(CheckFailed, match="check_vjp: RuntimeError") as caught:
        one()
    assert type(caught.value.__cause__) is RuntimeError
    assert ", in ran_out" in "".join(traceback.format_tb(caught.value.__cause__.__traceback__))


def test_what_a_new_process_says_is_a_traceback_too(monkeypatch):
    def use(*args, **options):
        return subprocess.CompletedProcess(args, 1, "", "Traceback\n  in broken_import\nImportError: no such library")

    monkeypatch.setattr("ismcore.testing.checks.process.subprocess.run", use)
    (row,) = check_backend(AutogradBackend, only=["check_first_use_leaves_global_state"]).failures
    assert row.message == "using it in a new process fails: ImportError: no such library"
    assert "in broken_import" in row.traceback


def test_command_prints_the_report_and_writes_json(tmp_path, capsys):
    words = ["--only", ONLY[0], "--only", ONLY[1], "--json", str(tmp_path / "report.json")]
    assert main(["autograd", "--dtype", "float32", *words]) == 0
    printed = capsys.readouterr().out
    assert "autograd in float32 on cpu" in printed
    assert "worst error" in printed
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is True


def test_command_names_a_backend_that_is_not_there(capsys):
    assert main(["autograt"]) == 2
    assert "autograd" in capsys.readouterr().err


@pytest.mark.slow
def test_command_fails_where_a_check_fails(monkeypatch, capsys):
    monkeypatch.setattr("ismcore.testing.subject.load_backend", lambda name: SummedOutputs)
    assert main(["autograd", "--only", "check_jacobian_diagonal"]) == 1
    assert "FAILED check_jacobian_diagonal" in capsys.readouterr().out


@pytest.mark.slow
def test_kit_needs_no_pytest():
    kit = "from ismcore.testing import check_backend; print(check_backend('autograd', within=0.0).ok)"
    code = f"import sys; sys.modules['pytest'] = None; {kit}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_importing_the_kit_imports_no_framework():
    code = "import sys, ismcore.testing as t; list(t.all_items()); print({'torch', 'jax', 'pytest'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_decorator_gives_every_check():
    def test(check):
        pass

    (mark,) = parametrize_with_checks([AutogradBackend], dtypes=["float64"], expected_failures={})(test).pytestmark
    name, checks = mark.args
    assert (mark.name, name) == ("parametrize", "check")
    assert [check.item.id for check in checks] == [item.id for item in all_items()]
    assert mark.kwargs["ids"] == [check.id for check in checks]
    for check in checks:
        if check.item.check.name in ONLY:
            check()


def test_class_fails_on_a_wrong_backend():
    class Wrong(BackendConformance):
        backend = SummedOutputs
        dtypes = ("float64",)

    calls = {}

    class Metafunc:
        fixturenames = ("conformance_check",)

        def parametrize(self, name, values, ids):
            calls.update(zip(ids, values, strict=True))

    Wrong().pytest_generate_tests(Metafunc())
    calls["SummedOutputs-cpu-float64-check_vjp"]()
    with pytest.raises(CheckFailed, match="the diagonal: off by"):
        calls["SummedOutputs-cpu-float64-check_jacobian_diagonal[affine3]"]()


class ScenarioPlugin:
    def __init__(self, rows):
        self.rows = rows

    @ismcore.hookimpl
    def ismcore_scenarios(self):
        return [row() for row in self.rows]


def scenarios_with(*rows):
    manager = registry().manager
    plugin = ScenarioPlugin(rows)
    manager.register(plugin, "scenario plugin")
    try:
        return all_scenarios.__wrapped__()
    finally:
        manager.unregister(plugin)


def test_a_plugin_s_scenarios_come_after_the_kit_s_own():
    mine = replace(all_scenarios()[0], id="mine")
    assert [row.id for row in scenarios_with(lambda: mine)] == [*(row.id for row in all_scenarios()), "mine"]


@pytest.mark.parametrize("row", [lambda: "a string", lambda: 1 / 0], ids=["no scenario", "raises"])
def test_a_plugin_that_gives_no_scenario_is_named(row):
    with pytest.raises(ismcore.PluginError, match="scenario plugin"):
        scenarios_with(row)

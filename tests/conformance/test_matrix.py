"""The cross-backend matrix, by its own command."""

import json
from functools import partial

import pytest
from truth import READY
from wrong_backends import SummedOutputs

from ismcore.testing import check_backend
from ismcore.testing.matrix import Matrix, main

SOME = ("check_op_value", "check_round_trip", "check_score_equals_numpy", "check_session_gradient")
"""Checks whose cells the matrix is made of here: test_autograd.py, test_torch.py and test_jax.py run all there are."""


@pytest.mark.slow
def test_every_cell_of_every_backend_is_within_its_tolerance(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ismcore.testing.matrix.check_backend", partial(check_backend, only=SOME))
    asked = ["--backends", *READY, "--require", *READY, "--min-cells", str(100 * len(READY))]
    assert main(["--out", str(tmp_path), *asked]) == 0, capsys.readouterr().out
    found = json.loads((tmp_path / "matrix.json").read_text())
    ran = [cell for cell in found["cells"] if cell["status"] != "skipped"]
    assert len(ran) >= 100 * len(READY)
    assert all(cell["error"] is None or cell["error"] <= 1.0 for cell in ran)
    columns = {(cell["backend"], cell["dtype"]) for cell in ran if cell["device"] == "cpu"}
    assert {cell["check"] for cell in ran} == set(SOME)
    assert columns == {(name, dtype) for name in READY for dtype in ("float32", "float64")}
    for gap in found["pairwise"]:
        assert max(gap["loss"], gap["gradient"]) < (1e-11 if gap["dtype"] == "float64" else 2e-5)
    table = (tmp_path / "matrix.md").read_text()
    assert "| check | " in table
    assert "FAILED" not in table


@pytest.fixture
def wrong():
    """A matrix of one column that fails, and of one that did not run."""
    report = check_backend(SummedOutputs, only=["check_jacobian_diagonal", "check_jvp"])
    return Matrix((report,), {"torch": "needs torch"}, ())


def test_failed_cell_fails_the_run_and_shows(wrong):
    assert any("check_jacobian_diagonal[affine3]" in fault for fault in wrong.faults(0, []))
    assert "| check_jacobian_diagonal | FAILED |" in wrong.to_markdown()
    assert "| check_jvp | ok |" in wrong.to_markdown()


def test_missing_required_backend_fails_the_run_and_says_why(wrong):
    assert "torch did not run: needs torch" in wrong.faults(0, ["torch"])
    assert "- torch did not run: needs torch" in wrong.to_markdown()


def test_too_few_cells_fail_the_run(wrong):
    assert wrong.cells == len(wrong.reports[0].rows)
    assert f"only {wrong.cells} cells ran, fewer than 300" in wrong.faults(300, [])

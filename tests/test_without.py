"""A run of this suite without a framework skips what fails for that framework, and nothing else, and only where it says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WHOLE = "import nowhere_at_all\n\ndef test_of_it():\n    pass\n"
PARTS = """
def test_here():
    pass

def test_of_it():
    import nowhere_at_all.part

def test_of_another():
    import neither_here
"""


def run(folder, without):
    """The exit code and the closing line of a run of two small files, beside the conftest.py of all tests."""
    (folder / "test_whole.py").write_text(WHOLE)
    (folder / "test_parts.py").write_text(PARTS)
    shutil.copy(ROOT / "conftest.py", folder)
    alone = ["-n", "0", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", "--continue-on-collection-errors"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *alone, folder],
        env={**os.environ, "ISMCORE_TESTS_WITHOUT": without},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.mark.slow
def test_what_needs_a_framework_is_skipped_where_the_run_says_that_it_does_without(tmp_path):
    code, closing = run(tmp_path, "nowhere_at_all")
    assert (code, "1 failed, 1 passed" in closing, "error" in closing) == (1, True, False), closing
    code, closing = run(tmp_path, "")
    assert (code, "2 failed, 1 passed" in closing, "skipped" in closing) == (1, True, False), closing


@pytest.mark.slow
def test_what_is_installed_is_not_done_without(tmp_path):
    code, closing = run(tmp_path, "numpy")
    assert code == 4
    assert closing.startswith("ERROR: ISMCORE_TESTS_WITHOUT names numpy, which is installed")

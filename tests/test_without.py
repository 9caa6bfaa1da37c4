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

def test_of_a_backend():
    from ismcore.errors import BackendMissing
    raise BackendMissing("backend 'some' needs nowhere_at_all: pip install it")

def test_of_another():
    import neither_here

def test_that_fails_in_these_words():
    assert "".split() == ["No module named 'nowhere_at_all'"]

def test_that_fails_afterwards():
    try:
        import nowhere_at_all
    except ImportError:
        assert 1 == 2

def test_that_fails_beside_it():
    try:
        import nowhere_at_all
    finally:
        raise ValueError("a framework is missing, and this is wrong too")
"""
DOCUMENTED = '"""An example.\n\n    >>> import nowhere_at_all\n    >>> nowhere_at_all.f()\n"""\n'
WRONG = '"""An example.\n\n    >>> print("No module named \'nowhere_at_all\'")\n    what it prints\n"""\n'
PAGE = """
```python
import nowhere_at_all
made = 1
```

```python
made + 1
```

```python
assert 1 == 2
```
"""


def run(folder, without):
    """The exit code and the closing line of a run of small files, beside the conftest.py of all tests."""
    for name, text in {"test_whole": WHOLE, "test_parts": PARTS, "documented": DOCUMENTED, "wrong": WRONG}.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "page.md").write_text(PAGE)
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
    assert (code, "6 failed, 1 passed, 7 skipped in" in closing) == (1, True), closing  # a module is collected twice
    code, closing = run(tmp_path, "")
    assert (code, "11 failed, 1 passed, 2 errors in" in closing) == (1, True), closing


@pytest.mark.slow
def test_what_is_installed_is_not_done_without(tmp_path):
    code, closing = run(tmp_path, "numpy")
    assert code == 4
    assert closing.startswith("ERROR: ISMCORE_TESTS_WITHOUT names numpy, which is installed")

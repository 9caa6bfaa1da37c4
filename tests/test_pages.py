"""How the examples of pages run: in any process, in any order, and one alone. How many threads a process of the tests has."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

PAGE = """
```python
first = 1
```

<!--- invisible-code-block: python
second = first + 1
-->

```python
assert (first, second) == (1, 2)
third = second + 1
```

```python
assert third == {third}
```
"""


PRINTS = """
```python
print("about", 1.25, 3)
```

<!--- invisible-code-block: python
pass
-->

```
{shown}
```
"""


def run(folder, *words, page=PAGE, third=3):
    """Summary of a run of the page's examples by the conftest.py of this repository alone."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", folder)
    (folder / "page.md").write_text(page.replace("{third}", str(third)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_examples_of_a_page_find_those_above_wherever_they_run(tmp_path):
    assert "4 passed" in run(tmp_path, "page.md")
    assert "1 passed, 3 deselected" in run(tmp_path, "page.md", "-k", "line:15")
    backwards = [f"page.md::line:{line},column:1" for line in (15, 10, 6, 2)]
    assert "4 passed" in run(tmp_path, *backwards)


@pytest.mark.slow
def test_an_example_that_is_wrong_fails_wherever_it_runs(tmp_path):
    assert "1 failed, 3 passed" in run(tmp_path, "page.md", third=4)
    assert "1 failed, 3 deselected" in run(tmp_path, "page.md", "-k", "line:15", third=4)


ROOT = Path(__file__).parents[1]


def missing_files(text):
    """Names in code quotes of no file or folder of the repository, of ismcore/, or of a place that the line names before."""
    missing = []
    for line in text.splitlines():
        folders = [ROOT, ROOT / "ismcore"]
        for name in re.findall(r"`([\w.*/]*(?:/[\w.*]*|\.py|\.md|\.toml))`", line):
            found = [path for folder in folders for path in folder.glob(name)]
            folders += [each for path in found for each in (path, path.parent)]
            missing += [] if found else [name]
    return missing


def test_the_walk_names_files_that_are_there():
    assert missing_files((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")) == []
    assert missing_files("`fitting/fit.py`, `hints.py`, `reprobe.py`, `backends/ismcore_*/`, `shelf/`") == [
        "reprobe.py",
        "shelf/",
    ]


def test_what_a_page_shows_is_what_its_examples_print(tmp_path):
    right = ["about 1.26\n3", "about 1.25 3"]
    wrong = ["about 1.29 3", "about 1.25 4", "near 1.25 3", "about 1.25"]
    page = "".join(PRINTS.format(shown=shown) for shown in right + wrong)
    assert "4 failed, 8 passed" in run(tmp_path, page=page)


def test_the_tests_compute_on_one_thread_a_process_unless_told_otherwise():
    np.ones((2, 2)) @ np.ones((2, 2))
    threads = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert threads == [int(os.environ["OMP_NUM_THREADS"])] * len(threads) != []

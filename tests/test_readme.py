"""What README.md claims to print is what its example prints."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
SHOWN = re.search(r"beside it:\n\n```\n(.*?)```", README, re.DOTALL)[1]


def assert_is_shown(printed):
    def numbers(text):
        return np.array(re.findall(r"-?\d+\.\d*", text), dtype=float)

    assert len(numbers(SHOWN)) == 12
    np.testing.assert_allclose(numbers(printed), numbers(SHOWN), atol=0.1 + 1e-9)


@pytest.mark.slow
def test_the_example_prints_what_the_readme_shows_on_every_backend(backend, monkeypatch):
    monkeypatch.setenv("ISMCORE_BACKEND", backend)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(EXAMPLE, {})  # noqa: S102  (our own README)
    assert_is_shown(out.getvalue())


@pytest.mark.slow
def test_the_example_runs_with_what_the_default_install_brings():
    absent = "import sys; sys.modules.update(dict.fromkeys(('jax', 'optax', 'torch', 'scipy', 'sklearn', 'tqdm')))\n"
    command = [sys.executable, "-W", "error", "-c", absent + EXAMPLE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_is_shown(done.stdout)


def test_ci_runs_the_commands_of_the_readme():
    script = (Path(__file__).parents[1] / ".ci" / "run").read_text(encoding="utf-8")
    for extras in re.findall(r"pip install -e ('\S+'(?: -c constraints.txt)?)", README):
        assert f"-e {extras}" in script
    (words,) = re.findall(r"-m pytest\b(.*)", script)
    assert set(words.split()) <= {"--durations=15"}  # which changes nothing of how the tests run

"""What README.md claims to print is what its example prints."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_readme_shows():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    shown = re.search(r"beside it:\n\n```\n(.*?)```", README, re.DOTALL)[1]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})  # noqa: S102  (our own README)

    def numbers(text):
        return np.array(re.findall(r"-?\d+\.\d*", text), dtype=float)

    assert len(numbers(shown)) == 12
    np.testing.assert_allclose(numbers(out.getvalue()), numbers(shown), atol=0.1 + 1e-9)


def test_ci_runs_the_commands_of_the_readme():
    script = (Path(__file__).parents[1] / ".ci" / "run").read_text(encoding="utf-8")
    for extras in re.findall(r"pip install -e ('\S+'(?: -c constraints.txt)?)", README):
        assert f"-e {extras}" in script

"""What an install brings beside the code: a version, links, and types that a user's own checker sees."""

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

import ismcore

SCRIPT = """
import numpy as np

import ismcore
import ismcore_autograd

x = np.zeros((9, 1))
result = ismcore.fit(x, epochs=5, dtype=np.float64, model=ismcore.MLP((4,)))
reveal_type(result)  # ismcore.results.result.FitResult
reveal_type(result.score(x))  # numpy.ndarray
reveal_type(ismcore_autograd.sliced_score_matching)  # def
ismcore.fit([[1.0]], epochs="5")  # incompatible type "str"; expected "int | None"
ismcore.fit(x, epocs=5)  # did you mean "epochs"
ismcore.fit(x, recipe="defualt")  # incompatible type "Literal['defualt']"; expected "Literal['default', 'single', 'reference']"
reveal_type(result.status)  # Literal['early_stopped']
result.scores(x)  # has no attribute "scores"
ismcore.__version__ + 1  # Unsupported operand types
"""


def test_the_version_is_that_of_the_distribution():
    assert ismcore.__version__ == version("ismcore")
    assert re.fullmatch(r"\d+\.\d+\.\d+\w*", ismcore.__version__)


def test_the_distribution_names_its_home():
    links = dict(link.split(", ") for link in metadata("ismcore").get_all("Project-URL"))
    assert {"Homepage", "Documentation", "Issues"} <= links.keys()
    assert all(link.startswith("https://") for link in links.values())


def test_importing_loads_no_framework_and_no_drawing():
    heavy = {"torch", "jax", "optax", "autograd", "matplotlib", "scipy", "pandas", "sklearn", "tqdm"}
    code = f"import sys, ismcore; ismcore.__version__; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_source_distribution_holds_what_its_tests_read(tmp_path):
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path], cwd=root, check=True)
    (built,) = tmp_path.iterdir()
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    files = {"conftest.py", "constraints.txt", "pyproject.toml", "CITATION.cff", "LICENSE", ".ci/run"}
    files |= {path.name for path in root.glob("*.md")}
    for folder in ("ismcore", "backends", "tests", "docs", "bench"):
        read = [path for path in (root / folder).rglob("*") if path.suffix in (".py", ".md", ".json", ".png", ".ipynb")]
        files |= {path.relative_to(root).as_posix() for path in read if "build" not in path.parts}
    assert files <= held


@pytest.mark.slow
def test_a_user_s_type_checker_sees_the_types_of_the_install(tmp_path):
    """The install is the running one, which README's command made: editable, in two folders."""
    (tmp_path / "user.py").write_text(SCRIPT)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "user.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    said = dict.fromkeys(range(1, SCRIPT.count("\n") + 1), "")
    for number, text in re.findall(r"^user.py:(\d+): (.*)$", done.stdout, re.MULTILINE):
        said[int(number)] += text
    for number, line in enumerate(SCRIPT.splitlines(), 1):
        _, _, expected = line.partition("  # ")
        assert expected in said[number], done.stdout
        assert bool(expected) == bool(said[number]), done.stdout

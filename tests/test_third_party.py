"""Backends by strangers, built, installed and run from wheels, away from this checkout: the README's example, and MLX."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from shelf import shelf_on_path
from truth import golden, relative_error

import ismcore
from ismcore.testing import all_checks

ROOT = Path(__file__).parents[1]
PLUGINS = ROOT / "tests" / "plugins"
EXAMPLE = PLUGINS / "ismcore_tape"
README = (ROOT / "backends" / "README.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```(?:py|toml)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE))


def block(language):
    """The one block of a language that bears no file's name."""
    (text,) = re.findall(rf"(?<!`\n\n)^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return text


def test_the_readme_shows_the_example_whole_and_as_it_is():
    written = {str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*.*") if path.suffix in (".py", ".toml")}
    assert written == FILES.keys()
    for name, text in FILES.items():
        assert text == (EXAMPLE / name).read_text(encoding="utf-8"), f"backends/README.md and tests/plugins differ in {name}"


def test_the_checks_that_the_readme_names_exist():
    named = set(re.findall(r"check_\w+", README)) - {"check_backend"}
    assert len(named) >= 4
    assert named <= {check.name for check in all_checks()}


def used_of_ismcore(source):
    """What a plugin imports from ismcore and its modules, and what it defines in its classes: members of the contract."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "ismcore"]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    members = [node for each in classes for node in each.body]
    names = {node.name for node in members if isinstance(node, ast.FunctionDef)}
    names |= {target.id for node in members if isinstance(node, ast.Assign) for target in node.targets}
    return names | {node.module for node in imports} | {name.name for node in imports for name in node.names}


def test_all_that_the_second_backend_uses_of_ismcore_is_on_the_page():
    used = set()
    for path in (PLUGINS / "ismcore_mlx").rglob("*.py"):
        used |= used_of_ismcore(path.read_text(encoding="utf-8"))
    assert used >= {"ismcore.backend", "Backend", "value_and_grad", "log1p", "dtypes"}
    assert not {name for name in used if not re.search(rf"\b{re.escape(name)}\b", README)}


def run(*command, cwd):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A folder made from the README alone, and the Python of a fresh environment where its wheel, MLX's and ours are installed.

    The environment sees the running one's packages behind its own, but not its editable installs: no .pth file is read there.
    """
    work = tmp_path_factory.mktemp("stranger")
    ours, theirs, mlx, wheels, env = (work / name for name in ("ismcore", "tape", "mlx", "wheels", "env"))
    shutil.copytree(PLUGINS / "ismcore_mlx", mlx, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    shutil.copytree(
        ROOT,
        ours,
        ignore=lambda folder, names: set(names) & {"tests", "docs", "bench", "build"} | {n for n in names if n[0] == "."},
    )
    for name, text in FILES.items():
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / name).write_text(text, encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", wheels, ours, theirs, mlx, cwd=work)
    run(sys.executable, "-m", "venv", "--without-pip", env, cwd=work)
    python = env / "bin" / "python"
    (site,) = env.glob("lib/python*/site-packages")
    (site / "behind.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}) + "\n")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", "--force-reinstall", *wheels.glob("*.whl"), cwd=work)
    return theirs, python, site


@pytest.mark.slow
def test_it_is_the_wheels_that_are_tested(stranger):
    folder, python, site = stranger
    code = "import ismcore, ismcore_mlx, ismcore_tape, json, sys; print(json.dumps([sys.modules[m].__file__ for m in {!r}]))"
    code = code.format(["ismcore", "ismcore_mlx", "ismcore_tape"])
    (folder / "elsewhere").mkdir()
    for file in json.loads(run(python, "-c", code, cwd=folder / "elsewhere")):
        assert Path(file).is_relative_to(site)


def skipped(text, backend, dtype):
    """Why checks of a green report were skipped."""
    counted = re.search(rf"{backend} in {dtype} on cpu: (\d+) checks, (\d+) passed(?:, (\d+) skipped)?;", text)
    assert counted, text
    checks, passed, left = (int(number or 0) for number in counted.groups())
    assert checks > 200
    assert checks == passed + left
    return set(re.findall(r"skipped +- +(.*)", text))


@pytest.mark.slow
def test_the_commands_of_the_readme_are_green(stranger):
    folder, python, _ = stranger
    install, *commands = block("sh").splitlines()
    assert install == "python -m pip install ."
    assert len(commands) == 3
    printed = []
    for command in commands:
        head, *words = shlex.split(command)
        assert head == "python"
        printed.append(run(python, *words, cwd=folder))
    for dtype, text in zip(("float64", "float32"), printed[:2], strict=True):
        assert skipped(text, "tape", dtype) == {"declares no jvp"}
    assert re.search(r"[2-9]\d\d passed", printed[2])


@pytest.mark.slow
def test_the_fit_of_the_readme_is_right(stranger):
    folder, python, _ = stranger
    check = "print(abs(result.params['weight'] + np.linalg.inv(np.cov(x.T, bias=True))).max(), result.backend)"
    error, backend = run(python, "-c", f"{block('py')}{check}", cwd=folder).splitlines()[-1].split()
    assert backend == "tape"
    assert float(error) < 1e-4


MLX = """
import json
import numpy as np
import ismcore

x = np.random.default_rng(0).normal(5.0, 2.0, size=(400, 3))
options = {"model": ismcore.Affine(), "epochs": 300, "recipe": "reference", "standardize": True, "progress": False}
found = ismcore.compare(x, backends=("autograd", "mlx"), **options)
at = ismcore.evaluate(ismcore.Affine(), {"weight": -np.eye(3), "bias": np.zeros(3)}, x, backend="mlx")
weighted = ismcore.fit(x, backend="mlx", epochs=2, sample_weight=np.linspace(0.1, 1.0, 400), progress=False)
(row,) = found.differences
print(json.dumps({
    "dtypes": [result.dtype for result in found.results.values()],
    "loss": row.loss,
    "score": row.score,
    "evaluated": [at.dtype, at.loss, float((0.5 * (x * x).sum(axis=1)).mean() - 3.0)],
    "finite": bool(np.isfinite(weighted.score(x)).all() and np.isfinite(weighted.divergence(x)).all()),
}))
"""


@pytest.mark.slow
def test_a_backend_of_float32_alone_and_of_another_array_library_is_green_and_compared(stranger):
    folder, python, _ = stranger
    assert skipped(run(python, "-m", "ismcore.testing", "mlx", cwd=folder), "mlx", "float32") == set()
    found = json.loads(run(python, "-W", "ignore", "-c", MLX, cwd=folder).splitlines()[-1])
    assert found["dtypes"] == ["float32", "float32"]
    assert found["loss"] < 1e-5
    assert found["score"] < 1e-5
    dtype, loss, expected = found["evaluated"]
    assert dtype == "float32"
    assert abs(loss - expected) < 1e-5 * abs(expected)
    assert found["finite"]


@pytest.fixture
def tape(tmp_path, monkeypatch):
    """The example as if it were installed, in this process."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    with shelf_on_path(tmp_path, monkeypatch) as shelf:
        shelf.announce("ismcore_tape", "tape = ismcore_tape.plugin")
        yield "tape"


@pytest.mark.parametrize("case", golden("energy"), ids=lambda case: case.raw["id"])
def test_three_nested_derivatives(case, tape):
    for name, weight in {"ism": 0.0, "reg0.1": 0.1}.items():
        objective = ismcore.ImplicitScoreMatching(weight, divergence="nested")
        at = ismcore.evaluate(case.model, case.params, case.x, objective, backend=tape)
        assert relative_error(at.loss, case.raw["loss"][name]) < 1e-13
        assert relative_error(at.score, case.score) < 1e-13
        assert relative_error(at.jacobian_diagonal, case.jacobian_diagonal) < 1e-13
        for key, expected in case.gradient(name).items():
            assert relative_error(at.gradient[key], expected) < 1e-12

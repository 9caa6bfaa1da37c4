"""`ismcore new-backend` writes what backends/README.md shows; filled with the tape, it passes the kit."""

import re
from pathlib import Path

import pytest
from shelf import shelf_on_path

import ismcore
from ismcore.cli.main import main
from ismcore.cli.new_backend import files
from ismcore.testing import check_backend

EXAMPLE = Path(__file__).parent / "plugins" / "ismcore_tape"

BODIES = {
    **{name: f"return tape.{name}(x)" for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "erf", "sigmoid")},
    "abs": "return tape.absolute(x)",
    "logaddexp": "return tape.logaddexp(x1, x2)",
    "where": "return tape.where(condition, x1, x2)",
    "sum": "return tape.total(x, axis=axis)",
    "stack": "return tape.stack(arrays, axis=axis)",
    "concat": "return tape.concat(arrays, axis=axis)",
    "reshape": "return tape.reshape(x, shape)",
    "broadcast_to": "return tape.broadcast_to(x, shape)",
    "permute_dims": "return tape.permute_dims(x, axes)",
    "asarray": "return tape.Tensor(np.array(array, dtype=self.dtype))",
    "to_numpy": "return np.array(array.value)",
    "value_and_grad": """
        def both(params, *args):
            copies = {name: tape.copy(value) for name, value in params.items()}
            value = f(copies, *args)
            slopes = tape.pull(value, tape.Tensor(np.ones_like(value.value)), list(copies.values()))
            return value, dict(zip(copies, slopes, strict=True))

        return both""",
    "vjp": """
        here = tape.copy(x)
        psi = f(here)
        return psi, lambda v: tape.pull(psi, v, [here])[0]""",
}
OPEN = re.compile(r"    def (\w+)\(.*\n(?:        \"\"\".*\n)?        raise (NotImplementedError)\n")


def filled(text):
    """The backend's file, with what was left open written."""
    left = set(OPEN.findall(text))
    assert {name for name, _ in left} == BODIES.keys()
    whole = OPEN.sub(lambda found: found[0].replace("raise NotImplementedError", BODIES[found[1]].strip("\n ")), text)
    return whole.replace("import pretend\n", "from ismcore_pretend import tape\n").replace(
        "yield\n", "with np.errstate(all='ignore'):\n            yield\n"
    )


@pytest.fixture
def written(tmp_path, monkeypatch, capsys):
    """The folder that the command writes, as if it were installed."""
    monkeypatch.chdir(tmp_path)
    with shelf_on_path(tmp_path / "ismcore-pretend", monkeypatch) as shelf:
        assert main(["new-backend", "pretend"]) == 0
        said = capsys.readouterr()
        assert said.out.splitlines() == [f"ismcore-pretend/{name}" for name in files("pretend", "pretend")]
        assert "python -m ismcore.testing pretend" in said.err
        shelf.announce("ismcore_pretend", "pretend = ismcore_pretend.plugin")
        yield shelf.folder


def test_what_is_missing_is_said_and_filled_it_passes_the_kit(written):
    (written / "pretend.py").touch()  # the framework
    assert {row.name: row.status for row in ismcore.backends()}["pretend"] == "ready"
    (row,) = check_backend("pretend", only=["check_vjp"]).failures
    assert re.match(r"NotImplementedError: .*\(backend.py:\d+, in asarray\)", row.message)


@pytest.mark.slow
def test_filled_with_the_tape_it_passes_the_kit(written):
    (written / "pretend.py").touch()
    package = written / "ismcore_pretend"
    (package / "tape.py").write_text((EXAMPLE / "ismcore_tape" / "tape.py").read_text())
    (package / "backend.py").write_text(filled((package / "backend.py").read_text()))
    report = check_backend("pretend", dtype="float64")
    assert report.ok, str(report)
    assert report.count("passed") > 200


def test_the_files_are_those_of_the_readme():
    found = files("tape", "numpy")
    for name in ("pyproject.toml", "ismcore_tape/__init__.py", "tests/test_tape.py", "ismcore_tape/plugin.py"):
        text = (
            (EXAMPLE / name)
            .read_text(encoding="utf-8")
            .replace("NumPy with a tape, as", "tape, as")
            .replace("numpy>=2.0", "numpy")
        )
        text = text.replace("NumPy with a tape of about a hundred lines", "tape").replace("The tape", "tape")
        assert found[name] == text
    example = (EXAMPLE / "ismcore_tape" / "backend.py").read_text(encoding="utf-8")
    names = set(re.findall(r"^    def (\w+)|^    (\w+) = staticmethod", example, re.MULTILINE))
    asked = {name for name, _ in OPEN.findall(found["ismcore_tape/backend.py"])}
    assert asked | {"scope"} == {a or b for a, b in names}


def test_one_dtype_is_one_line_in_the_class_and_one_in_its_test():
    found = files("pretend", "pretend", "float32")
    for name in ("ismcore_pretend/backend.py", "tests/test_pretend.py"):
        assert found[name].count('    dtypes = ("float32",)\n') == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jax"], "none of auto, all, none, jax, torch, autograd"),
        (["none"], "none of auto"),
        (["my-tape"], "must be small letters"),
        (["mine", "--framework", "a.b"], "a module without a dot"),
    ],
)
def test_a_name_that_no_backend_can_have_is_refused(words, said, capsys, tmp_path):
    assert main(["new-backend", *words, "--out", str(tmp_path / "new")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_nothing_is_written_over(capsys, tmp_path):
    assert main(["new-backend", "mine", "--out", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err

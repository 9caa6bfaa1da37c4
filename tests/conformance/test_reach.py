"""What the kit reaches of the code that works on a backend: its lines are counted, and those left out have a reason."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import coverage
import pytest
from truth import needs

import ismcore

ROOT = Path(ismcore.__file__).parent
FILES = [*(p for folder in ("analytic", "backend", "models", "objectives") for p in sorted((ROOT / folder).glob("*.py")))]
FILES.append(ROOT / "training" / "loop.py")

ADOPTED = "a framework's own network, which a plugin adopts: tests/test_adoption.py and its neighbours"
REFUSED = "says what is wrong with an argument, before any backend is asked: tests/test_bad_input.py"
WORDS = "words for a person"
SOLVED = "what ismcore.solve asks of an objective: tests/test_solve.py"

FRAMEWORK = "another framework's arrays and dtypes: tests/test_adoption.py, tests/test_trees.py"
DEFAULT = "a default that a backend without this member has: tests/plugins"
NO_BACKEND = "the core's own, in NumPy: no backend is asked"

PAUSED = "runs that pause for each other, of which one may be left: the tests of folds"

LEFT_OUT = {
    "backend/contract.py:as_dtype": FRAMEWORK,
    "backend/contract.py:Backend.scope": DEFAULT,
    "backend/contract.py:Backend.constant": DEFAULT,
    "backend/contract.py:Backend.prepare": DEFAULT,
    "backend/contract.py:Session.follow": DEFAULT,
    "backend/processes.py:others_told": "an error among several processes, which tests/test_processes.py starts",
    "models/activations.py:_sigmoid_jet": "the end of a generator, of which nobody asks more than it has",
    "models/activations.py:get_activation": REFUSED,
    "models/affine.py:Affine.in_units": NO_BACKEND,
    "models/base.py:Model.at_zero": NO_BACKEND,
    "models/base.py:check_params": REFUSED,
    "models/base.py:_listed": REFUSED,
    "models/base.py:Standardized.__eq__": NO_BACKEND,
    "models/base.py:Standardized.from_units": NO_BACKEND,
    "models/base.py:Standardized.__repr__": WORDS,
    "models/base.py:Standardized.portable": NO_BACKEND,
    "models/base.py:Standardized.initial_params": NO_BACKEND,
    "models/combination.py:Combination.__repr__": WORDS,
    "models/conditional.py:as_context": REFUSED,
    "models/conditional.py:NoiseConditional.smooth": NO_BACKEND,
    "models/energy.py:Energy.energy": REFUSED,
    "models/energy.py:Energy.from_units": NO_BACKEND,
    "models/function.py:ScoreFunction.leaves": ADOPTED,
    "models/trees.py:as_array": FRAMEWORK,
    "models/user.py:UserModel.__repr__": WORDS,
    "models/user.py:UserModel.explained": REFUSED,
    "models/user.py:UserModel.checked": REFUSED,
    "models/user.py:takes_rows": ADOPTED,
    "models/user.py:_brief": ADOPTED,
    "objectives/base.py:Objective.inputs": "of an objective that holds no array",
    "objectives/base.py:Objective.title": WORDS,
    "objectives/base.py:Objective.with_curvature_weight": SOLVED,
    "objectives/base.py:Objective.standardized": NO_BACKEND,
    "objectives/denoising.py:NoiseConditionalScoreMatching.standardized": NO_BACKEND,
    "objectives/explicit.py:ExplicitScoreMatching.standardized": NO_BACKEND,
    "objectives/explicit.py:ExplicitScoreMatching.standardized.target_score": NO_BACKEND,
    "objectives/implicit.py:ImplicitScoreMatching.__repr__": WORDS,
    "objectives/implicit.py:ImplicitScoreMatching.standardized": NO_BACKEND,
    "objectives/implicit.py:ImplicitScoreMatching.title": WORDS,
    "objectives/implicit.py:ImplicitScoreMatching.separable": SOLVED,
    "objectives/ladder.py:_ratio": NO_BACKEND,
    "objectives/ladder.py:advice_on_ladder": WORDS,
    "objectives/sliced.py:SlicedScoreMatching.separable": SOLVED,
    "training/loop.py:Loop.begin": PAUSED,
    "training/loop.py:Loop.leave": PAUSED,
}
"""Function, as "folder/file.py:name": why the kit does not reach all of it."""


PROGRAM = """
from ismcore.testing import check_backend
report = check_backend("autograd")
assert report.ok, str(report)
for name in {more!r}:
    report = check_backend("torch", dtype="float32", only=[name])
    assert report.ok, str(report)
"""
MORE = ("check_weighted_divergence", "check_standardised_score")
"""What a backend with operations of its own, a switch of the process, and float32 reaches beside."""


@pytest.fixture(scope="module")
def missing(tmp_path_factory):
    """Lines that a run of the kit does not reach, by file, and the number of all; lines that raise are not counted.

    In a process of its own, as most modules are imported here already, with all their definitions.
    """
    needs("torch")
    folder = tmp_path_factory.mktemp("reach")
    data, program = folder / "coverage", folder / "program.py"
    program.write_text(PROGRAM.format(more=MORE), encoding="utf-8")
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={data}", f"--source={ROOT}", program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    counted = coverage.Coverage(data_file=str(data), config_file=False)
    counted.exclude(r"^\s*raise\b")
    counted.load()
    found = {path: counted.analysis2(str(path)) for path in FILES}
    return {path: lines[3] for path, lines in found.items()}, sum(len(lines[1]) for lines in found.values())


def functions(path):
    """Name and lines of every function and method of a file, the outer before the inner."""

    def walk(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if isinstance(child, ast.FunctionDef):
                    yield name, range(child.lineno, child.end_lineno + 1)
                yield from walk(child, f"{name}.")
            else:
                yield from walk(child, prefix)

    return list(walk(ast.parse(path.read_text(encoding="utf-8")), ""))


def by_function(missing):
    """The lines by function, the innermost that holds them."""
    found = {}
    for path, lines in missing.items():
        spans = functions(path)
        for line in lines:
            holders = [name for name, span in spans if line in span]
            place = f"{path.parent.name}/{path.name}:{holders[-1] if holders else ''}"
            found.setdefault(place, []).append(line)
    return found


@pytest.mark.slow
def test_the_kit_reaches_97_of_100_lines_and_the_rest_has_reasons(missing):
    lines, count = missing
    left = by_function(lines)
    assert set(left) - set(LEFT_OUT) == set(), {place: left[place] for place in set(left) - set(LEFT_OUT)}
    assert set(LEFT_OUT) - set(left) == set(), "these are reached by now: take them off the list"
    share = 1.0 - sum(map(len, left.values())) / count
    assert share >= 0.97, f"{share:.1%} of {count} lines"

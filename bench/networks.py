"""Networks as people write them, against Jacobians row by row: each is exact or refused. Writes the table of docs/networks.md.

    python bench/networks.py                  # all of them, and the table
    python bench/networks.py torch            # those of one framework, printed
    python bench/networks.py torch lstm       # those whose name has that word

The networks of a framework are in `bench/networks_<framework>.py`, which holds six names:

    CASES       a tuple of `Case`
    made        (make) -> what `Case.make` makes, always with the same random weights
    right       (model, x) -> loss, gradient by name, Jacobian diagonal: by Jacobians of one row after the other, or differences
    own_loss    (model, x) -> loss, gradient by name: by the framework's `implicit_score_matching` in a loop of one's own
    parameters  (model) -> what it starts from, by name
    called      (native, x) -> what comes of `result.native()`, (n, d) or (n,)

x is a float64 array, (n, d); what comes back is NumPy. Names are those of `FitResult.params`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import ismcore

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
FRAMEWORKS = ("torch", "jax")
NEAR = 1e-8
"""Largest error of an exact one, relative to the size of what is compared, in float64."""
RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """A network, or a situation.

    Attributes:
        family: The row of the table that it belongs to, such as "attention".
        name: What it is.
        make: Makes what is passed to `fit` and `evaluate`: a network with its own random weights, or one inside of `Energy`.
        expected: "exact", or "refused: " and words that the message of the ModelError has.
        d: Columns of the samples.
        near: Largest error of an exact one; larger only where the network itself computes in float32.
        own_loop: Whether the loss for one's own loop is compared too.
        needs: A package without which it is left out.
        options: More arguments of `fit`.
    """

    family: str
    name: str
    make: Callable[[], Any]
    expected: str = "exact"
    d: int = 3
    near: float = NEAR
    own_loop: bool = True
    needs: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def samples(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(n, d)) * 1.2 + 0.3


def judge(case: Case, framework: Any) -> str:
    """What became of it: "exact", "refused: " and the message, or what is off and by how much."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            errors = _errors(case, framework, samples(6, case.d))
    except ismcore.ModelError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"raw {type(error).__name__}: {str(error)[:200]}"
    wrong = {route: error for route, error in errors.items() if not error <= case.near}
    return "exact" if not wrong else f"off: {', '.join(f'{route} by {error:.1e}' for route, error in wrong.items())}"


def _errors(case: Case, framework: Any, x: np.ndarray) -> dict[str, float]:
    """The relative error of each route; the network is evaluated first, and again last, when nothing may have changed."""
    model = framework.made(case.make)
    plain = {"progress": False, "objective": ismcore.ImplicitScoreMatching(), **case.options}
    trained = ismcore.fit(samples(40, case.d), model=model, epochs=2, standardize=False, seed=3, **plain)
    at = ismcore.evaluate(model, None, x)
    once = ismcore.fit(
        x, model=model, epochs=1, optimizer=ismcore.SGD(RATE, momentum=0.0), recipe="reference", dtype="float64", **plain
    )
    loss, gradient, diagonal = framework.right(framework.made(case.make), x)
    assert set(at.gradient) == set(gradient), f"names {sorted(at.gradient)}, right {sorted(gradient)}"
    size = max(1.0, abs(loss), *(float(np.abs(g).max()) for g in gradient.values()))
    start = ismcore.evaluate(model, None, x).gradient
    errors = {
        "evaluate's loss": abs(at.loss - loss) / size,
        "evaluate's gradient": _gap(at.gradient, gradient) / size,
        "the Jacobian": float(np.abs(at.jacobian_diagonal - diagonal).max() / max(1.0, np.abs(diagonal).max())),
        "fit's loss": abs(float(once.history["loss"][0]) - loss) / size,
        "fit's gradient": _step_gap(once.params, framework.parameters(framework.made(case.make)), gradient) / size,
        "the caller's network": _gap(start, at.gradient) / size,
    }
    native, score = framework.called(trained.native(), x.astype(np.float32)), trained.score(x.astype(np.float32))
    if native.shape == score.shape:  # an energy comes back as an energy
        errors["native()"] = 1e-6 * float(np.abs(native - score).max() / (1e-3 * max(1.0, np.abs(score).max())))
    if case.own_loop:
        loss_there, gradient_there = framework.own_loss(framework.made(case.make), x)
        errors["one's own loop"] = max(abs(loss_there - loss), _gap(gradient_there, gradient)) / size
    return errors


def _gap(found: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(np.asarray(found[name]) - right[name]).max()) for name in right)


def _step_gap(params: dict[str, np.ndarray], before: dict[str, np.ndarray], gradient: dict[str, np.ndarray]) -> float:
    """The error of the gradient that one step of rate RATE took."""
    return max(float(np.abs((before[name] - params[name]) / RATE - g).max()) for name, g in gradient.items())


def as_expected(case: Case, found: str) -> bool:
    if case.expected == "exact":
        return found == "exact"
    return found.startswith("refused: ") and case.expected.removeprefix("refused: ") in found


def installed(case: Case) -> bool:
    try:
        return not case.needs or bool(import_module(case.needs))
    except ImportError:
        return False


def chosen(framework: Any, words: list[str]) -> list[Case]:
    return [case for case in framework.CASES if all(word in f"{case.family} {case.name}" for word in words)]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Judge the networks, print each, and write the table of a framework of which all were judged as expected."""
    names, words = sys.argv[1:2] or [name for name in FRAMEWORKS if find_spec(f"networks_{name}")], sys.argv[2:]
    missed = 0
    for name in names:
        framework = import_module(f"networks_{name}")
        rows, wrong = [], 0
        for case in chosen(framework, words):
            if not installed(case):
                say(f"{'not here':9} {name:6} {case.family}: {case.name} (no {case.needs})")
                continue
            found = judge(case, framework)
            good = as_expected(case, found)
            wrong += not good
            rows.append((case, found))
            say(f"{'' if good else 'WRONG':9} {name:6} {case.family}: {case.name}: {found[:300]}")
        say(f"{len(rows)} networks of {name}, {wrong} not as expected")
        missed += wrong
        if not words and not wrong:
            _write(name, rows)
    return 1 if missed else 0


def _write(framework: str, rows: list[tuple[Case, str]]) -> None:
    """The table of a framework's networks, a line for each family and verdict."""
    lines: dict[tuple[str, str], list[str]] = {}
    for case, found in rows:
        verdict = "exact" if found == "exact" else f"refused: {case.expected.removeprefix('refused: ')}"
        lines.setdefault((case.family, verdict), []).append(case.name)
    exact = sum(found == "exact" for _, found in rows)
    table = [f"{exact} networks are exact, and {len(rows) - exact} are refused, by a message with these words:", ""]
    table += ["| kind | networks | verdict |", "|---|---|---|"]
    table += [f"| {kind} | {'; '.join(names)} | {verdict} |" for (kind, verdict), names in lines.items()]
    begin, end = f"<!-- networks of {framework}, by bench/networks.py -->", f"<!-- end of {framework} -->"
    text = PAGE.read_text()
    before, rest = text.split(begin)
    PAGE.write_text(before + begin + "\n\n" + "\n".join(table) + "\n\n" + end + rest.split(end)[1])


if __name__ == "__main__":
    sys.exit(main())

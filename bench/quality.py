"""How good the score is that `ismcore.fit(x)` gives: on laws with an exact score, and on real tables. Writes docs/quality.md.

    python bench/quality.py                                  # all cells, 5 samples of each: hours on one core
    python bench/quality.py --samples 1 --cells "banana/200" "normal 5/200"
    python bench/quality.py --recipes default single --backends jax --parts laws
    python bench/quality.py --parts                          # the page alone, from bench/reports/quality.json

What is measured is added to bench/reports/quality.json, and what is there already is not measured again unless --again is
given, so that a run that was ended goes on, and a run in parts makes one page.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from estimators import RIVALS
from laws import CELLS, SECOND_CELLS, draw, relative_error
from measuring import machine, versions
from quality_page import write_page
from tables import key, reference_runs, table_runs

import ismcore
from ismcore.fitting.recipes import RECIPES

FOUND = Path(__file__).parent / "reports" / "quality.json"
BACKENDS = ("autograd", "torch", "jax")
PARTS = ("laws", "tables", "reference", "backends", "rows")
MANY = ("ring", 1_000_000)
MANY_EPOCHS, MANY_ROUNDS = 20, 2


def law_runs(cells, samples: int, recipes, backends, known, rivals):
    """One estimate of one sample of one cell at a time: its error at fresh rows, and its seconds of the processor."""
    for sample in range(samples):
        for name, n in cells:
            x, _, y, s = draw(name, n, sample)
            tasks = [(rival, "") for rival in rivals] + [(recipe, backend) for backend in backends for recipe in recipes]
            for estimator, backend in tasks:
                about = key("laws", f"{name}/{n}", sample, estimator, backend)
                if tuple(about.values()) not in known:
                    start = time.process_time()
                    psi = score_by(estimator, backend, x, sample)(y)
                    yield about | {"error": relative_error(psi, s), "seconds": time.process_time() - start}


def backend_runs(cells, known):
    """The default in float64 on all backends: error, weights of the candidates, and how far the score is from the first's.

    That is the largest difference at fresh rows, over the root of E|score|^2 / d.
    """
    for name, n in cells:
        x, _, y, s = draw(name, n, 0)
        first = None
        if all(tuple(key("backends", f"{name}/{n}", 0, "default", backend).values()) in known for backend in BACKENDS):
            continue
        for backend in BACKENDS:
            about = key("backends", f"{name}/{n}", 0, "default", backend)
            result = ismcore.fit(x, backend=backend, dtype="float64", progress=False)
            psi = result.score(y)
            first = psi if first is None else first
            apart = float(np.max(np.abs(psi - first)) / np.sqrt(np.mean(s * s)))
            weights = {row["name"]: row["weight"] for row in result.candidates}
            yield about | {"error": relative_error(psi, s), "weights": weights, "apart": apart}


def many_rows_runs(backends, known):
    """Seconds of the processor that the default and `single` take on a million rows, by turns; nothing is judged."""
    name, n = MANY
    x = draw(name, n, 0)[0]
    for backend in backends:
        options = {"backend": backend, "progress": False}
        for number in range(MANY_ROUNDS):
            for recipe in ("single", "default"):
                about = key("rows", f"{name}/{n}", number, recipe, backend)
                if tuple(about.values()) not in known:
                    start = time.process_time()
                    ismcore.fit(x, recipe=recipe, epochs=MANY_EPOCHS, **options)
                    yield about | {"seconds": time.process_time() - start}


def score_by(estimator: str, backend: str, x, seed: int):
    """The score that a rival, or a fit by a recipe of that name, gives from rows x."""
    if not backend:
        return RIVALS[estimator](x)
    return ismcore.fit(x, backend=backend, recipe=estimator, seed=seed, progress=False).score


KEY = ("part", "cell", "sample", "estimator", "backend")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--samples", type=int, default=5, help="samples of each cell, and seeds on the reference sample and tables"
    )
    parser.add_argument("--cells", nargs="+", help="some cells, such as banana/200; all of both sets if left out")
    parser.add_argument(
        "--recipes", nargs="+", choices=list(RECIPES), default=[name for name in RECIPES if name != "reference"]
    )
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=["jax"], help="of all parts but `backends`")
    parser.add_argument("--rivals", nargs="*", choices=list(RIVALS), default=list(RIVALS))
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--again", action="store_true", help="measure what is in the report already, too")
    return parser.parse_args()


def main() -> None:
    """Measure, add to the figures, and write the page."""
    options = parse()
    warnings.simplefilter("ignore", ismcore.IsmWarning)
    cells = [cell for cell in (*CELLS, *SECOND_CELLS) if options.cells is None or f"{cell[0]}/{cell[1]}" in options.cells]
    found = json.loads(FOUND.read_text()) if FOUND.exists() else {"runs": []}
    runs = {tuple(run[name] for name in KEY): run for run in found["runs"]}
    known = set() if options.again else set(runs)
    about = (options.samples, options.recipes, options.backends, known)
    measured = {
        "laws": lambda: law_runs(cells, *about, options.rivals),
        "tables": lambda: table_runs(*about),
        "reference": lambda: reference_runs(*about),
        "backends": lambda: backend_runs(cells, known),
        "rows": lambda: many_rows_runs(options.backends, known),
    }
    for part in options.parts:
        for run in measured[part]():
            runs[tuple(run[name] for name in KEY)] = run
            sys.stdout.write(f"{json.dumps(run)}\n")
            sys.stdout.flush()
            found = {"machine": machine(), "versions": versions(), "runs": list(runs.values())}
            FOUND.write_text(json.dumps(found, indent=1) + "\n")
    write_page(list(runs.values()), found.get("machine", {}))


if __name__ == "__main__":
    main()

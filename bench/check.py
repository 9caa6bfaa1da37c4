"""How often `FitResult.check` is right and wrong: fits of known error, the level of its bound, its power. Writes docs/check.md.

    python bench/check.py                      # all of it: an hour on one core, without JAX
    python bench/check.py --samples 1 --draws 200 --pool 20000
    python bench/check.py --set first          # the laws on which the limits were chosen; writes no page

The limits were chosen on the laws of `laws.LAWS`; what the page reports is on `laws.SECOND`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
from diagnose import wilson
from laws import CELLS, SECOND_CELLS, Law, draw, law_of, mixture, relative_error

import ismcore
from ismcore.judging.certificate import Derivatives, gaps
from ismcore.judging.competitors import competitors_at, derivatives_of
from ismcore.samples.checks import Standardizer

PAGE = Path(__file__).parents[1] / "docs" / "check.md"
FOUND = Path(__file__).parent / "reports" / "check.json"
ROWS = 500
"""Rows that the fit has not seen, in each check."""
BAD, GOOD = 0.25, 0.15
BEATEN = 2.0
"""Standard errors by which a named competitor is better, on the rows of the check."""
MISSPECIFIED = {
    "affine": {"model": ismcore.Affine()},
    "five epochs": {"epochs": 5, "patience": 0},
    "three units": {"model": ismcore.MLP((3,), "tanh")},
    "nothing held out": {"validation": 0, "epochs": 400},
    "denoising at 0.5": {"objective": ismcore.DenoisingScoreMatching(0.5)},
    "energy": {"model": ismcore.Energy(ismcore.MLP((64,)))},
}
DRAWN = (100, 250, 500, 1000, 2000)
"""Numbers of rows of the power table."""


def fits_of(name: str, n: int, seed: int, recipes: tuple[str, ...]):
    """Every fit to a sample of a cell, with what its check says and its error at fresh rows."""
    x, out, y, s = draw(name, n, seed, held_out=ROWS)
    kinds = {recipe: {"recipe": recipe} for recipe in recipes} | MISSPECIFIED
    for kind, options in kinds.items():
        result = ismcore.fit(x, backend="autograd", seed=seed, progress=False, **options)
        found = result.check(out, train=x)
        yield {
            "law": name,
            "n": n,
            "sample": seed,
            "fit": kind,
            "error": relative_error(result.score(y), s),
            "normal law": normal_error(x, y, s),
            "warned": len(result.warnings),
            **found.to_dict(),
        }


def normal_error(x, y, s):
    return relative_error(-(y - x.mean(axis=0)) @ np.linalg.inv(np.atleast_2d(np.cov(x.T))), s)


def all_fits(cells, samples: int, recipes):
    found = []
    for name, n in cells:
        for seed in range(samples):
            found += fits_of(name, n, seed, recipes)
            sys.stdout.write(f"{name}/{n} sample {seed}: {[(f['fit'], round(f['error'], 3), f['verdict']) for f in found[-7:]]}\n")
            sys.stdout.flush()
    return found


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=5, help="samples of each cell")
    parser.add_argument("--set", choices=("first", "second"), default="second")
    parser.add_argument("--recipes", nargs="+", default=("default",))
    parser.add_argument("--out", type=Path, default=FOUND)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ismcore.IsmWarning)
    cells = SECOND_CELLS if options.set == "second" else [cell for cell in CELLS if cell[1] <= 1000 and cell[0] != "ring in 50"]
    options.out.write_text(json.dumps(all_fits(cells, options.samples, options.recipes), indent=1))


if __name__ == "__main__":
    main()

"""How often `FitResult.check` is right and wrong: fits of known error, the level of its bound, its power. Writes docs/check.md.

    python bench/check.py                      # all of it: an hour on one core, without JAX
    python bench/check.py --samples 1 --draws 200 --pool 20000
    python bench/check.py --set first          # the laws on which the limits were chosen; writes no page

The limits were chosen on the laws of `laws.LAWS`; what the page reports is on `laws.SECOND`.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from diagnose import wilson
from error_bars import coverage_table, coverages
from laws import CELLS, SECOND_CELLS, Law, draw, law_of, mixture, relative_error

import ismcore
from ismcore.coordinates import Coordinates
from ismcore.judging import competitors
from ismcore.judging.certificate import Derivatives, gaps
from ismcore.judging.competitors import competitors_at, derivatives_of
from ismcore.targets import fit_mixture

PAGE = Path(__file__).parents[1] / "docs" / "check.md"
FOUND = Path(__file__).parent / "reports" / "check.json"
ROWS = 500
"""Rows that the fit has not seen, in each check."""
BLOCK = 25_000
"""So many rows of a pool are evaluated at once."""
STEP = 1e-4
"""Of central differences, in standard deviations of the columns."""
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
PARTS = ("fits", "level", "power", "coverage")
DRAWN = (100, 250, 500, 1000, 2000)
"""Numbers of rows of the power table."""


def fits_of(name: str, n: int, seed: int, recipes: tuple[str, ...], backend: str):
    """Every fit to a sample of a cell, with what its check says and its error at fresh rows."""
    x, out, y, s = draw(name, n, seed, held_out=ROWS)
    kinds = {recipe: {"recipe": recipe} for recipe in recipes} | MISSPECIFIED
    for kind, options in kinds.items():
        result = ismcore.fit(x, backend=backend, seed=seed, progress=False, **options)
        found = result.check(out, train=x)
        yield {
            "law": name,
            "n": n,
            "sample": seed,
            "fit": kind,
            "error": relative_error(result.score(y), s),
            "competitors": competitor_errors(x, y, s),
            "warned": len(result.warnings),
            **figures_of(found),
        }


def figures_of(found: ismcore.Check) -> dict:
    """What the tables need of a check."""
    lines = [{"name": line.name, "statistic": line.statistic, "limit": line.limit, "fault": line.fault} for line in found.lines]
    return {"verdict": found.verdict, "at_least_share": found.at_least_share, "lines": lines}


@lru_cache(maxsize=4)
def mixture_of(rows: bytes, n: int, fewest: int):
    return fit_mixture(np.frombuffer(rows).reshape(n, -1), fewest)


def remember_mixtures() -> None:
    """Fit one mixture to the rows of each sample, not one for each check."""
    competitors.fit_mixture = lambda x, fewest=2, weight=None: mixture_of(np.ascontiguousarray(x).tobytes(), len(x), fewest)


def competitor_errors(x, y, s) -> dict[str, float]:
    """Errors at fresh rows y of the competitors fitted to x, in standardised coordinates."""
    units = Coordinates.standardizing(x)
    return {name: relative_error(at.psi, s * units.scale) for name, at in competitors_at(y, x, units).items()}


def all_fits(cells, samples: int, recipes, backend: str):
    """The fits so far, after each sample of a cell."""
    found = []
    for seed in range(samples):
        for name, n in cells:
            found += fits_of(name, n, seed, recipes, backend)
            last = [(f["fit"], round(f["error"], 3), f["verdict"]) for f in found if (f["law"], f["sample"]) == (name, seed)]
            sys.stdout.write(f"{name}/{n} sample {seed}: {last}\n")
            sys.stdout.flush()
            yield found


def section_law(d: int) -> Law:
    """0.3 and 0.7 at -2 and 2 in the first column, variances 1 and 0.6: the mixture is a competitor of the right family."""
    means = np.zeros((2, d))
    means[:, 0] = -2.0, 2.0
    return mixture([0.3, 0.7], means, [1.0, 0.6])


LEVELS: dict[str, tuple[int, Law]] = {f"two modes, d = {d}": (d, section_law(d)) for d in (1, 2, 5, 10)}
TAILS: dict[str, tuple[int, Law]] = {"t with 5 degrees, d = 5": (5, law_of("t5 in 5")), "Gumbel, d = 1": (1, law_of("Gumbel"))}


def pool_of(law: Law, result, train, rows: int, rng):
    """Derivatives of the fit, of its competitors and of the score itself at many rows; the latter's by central differences."""
    x, units = law.sample(rows, rng), Coordinates.standardizing(train)
    parts = [x[start : start + BLOCK] for start in range(0, rows, BLOCK)]
    fits = [derivatives_of(result, part, units) for part in parts]
    others = [competitors_at(part, train, units) for part in parts]
    shifts = STEP * np.diag(units.scale)
    slopes = sum((law.score(x + e) - law.score(x - e))[:, i] * units.scale[i] for i, e in enumerate(shifts)) / (2.0 * STEP)
    score = Derivatives(law.score(x) * units.scale, slopes)
    joined = {name: joined_of([other[name] for other in others]) for name in others[0]}
    return joined_of(fits), joined, score


def joined_of(parts) -> Derivatives:
    return Derivatives(np.vstack([p.psi for p in parts]), np.concatenate([p.divergence for p in parts]))


def taken(at: Derivatives, rows) -> Derivatives:
    return Derivatives(at.psi[rows], at.divergence[rows])


def drawn_bounds(fit, others, m: int, draws: int, rng) -> np.ndarray:
    """The best bound of each draw of m rows, (draws,)."""
    labels, found = np.arange(m), []
    for _ in range(draws):
        rows = rng.choice(len(fit.psi), m, replace=False)
        found.append(max(gap.bound for gap in gaps(taken(fit, rows), {k: taken(o, rows) for k, o in others.items()}, labels)))
    return np.array(found)


def level_of(name: str, d: int, law: Law, draws: int, pool: int) -> dict:
    """How often the bound of a fit to 1000 rows exceeds its divergence, over draws of 500 rows."""
    rng = np.random.default_rng([7, *name.encode()])
    train = law.sample(1000, rng)
    result = ismcore.fit(train, backend="autograd", progress=False)
    fit, others, score = pool_of(law, result, train, pool, rng)
    truth = float(np.mean(np.sum((fit.psi - score.psi) ** 2, axis=1)))
    bounds = drawn_bounds(fit, others, ROWS, draws, rng)
    nominal = drawn_bounds(fit, {"score": score}, ROWS, draws, rng)
    exact = 2.0 * float(np.mean(fit.terms - score.terms))  # of the pool's rows, which are all that is drawn from
    alarms = drawn_bounds(score, others, ROWS, draws, rng)
    share = truth / float(np.mean(np.sum(score.psi**2, axis=1)))
    return {"law": name, "d": d, "draws": draws, "over": int(np.sum(bounds > truth)), "found": int(np.sum(bounds > 0.0)),
            "nominal": int(np.sum(nominal > exact)), "alarms": int(np.sum(alarms > 0.0)),
            "median": float(np.median(bounds)), "truth": truth, "share": share}  # fmt: skip


def power_of(name: str, n: int, draws: int, pool: int) -> dict:
    """How often a fit to n rows of a law is found wrong, by the number of rows that judge."""
    law, rng = law_of(name), np.random.default_rng([8, n, *name.encode()])
    train = law.sample(n, rng)
    result = ismcore.fit(train, backend="autograd", progress=False)
    fit, others, score = pool_of(law, result, train, pool, rng)
    error = relative_error(fit.psi, score.psi)
    hits = {str(m): int(np.sum(drawn_bounds(fit, others, m, draws, rng) > 0.0)) for m in DRAWN}
    return {"law": name, "n": n, "error": error, "draws": draws, "hits": hits,
            "competitors": {k: relative_error(o.psi, score.psi) for k, o in others.items()}}  # fmt: skip


def classes(fits: list[dict]) -> dict[str, list[dict]]:
    """Fits by what is true of them."""
    bad = [f for f in fits if f["error"] > BAD]
    beaten = [f for f in bad if any(line["statistic"] > BEATEN for line in f["lines"] if line["name"] in f["competitors"])]
    half = [f for f in bad if min(f["competitors"].values()) < 0.5 * f["error"]]
    return {
        f"error above {BAD}, and a named competitor better by {BEATEN:g} standard errors on the rows": beaten,
        f"error above {BAD}, and a named competitor's error less than half of it": half,
        f"error above {BAD}, any": bad,
        f"error {GOOD} to {BAD}": [f for f in fits if GOOD <= f["error"] <= BAD],
        f"error below {GOOD}": [f for f in fits if f["error"] < GOOD],
        f"error below {GOOD}, and no competitor's error less than half of it": [
            f for f in fits if f["error"] < GOOD and min(f["competitors"].values()) >= 0.5 * f["error"]
        ],
        "error below 0.05": [f for f in fits if f["error"] < 0.05],
    }


def fits_table(fits: list[dict]) -> str:
    lines = [
        "| fits | how many | fault found, % | no fault found | cannot tell | warned of by the fit, % |",
        "|---|---|---|---|---|---|",
    ]
    for name, some in classes(fits).items():
        if not some:
            continue
        count = {word: sum(f["verdict"] == word for f in some) for word in ("fault found", "no fault found", "cannot tell")}
        warned = wilson(sum(f["warned"] > 0 for f in some), len(some))
        flagged = wilson(count["fault found"], len(some))
        lines.append(f"| {name} | {len(some)} | {flagged} | {count['no fault found']} | {count['cannot tell']} | {warned} |")
    return "\n".join(lines)


def bound_words(fits: list[dict]) -> str:
    """How the bound compares with the error, over the fits that have one."""
    bounded = [f for f in fits if f["at_least_share"]]
    ratios = sorted(f["at_least_share"] / f["error"] for f in bounded)
    over = sum(ratio > 1.0 for ratio in ratios)
    middle = ratios[len(ratios) // 2] if ratios else 0.0
    return f"{len(bounded)} fits have a bound: in the median {middle:.2f} of their error, above it in {over}."


def reasons_table(fits: list[dict]) -> str:
    """Which lines found a fault, in fits with a large error and a small one."""
    lines = [f"| line | error above {BAD} | error below {GOOD} |", "|---|---|---|"]
    groups = [[f for f in fits if f["error"] > BAD], [f for f in fits if f["error"] < GOOD]]
    names = dict.fromkeys(
        kind_of(line["name"]) for f in fits for line in f["lines"] if line["limit"] is not None or line["fault"]
    )
    for name in names:
        hits = [
            sum(any(kind_of(line["name"]) == name and line["fault"] for line in f["lines"]) for f in some) for some in groups
        ]
        lines.append(f"| {name} | {hits[0]} of {len(groups[0])} | {hits[1]} of {len(groups[1])} |")
    return "\n".join(lines)


def kind_of(name: str) -> str:
    return "mixture" if name.startswith("mixture of") else name


def level_table(levels: list[dict]) -> str:
    lines = [
        "| law | draws | bound above the truth, % | the same by the score as competitor | score found wrong, % "
        "| fit found wrong, % | true share of E\\|score\\|^2 | median bound over it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for f in levels:
        rates = " | ".join(wilson(f[name], f["draws"]) for name in ("over", "nominal", "alarms", "found"))
        lines.append(f"| {f['law']} | {f['draws']} | {rates} | {f['share']:.3g} | {max(f['median'], 0.0) / f['truth']:.2f} |")
    named = [f for f in levels if f["law"] in LEVELS]
    pooled = wilson(sum(f["over"] for f in named), sum(f["draws"] for f in named))
    return "\n".join(
        [*lines, f"| **the first {len(named)} pooled** | {sum(f['draws'] for f in named)} | **{pooled}** | | | | | |"]
    )


def power_table(powers: list[dict]) -> str:
    head = " | ".join(f"{m} rows" for m in DRAWN)
    lines = [
        f"| law, rows of the fit | error of the fit | least error of a competitor | {head} |",
        "|---|---|---|" + "---|" * len(DRAWN),
    ]
    for f in powers:
        name, error = min(f["competitors"].items(), key=lambda pair: pair[1])
        hits = " | ".join(wilson(f["hits"][str(m)], f["draws"]) for m in DRAWN)
        lines.append(f"| {f['law']}, {f['n']} | {f['error']:.3f} | {error:.3f} ({name}) | {hits} |")
    return "\n".join(lines)


TEXT = """# How often `result.check` is right

Made by `python bench/check.py`. `result.check(x_new)` looks for evidence against a fit, on rows that it has not seen. Its core
is a lower bound of the unknown Fisher divergence,

    E|psi - score|^2 >= 2 (mean g - q sd(g) / sqrt m),
    g = 1/2 |psi|^2 + div psi - 1/2 |phi|^2 - div phi,

with 95 % confidence, for a competitor phi that has not seen the rows either: a normal law in closed form, a Gaussian mixture
with the number of components by BIC, and whatever fits are given as `competitors=`. All are corrected for together. No other
line has a size. Errors below are E|psi - score|^2 / E|score|^2 at 4000 fresh rows; shares are in per cent, with Wilson's 95 %
interval.

```python
import ismcore

rows = ismcore.datasets.reference_run().target.sample(1500, seed=1)
result = ismcore.fit(rows[:1000], model=ismcore.Affine(), backend="autograd")
found = result.check(rows[1000:], train=rows[:1000])
assert found.verdict == "fault found" and found.at_least_share > 0.5
```

With `train=`, the rows of the fit, all of `x_new` judges; without it, half of `x_new` fits the competitors and the other half
judges. Rows of one group (`groups=`), of one block of a series, and near-copies count together. `fit(x, test=0.25)` sets rows
aside before anything is fitted or chosen; `result.check()` judges by them, with competitors fitted to the rows of the fit.
Without such rows it repeats what the result knows: its held-out rows have chosen its epoch, so they bound nothing, and the
loss of the members of a fit in folds on rows that they have not seen is no bound for their mean, which can be twice as close.

## Fits of known error

{fits}

## The level of the bound

One fit to 1000 rows of each law and its competitors stay as they are, and {rows} fresh rows are drawn many times. The bound may
be above the truth in 5 % of draws. It is in fewer, as the competitors are themselves away from the score, and share the 5 %;
with the score as the only competitor, which no user has, the interval is somewhat short, as the terms lean to the left, and
more so where they have a long tail there, as of the Gumbel law. "Score found wrong" is a bound above 0 where the exact score
is the fit.

{level}

## Its power

Share of draws in which the bound of one fit is above 0, by the number of rows that judge. It is as strong as its competitors:
where they are no better than the fit, no number of rows helps, and the verdict is "cannot tell", or "no fault found" with the
smallest fault that would have been seen beyond a competitor's.

{power}

## Standard errors

`ismcore.bootstrap(x)` fits x, and ten resamples of its rows; `result.standard_error(points)` is the standard deviation of the
score over those. Covered is the share of coordinates of the true score, at 100 fresh rows of each sample, within psi +- 2.26
standard errors (Student's t with 9 degrees), which should be 95 %; fits are by the recipe named. It is less where the fit is
too stiff for the law: its error is then no matter of chance, as the last column shows, the variance over the squared error,
which is 1 without a bias. What is wanted is at least 90 % in five of these cells, of 100 samples each.
`python bench/check.py --parts coverage --samples 100 --backend jax` goes on from what is there: 9 s of a processor a sample.

{coverage}

The spread over seeds of one sample is no error bar: +- 1.96 of it covers 51 % of coordinates in one dimension, 61 % in two, 74
% from five on.

## What is not seen

- Faults that the competitors share; the weights of modes far apart, to which no loss of score matching is sensitive.
- Anything at all where the rows have hard edges, atoms, discrete or dependent columns, or lie in fewer dimensions: a loss on
  held-out rows
  measures nothing there. Hard edges are called a fault of a fit that differentiates in x; the others give "cannot tell".
- That a fit by denoising is the score of the blurred law: it is judged by that of the rows, from which it differs by the blur.
- A fit without fault: no check can show that. The kernel Stein discrepancy is no part of it, as a fit by score matching sets to
  zero the moments that
  it looks at (3 % of bad fits found).
"""

FITS = """{count} fits to laws on which {chosen}, {samples} of each cell, {rows} rows that judge, `train=` given:
by {kinds}. Wanted are at least 90 % of the first line, and at most 10 % of
those with an error below 0.15. A fault is called one from 0.15 of E|score|^2 on, as the rows estimate it.

{table}

{bounds}

Which lines found a fault:

{reasons}
"""


def samples_in_words(count: int) -> str:
    return "one sample" if count == 1 else f"{count} samples"


def fits_words(found: dict) -> str:
    parts = []
    for which, chosen in (("second", "no limit was chosen"), ("first", "the limits were chosen")):
        fits = found.get(f"fits, {which} set")
        if fits:
            about = {
                "count": len(fits),
                "chosen": chosen,
                "samples": samples_in_words(1 + max(f["sample"] for f in fits)),
                "rows": ROWS,
            }
            tables = {"table": fits_table(fits), "bounds": bound_words(fits), "reasons": reasons_table(fits)}
            parts.append(FITS.format(**about, kinds=", ".join(dict.fromkeys(f["fit"] for f in fits)), **tables))
    return "\n".join(parts)


def page(found: dict) -> str:
    tables = {
        "coverage": coverage_table(found.get("coverage", [])),
        "level": level_table(found.get("level", [])),
        "power": power_table(found.get("power", [])),
    }
    return TEXT.format(fits=fits_words(found).strip(), rows=ROWS, **tables)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=5, help="samples of each cell")
    parser.add_argument("--draws", type=int, default=1000, help="draws of rows for the level; a fifth of it for the power")
    parser.add_argument("--pool", type=int, default=100_000, help="rows that they are drawn from")
    parser.add_argument("--set", choices=("first", "second"), default="second")
    parser.add_argument("--recipes", nargs="+", default=("default",))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--backend", default="autograd", help="of the fits; the bootstrap fits of the coverage are quickest in jax"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore", ismcore.IsmWarning)
    remember_mixtures()
    laws = SECOND_CELLS if options.set == "second" else [cell for cell in CELLS if cell[0] != "ring in 50"]
    cells = dict.fromkeys((name, min(n, 1000)) for name, n in laws)
    powered = (*SECOND_CELLS, ("moons", 1000), ("four modes in 10", 1000))
    draws, pool = options.draws, options.pool
    measured = {
        "fits": lambda: all_fits(cells, options.samples, options.recipes, options.backend),
        "level": lambda: so_far(level_of(name, d, law, draws, pool) for name, (d, law) in (LEVELS | TAILS).items()),
        "power": lambda: so_far(power_of(name, n, max(1, draws // 5), pool // 2) for name, n in powered),
        "coverage": lambda: coverages(
            options.samples, options.backend, options.recipes[0], figures_so_far().get("coverage", ())
        ),
    }
    for part in options.parts:
        for figures in measured[part]():
            found = figures_so_far()  # another part may have been added meanwhile
            found[f"fits, {options.set} set" if part == "fits" else part] = figures
            FOUND.write_text(one_line_each(found))
            PAGE.write_text(page(found))


def figures_so_far() -> dict:
    return json.loads(FOUND.read_text()) if FOUND.exists() else {}


def one_line_each(found: dict[str, list[dict]]) -> str:
    """JSON with a line for each fit, law or cell."""
    parts = (f'"{part}": [\n ' + ",\n ".join(map(json.dumps, rows)) + "\n]" for part, rows in found.items())
    return "{\n" + ",\n".join(parts) + "\n}\n"


def so_far(figures):
    """The figures up to each one, so that a run that is ended early leaves what it has."""
    found = []
    for one in figures:
        found.append(one)
        yield found


if __name__ == "__main__":
    main()

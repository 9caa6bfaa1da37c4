"""How good the fits are that `fit` makes when it is told little: tables for docs/quality.md, made by one command.

python bench/quality.py                     # everything, some minutes on two cores
python bench/quality.py --seeds 3 --out /tmp/quality.md
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
from measuring import machine
from sklearn.datasets import load_digits, load_iris

import ismcore
from ismcore.density import fisher_divergence
from ismcore.samples.tables import read_samples

RUN = ismcore.datasets.reference_run()
GRID = np.linspace(-15.0, 15.0, 6001)
HOUSE = Path(__file__).parents[1]
WINE = HOUSE / "tests" / "data" / "winequality-red.csv"
BACKENDS = ("autograd", "torch", "jax")
LAMBDA = 0.1
RECIPE = {
    "model": ismcore.MLP((64,), "sigmoid"),
    "optimizer": ismcore.Adam(0.03),
    "epochs": 500,
    "validation": 0,
}


def on_the_reference_sample(result):
    """Fisher divergence from the target's score, and the mass that the fitted density has left of 0 (exactly: 0.1)."""
    divergence = fisher_divergence(result.score, RUN.target, GRID)
    density = result.density(GRID)
    left = GRID <= 0.0
    return divergence, float(np.trapezoid(density[left], GRID[left]))


def reference_rows(seeds, backends):
    published = ismcore.fit(
        RUN.sample, initial_params=RUN.initial_params, recipe="reference", backend="autograd", dtype="float64"
    )
    divergence, mass = on_the_reference_sample(published)
    yield f"| the published run | autograd | 1 | {divergence:.3f} | {divergence:.3f} | | {mass:.3f} | |"
    tasks = {"`fit(x)`": {}, "`fit(x, epochs=5000)`": {"epochs": 5000}, "the recipe below": RECIPE}
    for name, options in tasks.items():
        for backend in backends:
            start = time.perf_counter()
            fits = [ismcore.fit(RUN.sample, backend=backend, seed=seed, **options) for seed in range(seeds)]
            seconds = (time.perf_counter() - start) / seeds
            found = [on_the_reference_sample(result) for result in fits]
            divergences, masses = ([pair[k] for pair in found] for k in (0, 1))
            good = sum(value <= 0.1 for value in divergences)
            worst, middle, mass = max(divergences), statistics.median(divergences), statistics.median(masses)
            yield (
                f"| {name} | {backend} | {seeds} | {middle:.3f} | {worst:.3f} | {good} of {seeds} | {mass:.3f} | "
                f"{seconds:.1f} |"
            )


def tables():
    """Real tables, (n, d), each with what it is."""
    wine = read_samples(WINE)
    digits = load_digits().data - load_digits().data.mean(axis=0)
    components = digits @ np.linalg.svd(digits, full_matrices=False)[2][:10].T
    return {
        "red wine, 11 measurements": wine[:, :11],
        "red wine, with the grade": wine,
        "iris": load_iris().data,
        "digits, 10 principal components": components,
    }


def split(x):
    """Every tenth row for the test, and both parts z-scored with the training part."""
    test = np.arange(len(x)) % 10 == 0
    mean, scale = x[~test].mean(axis=0), x[~test].std(axis=0)
    return (x[~test] - mean) / scale, (x[test] - mean) / scale


def gaussian_loss(train, test, weight):
    """J_lambda of the test rows under the score -S^-1 (x - m) of the Gaussian fitted to the training rows."""
    mean, precision = train.mean(axis=0), np.linalg.inv(np.cov(train.T, bias=True))
    psi = -(test - mean) @ precision
    diagonal = -np.diag(precision)
    return float((0.5 * (psi**2).sum(axis=1)).mean() + diagonal.sum() + weight * (diagonal**2).sum())


def loss_on(result, test, objective):
    return ismcore.evaluate(result.model, result.params, test, objective, backend="autograd").loss


def table_rows(seeds):
    regularised = ismcore.ImplicitScoreMatching(LAMBDA)
    protocols = {
        "64 tanh units, lambda 0.1": {"model": ismcore.MLP((64,), "tanh"), "objective": regularised},
        "`fit(x)`": {},
        "plain objective": {"objective": ismcore.ImplicitScoreMatching()},
    }
    for name, x in tables().items():
        train, test = split(x)
        size = f"{len(train)}, {x.shape[1]}"
        here, plain = (gaussian_loss(train, test, weight) for weight in (LAMBDA, 0.0))
        yield f"| {name} | {size} | Gaussian, closed form | {here:.2f} | | {plain:.2f} | | |"
        for protocol, options in protocols.items():
            fits = [ismcore.fit(train, backend="jax", seed=seed, **options) for seed in range(seeds)]
            losses = [loss_on(result, test, regularised) for result in fits]
            plain = [loss_on(result, test, ismcore.ImplicitScoreMatching()) for result in fits]
            warned = "atoms" if any("atoms" in text for text in fits[0].warnings) else ""
            weight = fits[0].objective.curvature_weight
            yield (
                f"| | | {protocol} | {statistics.median(losses):.2f} | {max(losses):.2f} | "
                f"{statistics.median(plain):.2f} | {weight:g} | {warned} |"
            )


PAGE = """# How good the fits are

Made by `python bench/quality.py`, {seeds} seeds, {machine}.

## The reference sample

1024 samples of 0.1 N(-3, 1) + 0.9 N(3, 1). The Fisher divergence is E |psi - score|^2 under the target, by
quadrature; the mass is what the fitted density has left of 0, where the target has 0.1.

| fit | backend | seeds | Fisher divergence, median | worst | at most 0.1 | left mass, median | seconds a fit |
|---|---|---|---|---|---|---|---|
{reference}

The recipe is better than the tutorial's run in as many epochs, and holds nothing out, so nothing watches for
overfitting:

```python
import ismcore

x = ismcore.datasets.reference_run().sample
model = ismcore.MLP((64,), "sigmoid")
result = ismcore.fit(x, model=model, optimizer=ismcore.Adam(0.03), epochs=500, validation=0, backend="autograd")
```

## Real tables

Every tenth row is held out for the test, and the columns are z-scored with the others. The loss is J_0.1 of the test
rows, mean [ 1/2 |psi|^2 + div psi + 0.1 sum_i (d psi_i / d x_i)^2 ], beside that of the Gaussian fitted to the same
rows in closed form; lower is better. Test J is the same without the penalty. The columns of red wine are rounded, and
rows repeat: `fit` says so ("atoms"), and bounds its objective by a curvature weight. The plain objective shows why: it
learns a steep step at every value that many rows share, for which test J, on rows with the same values, rewards it, and
J_0.1 does not.

| table | n, d | fit | test J_0.1, median | worst | test J, median | curvature weight | warned of |
|---|---|---|---|---|---|---|---|
{tables}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="seeds on the reference sample; half as many on the tables")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS, help="on the reference sample")
    parser.add_argument("--out", type=Path, default=HOUSE / "docs" / "quality.md")
    options = parser.parse_args()
    page = partial(PAGE.format, seeds=f"{options.seeds} (tables: {max(1, options.seeds // 2)})", machine=machine_in_words())
    reference = "\n".join(reference_rows(options.seeds, options.backends))
    options.out.write_text(page(reference=reference, tables="\n".join(table_rows(max(1, options.seeds // 2)))), "utf-8")


def machine_in_words():
    about = machine()
    return ", ".join(str(value) for value in about.values() if not isinstance(value, dict))


if __name__ == "__main__":
    main()

"""ismcore beside the estimators that other packages give, on a few laws of `laws.py`: the tables of docs/comparison.md.

    python bench/comparison.py                 # what is not in bench/reports/comparison.json yet, and the tables
    python bench/comparison.py --again         # all of it: ten minutes on one core
    python bench/comparison.py --only          # the tables alone

Needs zuko, flowjax and torchebm, which are no dependencies of ismcore, beside `ismcore[all]` and SciPy: README.md here.
Each gets the rows alone, standardised by their mean and standard deviation, and holds a part of them out to stop by.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from estimators import BLOCK, Score, flow
from laws import draw, law_of, relative_error
from measuring import REPORTS, machine, versions
from quality_page import NORMAL, Errors, edged

import ismcore

Array = np.ndarray
PAGE = Path(__file__).parents[1] / "docs" / "comparison.md"
FOUND = REPORTS / "comparison.json"
PACKAGES = ("ismcore", "numpy", "scipy", "torch", "jax", "zuko", "flowjax", "torchebm")
CELLS = (("two modes", 1000), ("banana", 1000), ("t5 in 5", 1000), ("four modes in 10", 1000))
SAMPLES = 3
DIMENSIONS = (("d = 1", range(1, 2)), ("d = 2 and 3", range(2, 4)), ("d = 5 to 50", range(4, 1000)))
SHOWN = {
    "kernel density": "kernel density, width by leave-one-out",
    "mixture": "Gaussian mixture, components by BIC",
    "flow": "flow of zuko",
    "Stein": "spectral Stein estimator",
}


def scipy_kernels(x: Array) -> Score:
    """`scipy.stats.gaussian_kde(x.T)`, its width by Scott's rule, which is its default; the gradient by central differences."""
    from scipy.stats import gaussian_kde

    kernels = gaussian_kde(x.T)
    steps = 1e-4 * np.diag(x.std(axis=0))
    return lambda y: np.stack([(kernels.logpdf((y + e).T) - kernels.logpdf((y - e).T)) / (2.0 * e.sum()) for e in steps], 1)


def flowjax(x: Array, kind: str) -> Score:
    """A flow of this kind, by flowjax's own training loop and with its defaults."""
    import jax
    import jax.numpy as jnp
    from flowjax import flows
    from flowjax.distributions import StandardNormal
    from flowjax.train import fit_to_data

    mean, sd = x.mean(axis=0), x.std(axis=0)
    key, start = jax.random.split(jax.random.key(0))
    made = getattr(flows, kind)(start, base_dist=StandardNormal((x.shape[1],)))
    fitted, _ = fit_to_data(key, made, jnp.asarray((x - mean) / sd), show_progress=False)
    slope = jax.jit(jax.vmap(jax.grad(fitted.log_prob)))
    return lambda y: np.asarray(slope(jnp.asarray((y - mean) / sd))) / sd


def torchebm(x: Array, steps: int = 600) -> Score:
    """An energy of 64 silu units by torchebm's exact `ScoreMatching`, Adam, batches of 256, stopped by a held-out fifth."""
    import torch
    from torchebm.losses import ScoreMatching

    torch.manual_seed(0)
    mean, sd = x.mean(axis=0), x.std(axis=0)
    z = torch.tensor((x - mean) / sd, dtype=torch.float32)[torch.randperm(len(x))]
    judging, rows = z[: len(z) // 5], z[len(z) // 5 :]
    layers = torch.nn.Linear(x.shape[1], 64), torch.nn.SiLU(), torch.nn.Linear(64, 1), torch.nn.Flatten(0)
    energy = torch.nn.Sequential(*layers)
    loss_of = ScoreMatching(model=energy, hessian_method="exact", device=z.device)
    optimizer = torch.optim.Adam(energy.parameters(), 1e-2)
    best = (np.inf, energy.state_dict())
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(rows[torch.randint(len(rows), (256,))]).backward()
        optimizer.step()
        if step % 25 == 24:
            judged = float(loss_of(judging).detach())
            if judged < best[0]:
                best = (judged, {name: value.clone() for name, value in energy.state_dict().items()})
    energy.load_state_dict(best[1])

    def score(y: Array) -> Array:
        q = torch.tensor((y - mean) / sd, dtype=torch.float32, requires_grad=True)
        return -torch.autograd.grad(energy(q).sum(), q)[0].numpy() / sd

    return lambda y: np.vstack([score(y[i : i + BLOCK]) for i in range(0, len(y), BLOCK)])


def ours(x: Array) -> Score:
    """`ismcore.fit(x)`, as it is."""
    return ismcore.fit(x, backend="autograd", progress=False).score


ESTIMATORS = {
    "ismcore.fit(x)": ours,
    "torchebm, exact score matching of an energy": torchebm,
    "zuko, masked autoregressive flow": partial(flow, splines=False),
    "zuko, neural spline flow": partial(flow, splines=True),
    "flowjax, masked autoregressive flow": partial(flowjax, kind="masked_autoregressive_flow"),
    "flowjax, block neural autoregressive flow": partial(flowjax, kind="block_neural_autoregressive_flow"),
    "scipy.stats.gaussian_kde": scipy_kernels,
}


def measure(found: dict[tuple, dict]) -> None:
    """Each estimate of each sample that is not found yet: its error at fresh rows, seconds of the processor."""
    for sample in range(SAMPLES):
        for name, n in CELLS:
            x, _, y, s = draw(name, n, sample)
            for estimator, of in ESTIMATORS.items():
                key = (f"{name}/{n}", sample, estimator)
                if key not in found:
                    start = time.process_time()
                    error = relative_error(of(x)(y), s)
                    found[key] = dict(zip(("cell", "sample", "estimator"), key, strict=True), error=error)
                    found[key]["seconds"] = time.process_time() - start
                    sys.stdout.write(f"{json.dumps(found[key])}\n")
                    sys.stdout.flush()
                    about = {"machine": machine(), "versions": versions(PACKAGES)}
                    FOUND.write_text(json.dumps({**about, "runs": list(found.values())}, indent=1) + "\n")


def digits(value: float) -> str:
    return f"{value:.2g}" if value < 10.0 else f"{value:.0f}"


def head_to_head(found: dict) -> str:
    """Median errors over the samples, the worst behind them, and seconds."""
    cells = [f"{name}/{n}" for name, n in CELLS]
    titles = [f"{cell}, d = {law_of(name).d}" for cell, (name, _) in zip(cells, CELLS, strict=True)]
    lines = [f"| estimate | {' | '.join(titles)} | seconds |", "|---|" + "---|" * (len(cells) + 1)]
    for estimator in ESTIMATORS:
        own = [run for run in found["runs"] if run["estimator"] == estimator]
        errors = [[run["error"] for run in own if run["cell"] == cell] for cell in cells]
        shown = [f"{digits(statistics.median(some))} ({digits(max(some))})" for some in errors]
        lines.append(f"| {estimator} | {' | '.join(shown)} | {digits(statistics.median(run['seconds'] for run in own))} |")
    used = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return "\n".join([*lines, "", f"{SAMPLES} samples of each law; the worst is in brackets. {used}."])


def on_all_cells(runs: list[dict]) -> str:
    """Medians over the cells without a hard edge of bench/quality.py, by dimension, and how often worse than the normal law.

    Estimates that are not of all these cells are left out.
    """
    errors = Errors(runs)
    cells = [cell for cell in errors.by if not edged(cell)]
    groups = [[cell for cell in cells if law_of(cell.rpartition("/")[0]).d in some] for _, some in DIMENSIONS]
    titles = [f"{what}, {len(some)} cells" for (what, _), some in zip(DIMENSIONS, groups, strict=True)]
    lines = [f"| estimate | {' | '.join(titles)} | worse than the normal law |", "|---|" + "---|" * (len(groups) + 1)]
    defaults = [name for name in errors.recipes if name.startswith("default")]
    for name in (*defaults, *(rival for rival in errors.rivals if rival != NORMAL)):
        if all(errors.median(cell, name) is not None for cell in cells):
            shown = [digits(statistics.median(errors.median(cell, name) for cell in some)) for some in groups]
            worse = sum(errors.is_worse(cell, name) for cell in cells)
            called = f"`ismcore.fit(x)`, {name.partition(', ')[2]}" if name in defaults else SHOWN.get(name, name)
            lines.append(f"| {called} | {' | '.join(shown)} | {worse} of {len(cells)} |")
    return "\n".join(lines)


def with_table(page: str, name: str, table: str) -> str:
    """The page, with the table between its two marks."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{PAGE.name} lacks the marks {begin} and {end}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def page_of(page: str, quality: dict, found: dict) -> str:
    """docs/comparison.md, its tables from the reports."""
    return with_table(with_table(page, "quality", on_all_cells(quality["runs"])), "head to head", head_to_head(found))


def main() -> None:
    """Measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="measure what is in the report already, too")
    parser.add_argument("--only", action="store_true", help="measure nothing: the tables alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ismcore.IsmWarning)
    runs = [] if options.again or not FOUND.exists() else json.loads(FOUND.read_text())["runs"]
    if not options.only:
        measure({(run["cell"], run["sample"], run["estimator"]): run for run in runs})
    quality = json.loads((REPORTS / "quality.json").read_text())
    PAGE.write_text(page_of(PAGE.read_text(encoding="utf-8"), quality, json.loads(FOUND.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()

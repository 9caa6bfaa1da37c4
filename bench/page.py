"""The report as a page: tables of `report.py`, charts of `charts.py`, in the order in which one asks."""

from __future__ import annotations

import json

import report
from charts import draw_all

COMMAND = "ismcore bench"

ABOUT = """\
{machine}. Threads: {threads}. Versions: {versions}. float32 unless said, on {device}.

A figure is the median over rounds, and all programs of a cell run once in each round, so that what else the machine does meets
them alike: read the ratios, not the times. A step is one full-batch epoch with its update by Adam. Ours is `ismcore.fit` with
`standardize=False` and nothing held out: the time of its loop (`timings["run"]`) over its steps, warm; for the reference run
the whole call, over its 500 steps. A program by hand is timed as a whole, over its steps. Before a cell is timed, the first
losses of each program are compared with float64 results that no differentiation library gave.\
"""

HAND = {
    "torch": "double backward once for each dimension, `torch.optim.Adam`, `.item()`",
    "jax": "a jitted step with optax in a Python loop, `float(loss)`; for d > 1 the diagonal of `vmap(jacfwd)`, else one `jvp`",
    "autograd": "nested `elementwise_grad` once for each dimension, Adam in NumPy",
}

LIMITS = """\
Seconds a step of one program over those of another, both in this run, unless a line says what else; by the problem. `hand`,
`scan`, `unsynchronised` and `squared score` are programs by hand, `NumPy` and `C` floors, `compiled` is `fit(compile="on")`. A
figure without a limit is for reading alone. A limit holds what has been reached, with room for noise.\
"""

OPTIONS = """\
To the seconds of a step of ours, each option alone. Probes that are given are one Rademacher probe a row for
`SlicedScoreMatching`, which differentiates where the exact divergence has a formula; drawn ones, beside given ones, are drawn
anew in each step. Batches are a tenth of ten copies of the rows, so that each is as large as the case. Shuffling takes some
20 ns a row and drawing 20 us a step and 20 ns a number, in NumPy and one after the other with the steps: noticeable beside
networks of eight units, and not beside those of a hundred.\
"""

OTHERS = """\
Where they are installed (`bench/README.md`); whole calls, over their steps. In torch the network is an energy, and the loss of
each library is in a loop with `torch.optim.Adam`; in JAX the network is the score. Read exact losses beside `ours`, sliced ones
beside `ours, sliced`, which draws a Rademacher probe a row in each step.

- ebmkit: exact, by a reverse pass for each dimension
- torchebm: exact, by `vmap(jacrev)` of the gradient
- toy-gradlogp: sliced, a Rademacher probe a row drawn in each step
- coreax: sliced, probes drawn once, on n rows drawn with replacement in each step, by its own `match`: it compiles every step
- coreax, patched: the same with its counter of steps an array: it compiles once in each call, which is in its figure\
"""


def write(runs, folder):
    """Write Markdown, JSON and charts into a folder; returns the path of the page."""
    found = report.Found(runs)
    device = found.entries[0]["device"]
    name = "speed" if device == "cpu" else f"speed-{device.replace(':', '-')}"
    folder.mkdir(parents=True, exist_ok=True)
    charts = draw_all(found, folder, name)
    page = folder / f"{name}.md"
    page.write_text(markdown(found, device, charts))
    (folder / f"{name}.json").write_text(json.dumps(found.as_json(), indent=1) + "\n")
    return page


def markdown(found, device, charts):
    by_hand = [f"- {backend}: {HAND[backend]}" for backend in found.backends if backend in HAND]
    sections = [
        "# Speed, memory and scaling",
        f"Written by `{COMMAND if device == 'cpu' else f'{COMMAND} --device {device}'}`.",
        ABOUT.format(device=device, **_about(found)),
        "By hand (`bench/by_hand/`), what a careful user writes:",
        "\n".join(by_hand),
        "## Limits",
        LIMITS,
        report.claims_table(found),
        *(f"![{what}]({file})" for file, what in charts if file.endswith(("by-hand.png", "floor.png"))),
        "## Reference run, wide networks",
        "First run: with what it compiles. Floors: gradients derived by hand, in NumPy, and in C on one thread.",
        report.cells_table(found, ("reference", "wide")),
        "## By the number of rows",
        _axis(found, "n"),
        *_charts(charts, "rows"),
        "## By the number of dimensions",
        _axis(found, "d"),
        _axis(found, "d-penalised"),
        *_charts(charts, "dimensions"),
        "## By width and depth",
        _axis(found, "width"),
        _axis(found, "depth"),
        *_charts(charts, "network"),
        "## What options add",
        OPTIONS,
        report.options_table(found),
        "## Peak memory",
        "MiB of a fresh process that takes two steps; JAX compiles within it.",
        report.memory_table(found),
        *_charts(charts, "memory"),
        "## Cold start",
        "Fresh processes, in turn, not the first: the command on the reference run's sample, and the import alone. Then, in "
        "one process: importing the backend, preparing, and a first chunk of 16 steps.",
        report.cold_table(found),
        "## Scenarios of the conformance kit",
        "A handful of rows each: what is timed is the overhead of a step.",
        report.cells_table(found, ("kit",)),
        "## Beside other libraries",
        OTHERS,
        report.cells_table(found, ("rivals",)),
        "## Not timed",
        report.not_timed_table(found),
    ]
    return "\n\n".join(sections) + "\n"


def _about(found):
    machine = found.machine
    text = f"{machine['cpu']}, {machine['cores']} cores, {machine.get('memory_gib', '?')} GiB, Python {machine['python']}"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return {"machine": text, "threads": machine["threads"], "versions": versions}


def _axis(found, family):
    return f"{report.AXES[family][2]}; seconds an epoch of ours, and of the floors.\n\n{report.axis_table(found, family)}"


def _charts(charts, part):
    return [f"![{what}]({file})" for file, what in charts if file.endswith(f"-{part}.png")]

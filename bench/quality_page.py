"""docs/quality.md and its picture, from the figures of bench/quality.py."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from laws import CELLS, SECOND_CELLS, law_of
from matplotlib import pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
RIVALS = ("normal law", "kernel density", "mixture", "Stein", "flow")
NORMAL = RIVALS[0]
WORSE, BY, TIE = 1.1, 0.01, 1.02
COLOURS = ("#777777", "#c9c9c9", "#7570b3", "#e6ab02", "#a6761d")
OURS = ("#d95f02", "#1b9e77", "#e7298a", "#111111")


class Errors:
    """Errors by cell and estimator, each by number of sample; two estimates are compared on the samples that both have."""

    def __init__(self, runs: list[dict]) -> None:
        self.by: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.seconds_of: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for run in runs:
            if run["part"] == "laws":
                self.by[run["cell"]][label(run)][run["sample"]] = run["error"]
                if "seconds" in run:  # those of the processor
                    self.seconds[label(run)].append(run["seconds"])
                    self.seconds_of[run["cell"]][label(run)].append(run["seconds"])
        self.recipes = sorted({name for found in self.by.values() for name in found if name not in RIVALS})
        self.rivals = [name for name in RIVALS if any(name in found for found in self.by.values())]

    def median(self, cell: str, name: str) -> float | None:
        found = self.by[cell].get(name)
        return statistics.median(found.values()) if found else None

    def medians(self, cell: str, *names: str) -> list[float] | None:
        """Of the samples that all of these have; None where there is none."""
        found = [self.by[cell].get(name, {}) for name in names]
        shared = set.intersection(*(set(errors) for errors in found))
        return [statistics.median(errors[k] for k in shared) for errors in found] if shared else None

    def median_seconds(self, cell: str, name: str) -> float:
        return statistics.median(self.seconds_of[cell][name])

    def cells(self, of) -> list[str]:
        return [f"{name}/{n}" for name, n in of if f"{name}/{n}" in self.by]

    def is_worse(self, cell: str, name: str) -> bool:
        """Whether its median error is above 1.1 times that of the normal law, and by more than 0.01."""
        found = self.medians(cell, name, NORMAL)
        return found is not None and found[0] > WORSE * found[1] and found[0] - found[1] > BY

    def place(self, cell: str, name: str) -> int:
        """One more than the rivals that are better by more than 2 %; `single` on the same backend is one of them."""
        singles = [recipe for recipe in self.recipes if is_single(recipe)]
        own = [recipe for recipe in singles if recipe == f"single, {name.partition(', ')[2]}"] or singles[:1]
        pairs = [self.medians(cell, other, name) for other in (*self.rivals, *own) if other != name]
        return 1 + sum(pair is not None and TIE * pair[0] < pair[1] for pair in pairs)


def label(run: dict) -> str:
    return f"{run['estimator']}, {run['backend']}" if run["backend"] else run["estimator"]


def backends_table(runs: list[dict]) -> str:
    """The default in float64 on one sample of each cell: what the first backend finds, and how far the others are from it."""
    found: dict[str, dict[str, dict]] = defaultdict(dict)
    for run in runs:
        if run["part"] == "backends":
            found[run["cell"]][run["backend"]] = run
    names = list(dict.fromkeys(name for own in found.values() for name in own))
    if not names:
        return ""
    heads = " | ".join(f"{name}: weights alike | score, largest difference" for name in names[1:])
    lines = [f"| law, rows | error | weights | {heads} |", "|---|---|---|" + "---|---|" * (len(names) - 1)]
    for cell, own in found.items():
        first = own[names[0]]
        weights = ", ".join(f"{name} {weight:.3f}" for name, weight in first["weights"].items())
        beside = " | ".join(
            f"{'yes' if weights_alike(first, own[name]) else 'no'} | {own[name]['apart']:.0e}" if name in own else " | "
            for name in names[1:]
        )
        lines.append(f"| {cell} | {first['error']:.6f} | {weights} | {beside} |")
    return "\n".join(lines)


def weights_alike(one: dict, other: dict) -> bool:
    """Whether two backends gave the same candidates the same weights, to 1e-6."""
    a, b = one["weights"], other["weights"]
    return a.keys() == b.keys() and all(abs(a[name] - b[name]) <= 1e-6 for name in a)


def lead_backend(runs: list[dict]) -> str:
    """The backend with the most fits to laws: the tables are of its errors."""
    counts = Counter(run["backend"] for run in runs if run["part"] == "laws" and run["backend"])
    return max(counts, key=lambda backend: counts[backend], default="")


def beside_lead(errors: Errors, lead: str) -> str:
    """How far the errors by other backends are from those by the first, in the dtype of the default, on the same samples."""
    lines = []
    for name in errors.recipes:
        recipe, _, backend = name.partition(", ")
        pairs = [
            (own[sample], found[f"{recipe}, {lead}"][sample])
            for found in errors.by.values()
            for own in [found.get(name, {})]
            for sample in own.keys() & found.get(f"{recipe}, {lead}", {}).keys()
        ]
        if backend != lead and pairs:
            apart = max(abs(own / other - 1.0) for own, other in pairs)
            lines.append(f"- {name}: {len(pairs)} fits, errors within {apart:.0e} of those by {lead}.")
    return "\n".join(lines)


def times(errors: Errors) -> str:
    """Seconds of the default over those of `single`, of the same cells in one process; cells with hard edges too."""
    lines = []
    for name in errors.recipes:
        former = f"single, {name.partition(', ')[2]}"
        both = [cell for cell in errors.by if not is_single(name) and {name, former} <= errors.seconds_of[cell].keys()]
        if both:
            ratios = {cell: errors.median_seconds(cell, name) / errors.median_seconds(cell, former) for cell in both}
            worst = max(ratios, key=lambda cell: ratios[cell])
            middle = statistics.median(ratios.values())
            lines.append(
                f"- {name}: {middle:.1f} times the seconds of `single` in the median of {len(both)} cells, and "
                f"{ratios[worst]:.1f} times in the worst, {worst}."
            )
    return "\n".join(lines)


def many_rows(runs: list[dict]) -> str:
    """The least seconds of the default over the least of `single`, on a million rows, a line for each backend."""
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run["part"] == "rows":
            seconds[run["backend"]][run["estimator"]].append(run["seconds"])
    return "\n".join(
        f"- {backend}: {min(own['default']) / min(own['single']):.2f}, of {len(own['default'])} runs each, "
        f"{min(own['single']):.1f} s of `single`."
        for backend, own in seconds.items()
        if own.keys() >= {"default", "single"}
    )


def is_single(name: str) -> bool:
    return name.startswith("single, ")


def d_of(cell: str) -> int:
    return law_of(cell.rpartition("/")[0]).d


def edged(cell: str) -> bool:
    return law_of(cell.rpartition("/")[0]).edged


def summary(errors: Errors, of) -> str:
    """How often each estimator is worse than the normal law, and how often it is best or second-best."""
    cells = [cell for cell in errors.cells(of) if not edged(cell)]
    lines = ["| estimate | cells | worse than the normal law | best or second-best | median seconds |", "|---|---|---|---|---|"]
    for name in (*errors.recipes, *errors.rivals[1:]):
        known = [cell for cell in cells if errors.median(cell, name) is not None]
        if not known:
            continue
        worse = [cell for cell in known if errors.is_worse(cell, name)]
        named = f"{len(worse)}" + (f" ({', '.join(worse)})" if worse and name in errors.recipes else "")
        good = sum(errors.place(cell, name) <= 2 for cell in known)
        seconds = f"{statistics.median(errors.seconds[name]):.2g}" if name in errors.seconds else ""
        lines.append(f"| {name} | {len(known)} | {named} | {good} of {len(known)} | {seconds} |")
    return "\n".join(lines)


def pairs(errors: Errors, of) -> str:
    """The default beside `single`, on the same cells."""
    lines = []
    for name in errors.recipes:
        backend = name.partition(", ")[2]
        former = f"single, {backend}"
        if is_single(name) or former not in errors.recipes:
            continue
        for what, wanted in (("d = 1", lambda d: d == 1), ("d >= 2", lambda d: d >= 2)):
            both = [cell for cell in errors.cells(of) if wanted(d_of(cell)) and not edged(cell)]
            found = [pair for cell in both if (pair := errors.medians(cell, name, former)) is not None]
            if found:
                ratios = [own / other for own, other in found]
                lower = sum(ratio < 1.0 for ratio in ratios)
                lines.append(
                    f"- {name}, {what}: {statistics.median(ratios):.2f} of the error of `single` in the median of {len(found)} "
                    f"cells, lower in {lower}."
                )
    return "\n".join(lines)


def cells_table(errors: Errors, of) -> str:
    names = [*errors.rivals, *errors.recipes]
    lines = [f"| law, rows | d | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for cell in errors.cells(of):
        shown = [cell_text(errors, cell, name) for name in names]
        lines.append(f"| {cell}{' (hard edge)' if edged(cell) else ''} | {d_of(cell)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def cell_text(errors: Errors, cell: str, name: str) -> str:
    """The median, with the worst behind it for our own; bold where worse than the normal law."""
    middle = errors.median(cell, name)
    if middle is None:
        return ""
    text = f"**{middle:.3g}**" if name != NORMAL and errors.is_worse(cell, name) else f"{middle:.3g}"
    found = errors.by[cell][name]
    return f"{text} ({max(found.values()):.2g})" if name in errors.recipes and len(found) > 1 else text


def draw_cells(errors: Errors, path: Path) -> None:
    """Errors of all cells, one row a cell, on a logarithmic axis."""
    cells = [*errors.cells(CELLS), *errors.cells(SECOND_CELLS)]
    figure, axes = plt.subplots(figsize=(8.0, 1.2 + 0.24 * len(cells)), layout="constrained")
    for names, colours, marker, size in ((errors.rivals, COLOURS, "o", 24), (errors.recipes, OURS, "D", 34)):
        for k, name in enumerate(names):
            known = [
                (errors.median(cell, name), -row) for row, cell in enumerate(cells) if errors.median(cell, name) is not None
            ]
            axes.scatter(
                *zip(*known, strict=True), color=colours[k % len(colours)], marker=marker, s=size, label=name, zorder=2
            )
    axes.set(
        xscale="log", xlabel="E|psi - score|^2 / E|score|^2, median over samples", yticks=[-row for row in range(len(cells))]
    )
    axes.set_yticklabels([f"{cell}, d = {d_of(cell)}" for cell in cells], fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.07), ncols=4, fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def reference_table(runs: list[dict]) -> str:
    lines = [
        "| fit | backend | samples | seeds | Fisher divergence, median | worst | left mass, median | seconds a fit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str, str], list[dict]] = defaultdict(list)
    for run in runs:
        if run["part"] == "reference":
            groups[run["estimator"], run["backend"], run["cell"]].append(run)
    for (name, backend, cell), some in groups.items():
        divergences, masses = [run["divergence"] for run in some], [run["mass"] for run in some]
        seconds = statistics.median(run.get("seconds", 0.0) for run in some)
        numbers = f"{statistics.median(divergences):.3f} | {max(divergences):.3f} | {statistics.median(masses):.3f}"
        lines.append(f"| {name} | {backend} | {cell} | {len(some)} | {numbers} | {f'{seconds:.2g}' if seconds else ''} |")
    return "\n".join(lines)


def tables_table(runs: list[dict]) -> str:
    lines = [
        "| table | n, d | estimate | test J less the normal law's | worst seed | noise left at 0.1 | at 0.4 | atoms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (cell, name), some in grouped(runs, "gap").items():
        gaps = sorted(some, key=lambda run: run["gap"])
        middle, worst = gaps[len(gaps) // 2], gaps[-1]
        left = [statistics.median(run["left"][scale] for run in some) for scale in ("0.1", "0.4")]
        size = f"{middle['n']}, {middle['d']}"
        numbers = f"{middle['gap']:.2f} +- {middle['gap error']:.2f} | {worst['gap']:.2f} | {left[0]:.3f} | {left[1]:.3f}"
        lines.append(f"| {cell} | {size} | {name} | {numbers} | {'atoms' * middle['atoms']} |")
    return "\n".join(lines)


def noised_table(runs: list[dict]) -> str:
    lines = ["| rows | estimate | noise left, median | less the normal law's | worst seed |", "|---|---|---|---|---|"]
    groups = grouped(runs, "noise left")
    cells = list(dict.fromkeys(cell for cell, _ in groups))
    for (cell, name), some in sorted(groups.items(), key=lambda group: cells.index(group[0][0])):
        ordered = sorted(some, key=lambda run: run["noise left"])
        middle, worst = ordered[len(ordered) // 2], ordered[-1]
        gap = f"{middle['noise gap']:.3f} +- {middle['noise gap error']:.3f}"
        lines.append(f"| {cell} | {name} | {middle['noise left']:.3f} | {gap} | {worst['noise left']:.3f} |")
    return "\n".join(lines)


def digits_table(runs: list[dict]) -> str:
    lines = ["| estimate | squared error after denoising, median | worst seed |", "|---|---|---|"]
    for (_, name), some in grouped(runs, "denoising error").items():
        errors = [run["denoising error"] for run in some]
        lines.append(f"| {name} | {statistics.median(errors):.1f} | {max(errors):.1f} |")
    return "\n".join(lines)


def grouped(runs: list[dict], figure: str) -> dict[tuple[str, str], list[dict]]:
    groups: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for run in runs:
        if figure in run:
            groups[run["cell"], label(run)].append(run)
    return groups


PAGE = """# How good the fits are

Made by `python bench/quality.py`.{machine}

## Laws with an exact score

The error is E|psi - score|^2 / E|score|^2 at 4000 fresh rows: 0 is exact, and 1 is what psi = 0 gets. Laws and samplers are in
`bench/laws.py`, the estimators beside ours in `bench/estimators.py`: the normal law in closed form; a kernel density, its width
by leave-one-out likelihood; a Gaussian mixture, its components by BIC; the spectral Stein estimator of Shi, Sun and Zhu (2018);
and a flow, where zuko is installed. An estimate is *worse than the normal law* above 1.1 times its error and by more than 0.01;
within 2 % is a tie. Where the density has a hard edge the plain objective does not hold: such cells are not counted. Seconds
are those of the processor for one estimate, compilation included.

![Errors of all cells](quality-cells.png)

### First set: laws on which defaults were chosen

{first_summary}

{first_pairs}

Medians over the samples, {samples} of a cell, and the worst behind ours; bold where worse than the normal law:

{first}

### Second set: laws on which nothing was chosen

{second_summary}

{second_pairs}

{second}

### Time, and backends

{times}

A million rows of the ring, 20 epochs: the default has one member then. Its processor time over that of `single`, the least of
the runs of each:

{many_rows}

All randomness comes from the core, and what is chosen is a function of one table of losses, so that the backends choose alike.
In float32, the default dtype, on so many samples of all cells, relative to the error:

{beside}

The default in float64, on one sample of the cells below, by autograd, and how far the others are from it: if they gave the
candidates the same weights to 1e-6, and the largest difference of the score at fresh rows, over the root of E|score|^2 / d.

{backends}

### Rows that depend on each other

Chains of a normal law, n = 5000, d = 2 and 5, correlation of successive rows 0.9 and 0.99, and rows that are eight copies of
others but for a jitter: the default has 1.0 times the error of the normal law in the median of 20 samples of each, and warns of
all; the table is in [diagnose.md](diagnose.md#fits-of-such-samples).

## The reference sample

1024 samples of 0.1 N(-3, 1) + 0.9 N(3, 1): those of the published run, with several seeds, and others. The Fisher divergence is
E|psi - score|^2 under the target, by quadrature; the mass is what the fitted density has left of 0, where the target has 0.1.

{reference}

The recipe below has as many epochs as the published run, and holds nothing out, so nothing watches for overfitting:

```python
import ismcore

x = ismcore.datasets.reference_run().sample
model = ismcore.MLP((64,), "sigmoid")
result = ismcore.fit(x, model=model, optimizer=ismcore.Adam(0.03), epochs=500, validation=0, backend="autograd")
```

## Real tables

Equal rows are taken once, every tenth row is held out for the test, and columns are z-scored with the others. The test loss is
plain J on those independent rows, mean [ 1/2 |psi|^2 + div psi ], less that of the normal law on the same rows, with its
standard error: below 0 is better. On columns whose values repeat ("atoms") J is no judge, as it rewards a steep step at each
value. Noise left is E|y + s^2 psi(y) - z|^2 / (s^2 d) for y = z + s e, z a test row and e normal: 1 where no noise is removed;
it looks at the score off the rows.

{tables}

What removes most of the noise is the score of the rows *with* that noise, y + s^2 psi_s(y) (Miyasawa 1961). The score of the
rows themselves is that of another law, and at s = 0.4 most points y lie away from the rows, where no loss on rows sees it. The
choice between fit and normal law is by such a loss, and is right on the rows, where the fit is far better. So, to denoise, fit
rows with that noise, or by `objective=DenoisingScoreMatching(s)`. Below every estimate is of z + s e:

{noised}

Digits, 64 pixels from 0 to 16, with noise of standard deviation 2; every fourth is held out. The squared error of y + 4 psi(y)
is 16 times the Fisher divergence from the score of the noisy law, and a constant; without a score it is 256.

{digits}

## Where it falls short

- The left mass of the published reference sample comes out too small, as rows lie between its modes and their masses are thus
  the score's; where none do, masses are counted from the samples.
- Off the rows: on ten principal components of the digits the default is better than the normal law on test rows, and at a
  noise of 0.4 standard deviations much worse, unless it is fitted to rows with that noise: no loss on rows sees what the score
  does away from them.
- At a hard edge without `domain=` no estimate here holds; see docs/domains.md.
- The flow, of the fixed size and steps of `bench/estimators.py`, is no rival on so few rows; it was given one sample of each
  cell.
"""


def write_page(runs: list[dict], machine: dict) -> None:
    """The page and its picture."""
    lead = lead_backend(runs)
    errors = Errors([run for run in runs if run["backend"] in ("", lead)])
    draw_cells(errors, DOCS / "quality-cells.png")
    counts = sorted({len(found) for cell in errors.by.values() for name, found in cell.items() if name in errors.recipes})
    words = ", ".join(f"{name} {value}" for name, value in machine.items())
    text = PAGE.format(
        machine=f" Machine: {words}." if words else "",
        samples=" to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "no",
        first_summary=summary(errors, CELLS),
        first_pairs=pairs(errors, CELLS),
        first=cells_table(errors, CELLS),
        second_summary=summary(errors, SECOND_CELLS),
        second_pairs=pairs(errors, SECOND_CELLS),
        second=cells_table(errors, SECOND_CELLS),
        times=times(Errors(runs)),
        many_rows=many_rows(runs),
        beside=beside_lead(Errors(runs), lead),
        backends=backends_table(runs),
        reference=reference_table(runs),
        tables=tables_table(runs),
        noised=noised_table(runs),
        digits=digits_table(runs),
    )
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    (DOCS / "quality.md").write_text(text, encoding="utf-8")

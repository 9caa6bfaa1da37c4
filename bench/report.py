"""Tables in Markdown, from what pytest-benchmark wrote."""

from __future__ import annotations

import statistics

from cases import DEPTHS, DIMENSIONS, ROWS, WIDTHS
from claims import answers
from costs import products

AXES = {
    "n": ("rows", ROWS, "1-8-1, sigmoid"),
    "d": ("dimensions", DIMENSIONS, "two hidden layers of 128, softplus, n = 512"),
    "d-penalised": ("dimensions", DIMENSIONS, "the same with curvature_weight 0.1, n = 128"),
    "width": ("width", WIDTHS, "two hidden layers, softplus, n = 512, d = 16"),
    "depth": ("hidden layers", DEPTHS, "hidden layers of 128, softplus, n = 512, d = 16"),
}


UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


class Found:
    """What was measured: one entry for each benchmark, with its `extra_info` and the seconds of every round.

    Args:
        runs: Contents of JSON files of pytest-benchmark, or of earlier reports.
    """

    def __init__(self, runs):
        self.entries = [entry for run in runs for entry in run.get("entries", [])]
        self.entries += [_entry(benchmark) for run in runs for benchmark in run.get("benchmarks", [])]
        self.not_timed = [row for run in runs for row in run["not_timed"]]
        self.machine = runs[0].get("machine_info") or runs[0]["machine"]
        self._by = {(e["case"], e["backend"], e["dtype"], e["program"], e["family"] == "memory"): e for e in self.entries}

    @property
    def backends(self):
        return list(dict.fromkeys(entry["backend"] for entry in self.entries))

    def entry(self, case, backend, program, dtype="float32", *, memory=False):
        return self._by.get((case, backend, dtype, program, memory))

    def seconds(self, case, backend, program, dtype="float32"):
        """Median seconds a step, or None."""
        entry = self.entry(case, backend, program, dtype)
        return entry and statistics.median(entry["seconds"])

    def ratio(self, case, backend, over, program="ours", dtype="float32"):
        """Of the medians, or None."""
        a, b = self.seconds(case, backend, program, dtype), self.seconds(case, backend, over, dtype)
        return a / b if a and b else None

    def mib(self, case, backend, program, what):
        entry = self.entry(case, backend, program, memory=True)
        return entry and entry["mib"][what]

    def extra_mib(self, case, backend, program):
        """Peak memory over the imported framework, or None."""
        entry = self.entry(case, backend, program, memory=True)
        return entry and entry["mib"]["peak"] - entry["mib"]["imported"]

    def as_json(self):
        return {"machine": self.machine, "not_timed": self.not_timed, "entries": self.entries}


def _entry(benchmark):
    """Of pytest-benchmark's record, what a report needs."""
    return {**benchmark["extra_info"], "seconds": benchmark["stats"]["data"]}


def duration(seconds):
    """Seconds in three digits and the unit that suits them."""
    if seconds is None:
        return ""
    unit, size = next(((unit, size) for unit, size in UNITS if seconds >= size), UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


def table(head, rows):
    """A Markdown table, or a line that says that there are no figures."""
    rows = list(rows)
    if not rows:
        return "Not measured in this run."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def claims_table(found):
    marks = {True: "yes", False: "**no**", None: ""}
    rows = ((a.on, a.what, a.backend, a.found, a.limit, marks[a.met]) for a in answers(found))
    return table(["on", "what", "backend", "found", "limit", "met"], rows)


def axis_table(found, family):
    """Ours by one quantity, next to the multiplications of the formula, and the floors, as the first backend's run had them."""
    name, values, _ = AXES[family]
    backends = found.backends
    floors = [f for f in ("NumPy", "C") if any(found.seconds(f"{family}-{v}", b, f) for v in values for b in backends)]
    rows = []
    for value in values:
        case = f"{family}-{value}"
        ours = [duration(found.seconds(case, backend, "ours")) for backend in backends]
        below = [duration(next(filter(None, (found.seconds(case, b, floor) for b in backends)), None)) for floor in floors]
        if any(ours):
            about = next(filter(None, (found.entry(case, backend, "ours") for backend in backends)))
            count = products(about["n"], about["d"], about["hidden"], diagonal=bool(about["curvature_weight"]))
            rows.append([f"{value:,}", f"{count:.2e}", *ours, *below])
    return table([name, "products", *backends, *floors], rows)


def cells_table(found, families):
    """Every program of every cell, with ours over it."""
    rows = []
    for e in found.entries:
        if e["family"] not in families:
            continue
        seconds = statistics.median(e["seconds"])
        ours = found.seconds(e["case"], e["backend"], "ours", e["dtype"])
        ratio = f"{ours / seconds:.3g}" if ours else ""
        spread = f"{min(e['seconds']) / seconds:.2f}-{max(e['seconds']) / seconds:.2f}"
        first = duration(e.get("first_seconds"))
        rows.append(
            [
                e["case"],
                e["backend"],
                e["dtype"],
                e["program"],
                duration(seconds),
                spread,
                ratio,
                first,
                e.get("route", "") if e["program"] == "ours" else "",
            ]
        )
    head = ["case", "backend", "dtype", "program", "a step", "min-max / median", "ours / this", "first run", "route of ours"]
    return table(head, rows)


def options_table(found):
    """What each option adds to a step, in parts of a hundred of the step without it."""
    rows, options = [], []
    for e in found.entries:
        if e["family"] == "options" and e["program"] == "ours":
            cell = e["case"], e["backend"]
            seconds = {
                o["program"]: found.seconds(*cell, o["program"]) for o in found.entries if (o["case"], o["backend"]) == cell
            }
            plain, *_ = (seconds.pop(name, None) for name in ("ours", "NumPy", "C"))
            bases = {"probes drawn": seconds.get("probes given")}
            shares = {name: f"{100 * (value / (bases.get(name) or plain) - 1):+.0f} %" for name, value in seconds.items()}
            options = options or list(shares)
            rows.append(
                [cell[0].removeprefix("options-"), cell[1], duration(plain), *(shares.get(name, "") for name in options)]
            )
    return table(["case", "backend", "a step", *options], rows)


def memory_table(found):
    rows = []
    for e in found.entries:
        if e["family"] == "memory":
            m = e["mib"]
            peaks = (f"{m[key]:.0f}" for key in ("imported", "sampled", "peak"))
            rows.append([e["case"], e["backend"], e["program"], f"{m['data']:.1f}", *peaks, f"{m['peak'] - m['imported']:.0f}"])
    return table(["case", "backend", "program", "samples", "imported", "with samples", "peak", "peak - imported"], rows)


def cold_table(found):
    rows = []
    for e in found.entries:
        if e["family"] == "cold":
            phases = [duration(e["phases"][key]) for key in ("import", "prepare", "first chunk")]
            rows.append([e["backend"], duration(statistics.median(e["seconds"])), duration(e["import_alone"]), *phases])
    head = ["backend", "`ismcore fit`, 500 epochs", "`python -c 'import ...'`", "import", "prepare", "first 16 steps"]
    return table(head, rows)


def not_timed_table(found):
    rows = ([row["case"], row["backend"], row["dtype"], row["program"], row["why"]] for row in found.not_timed)
    return table(["case", "backend", "dtype", "program", "why"], rows) if found.not_timed else "Nothing."

"""The report's charts, as PNG."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

from claims import RATIOS
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator
from report import AXES

COLOURS = {"autograd": "#d95f02", "torch": "#7570b3", "jax": "#1b9e77"}
OTHERS = ("#e7298a", "#66a61e", "#e6ab02")
GREYS = {"NumPy": "#777777", "C": "#111111"}
DPI = 130


def colour(backend, backends):
    others = [name for name in backends if name not in COLOURS]
    return COLOURS.get(backend) or OTHERS[others.index(backend) % len(OTHERS)]


def draw_all(found, folder, name):
    """Draw what there are figures for; returns (file name, what it shows) of each chart."""
    charts = (
        ("rows", "Seconds an epoch by the number of rows", lambda figure: by_axis(figure, found, ("n",))),
        ("dimensions", "By the number of dimensions", lambda figure: by_axis(figure, found, ("d", "d-penalised"))),
        ("network", "By width and depth of the network", lambda figure: by_axis(figure, found, ("width", "depth"))),
        ("by-hand", "Ours over the program by hand", lambda figure: ratios(figure, found, lambda over: over not in GREYS)),
        ("floor", "Ours over the floors", lambda figure: ratios(figure, found, lambda over: over in GREYS)),
        ("memory", "Peak memory over the imported framework", lambda figure: memory(figure, found)),
    )
    written = []
    for part, what, draw in charts:
        figure = plt.figure(figsize=(8, 4.2), layout="constrained")
        if draw(figure):
            file = f"{name}-{part}.png"
            # without the version of matplotlib, the same figures give the same file
            figure.savefig(folder / file, dpi=DPI, metadata={"Software": None})
            written.append((file, what))
        plt.close(figure)
    return written


def by_axis(figure, found, families):
    """Ours in full lines, by hand dashed, the floors in grey; both axes logarithmic."""
    drawn = False
    all_axes = figure.subplots(1, len(families), squeeze=False)[0]
    for axes, family in zip(all_axes, families, strict=True):
        name, values, what = AXES[family]
        for backend in found.backends:
            for program, style in (("ours", "o-"), ("hand", "s--")):
                label = backend if program == "ours" else f"{backend}, by hand"
                points = _points(found, family, values, backend, program)
                drawn |= _line(axes, points, style, label, colour(backend, found.backends))
        for floor, grey in GREYS.items():
            points = next(filter(None, (_points(found, family, values, b, floor) for b in found.backends)), [])
            drawn |= _line(axes, points, "^:", f"{floor} (floor)", grey)
        axes.set(xscale="log", yscale="log", xlabel=name, title=what)
        axes.title.set_fontsize(9)
        axes.set_xticks([value for value in values if len(values) < 7], [f"{value:,}" for value in values], fontsize=8)
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda seconds, _: f"{1e3 * seconds:g}")
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("milliseconds an epoch (median)")
    if drawn:
        all_axes[-1].legend(fontsize=7)
    return drawn


def _points(found, family, values, backend, program):
    points = ((value, found.seconds(f"{family}-{value}", backend, program)) for value in values)
    return [(value, seconds) for value, seconds in points if seconds]


def _line(axes, points, style, label, colour):
    if points:
        axes.plot(*zip(*points, strict=True), style, label=label, color=colour, markersize=4, linewidth=1.4)
    return bool(points)


def ratios(figure, found, over):
    """One point for each claim of a ratio, on a line to 1, and its limit as a mark."""
    rows = [(row, found.ratio(row.case, row.backend, row.over, row.program)) for row in RATIOS if over(row.over)]
    rows = [(row, ratio) for row, ratio in rows if ratio]
    if not rows:
        return False
    figure.set_size_inches(8, 1.2 + 0.24 * len(rows))
    axes = figure.subplots()
    places = range(len(rows), 0, -1)
    for place, (row, ratio) in zip(places, rows, strict=True):
        shade = colour(row.backend, found.backends)
        axes.plot([ratio, 1.0], [place, place], color=shade, linewidth=2, alpha=0.5)
        axes.plot([ratio], [place], "o", color=shade)
        axes.annotate(f"{ratio:.3g}", (ratio, place), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=7)
        if row.limit is not None:
            axes.plot([row.limit] * 2, [place - 0.42, place + 0.42], color="black", linewidth=2)
    axes.set_yticks(places, [f"{row.case}: {row.backend}, {row.program} / {row.over}" for row, _ in rows], fontsize=7)
    axes.set_ylim(0.4, len(rows) + 0.8)
    limits = "; black: the limit" if any(row.limit is not None for row, _ in rows) else ""
    axes.set(xscale="log", xlabel=f"ratio of the medians{limits}")
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.grid(alpha=0.3, axis="x")
    return True


def memory(figure, found):
    rows = [e for e in found.entries if e["family"] == "memory"]
    if not rows:
        return False
    axes = figure.subplots()
    places = range(len(rows), 0, -1)
    extra = [e["mib"]["peak"] - e["mib"]["imported"] for e in rows]
    axes.barh(places, extra, color=[colour(e["backend"], found.backends) for e in rows], height=0.7)
    for place, mib in zip(places, extra, strict=True):
        axes.text(mib, place, f" {mib:.0f}", va="center", fontsize=7)
    axes.set_yticks(places, [f"{e['case']}: {e['backend']}, {e['program']}" for e in rows], fontsize=7)
    axes.set(xlabel="MiB, peak of a fresh process over the same with the framework imported")
    axes.grid(alpha=0.3, axis="x")
    return True

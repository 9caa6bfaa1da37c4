"""What issue 6 asks for, as rows: which figure, over which other, and how large it may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cases import FEWER, ROWS
from programs import on_rows

ALLOWED_MIB = 300.0
"""Peak memory that a fit may take over the imported framework, beside three times its samples."""


@dataclass(frozen=True)
class Ratio:
    """Seconds a step of one program over those of another, and the limit; None where the figure is only reported."""

    show: int
    case: str
    backend: str
    over: str
    limit: float | None
    program: str = "ours"


def _each(show, case, over, **limits):
    return tuple(Ratio(show, case, backend, over, limit) for backend, limit in limits.items())


RATIOS = (
    *(
        ratio
        for case in ("reference", "reference-penalised")
        for ratio in (
            *_each(1, case, "hand", jax=0.30, torch=0.30, autograd=0.10),
            Ratio(1, case, "jax", "scan", 0.90),
            Ratio(1, case, "jax", "unsynchronised", None),
            Ratio(1, case, "torch", "hand", 0.10, "compiled"),
            *_each(1, case, "NumPy", jax=None, torch=None, autograd=None),
            *_each(1, case, "C", jax=None, torch=None, autograd=None),
        )
    ),
    *_each(2, "two-128", "hand", torch=0.10, jax=0.12, autograd=0.05),
    *_each(2, "two-128-penalised", "hand", torch=0.5, jax=0.6, autograd=0.25),
    *_each(3, "two-512", "hand", torch=0.01, jax=0.01, autograd=0.01),
    *_each(3, "two-512-penalised", "hand", torch=0.4, jax=0.5),
    *_each(3, "one-512", "ours, squared score", torch=1.3, jax=1.3, autograd=1.3),
    *_each(3, "one-512", "squared score", torch=None, jax=None, autograd=None),
    *_each(4, f"n-{max(ROWS)}", "hand", torch=0.25, jax=0.25, autograd=0.25),
)


@dataclass(frozen=True)
class Answer:
    """One line of the table of claims."""

    show: int
    what: str
    backend: str
    found: str
    limit: str
    met: bool | None


def answers(found):
    """Every claim for which there are figures; `found` is a `report.Found`."""
    return [*_ratios(found), *_slopes(found), *_memory(found)]


def _ratios(found):
    for row in RATIOS:
        ratio = found.ratio(row.case, row.backend, row.over, row.program)
        if ratio is not None:
            limit = "" if row.limit is None else f"<= {row.limit:g}"
            met = None if row.limit is None else ratio <= row.limit
            yield Answer(row.show, f"{row.case}: {row.program} / {row.over}", row.backend, f"{ratio:.3g}", limit, met)


def slope(points):
    """Of the least-squares line through (log n, log seconds)."""
    logs = [(math.log(n), math.log(seconds)) for n, seconds in points]
    mean_x, mean_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def _slopes(found):
    for backend in found.backends:
        most = max(ROWS)
        names = {**{n: on_rows(n) for n in FEWER}, most: "ours"}
        points = [(n, found.seconds(f"n-{most}", backend, name)) for n, name in names.items()]
        if all(seconds for _, seconds in points):
            above, whole = slope(points[1:]), slope(points)
            what = "slope of log time by log n"
            yield Answer(4, f"{what}, above 1e4", backend, f"{above:.2f}", "1.0 +- 0.1", abs(above - 1) <= 0.1)
            yield Answer(4, f"{what}, with 1e4", backend, f"{whole:.2f}", "", None)


def _memory(found):
    for backend in found.backends:
        ours, hand = (found.extra_mib("two-512-penalised", backend, program) for program in ("ours", "hand"))
        if ours is not None and hand:
            what = f"two-512-penalised: extra peak memory, ours / hand ({ours:.0f} / {hand:.0f} MiB)"
            yield Answer(3, what, backend, f"{ours / hand:.3f}", "<= 0.15", ours / hand <= 0.15)
        case = f"n-{max(ROWS)}"
        extra, data = found.extra_mib(case, backend, "ours"), found.mib(case, backend, "ours", "data")
        if extra is not None:
            limit = 3.0 * data + ALLOWED_MIB
            yield Answer(4, f"{case}: extra peak memory, MiB", backend, f"{extra:.0f}", f"<= {limit:.0f}", extra <= limit)

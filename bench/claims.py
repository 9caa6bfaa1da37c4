"""The limits, as rows: which figure, over which other, and how large it may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cases import FEWER, ROWS
from programs import on_rows

ALLOWED_MIB = 300.0
"""Peak memory that a fit may take over the imported framework, beside three times its samples."""


REFERENCE = "the reference run"
"""1-8-1 network, 1024 rows, 500 steps."""
DEEP = "two hidden layers of 128"
WIDE = "784 dimensions, layers of 512"
MANY = f"up to {max(ROWS):,} rows"


@dataclass(frozen=True)
class Ratio:
    """Seconds a step of one program over those of another, and the limit; None where the figure is only reported.

    Attributes:
        on: The problem, in words: what a group of limits is about.
        case: Its row in `cases.py`.
        backend: Of both programs.
        over: The program that it is compared with.
        limit: Largest ratio.
        program: The one that is limited.
    """

    on: str
    case: str
    backend: str
    over: str
    limit: float | None
    program: str = "ours"


def _each(on, case, over, **limits):
    return tuple(Ratio(on, case, backend, over, limit) for backend, limit in limits.items())


RATIOS = (
    *(
        ratio
        for case in ("reference", "reference-penalised")
        for ratio in (
            *_each(REFERENCE, case, "hand", jax=0.30, torch=0.35, autograd=0.10),
            Ratio(REFERENCE, case, "jax", "scan", 0.90),
            Ratio(REFERENCE, case, "jax", "unsynchronised", None),
            Ratio(REFERENCE, case, "torch", "hand", 0.20, "compiled"),
            *_each(REFERENCE, case, "NumPy", jax=None, torch=None, autograd=None),
            *_each(REFERENCE, case, "C", jax=None, torch=None, autograd=None),
        )
    ),
    *_each(DEEP, "two-128", "hand", torch=0.10, jax=0.12, autograd=0.05),
    *_each(DEEP, "two-128-penalised", "hand", torch=0.5, jax=0.6, autograd=0.25),
    *_each(WIDE, "two-512", "hand", torch=0.01, jax=0.01, autograd=0.01),
    *_each(WIDE, "two-512-penalised", "hand", torch=0.4, jax=0.5),
    *_each(WIDE, "one-512", "ours, squared score", torch=1.3, jax=1.3, autograd=1.3),
    *_each(WIDE, "one-512", "squared score", torch=None, jax=None, autograd=None),
    *_each(MANY, f"n-{max(ROWS)}", "hand", torch=0.40, jax=0.25, autograd=0.25),
)


@dataclass(frozen=True)
class Answer:
    """One line of the table of limits; `on` as in `Ratio`."""

    on: str
    what: str
    backend: str
    found: str
    limit: str
    met: bool | None


def answers(found):
    """Every limit for which there are figures; `found` is a `report.Found`."""
    return [*_ratios(found), *_slopes(found), *_memory(found)]


def _ratios(found):
    for row in RATIOS:
        ratio = found.ratio(row.case, row.backend, row.over, row.program)
        if ratio is not None:
            limit = "" if row.limit is None else f"<= {row.limit:g}"
            met = None if row.limit is None else ratio <= row.limit
            yield Answer(row.on, f"{row.case}: {row.program} / {row.over}", row.backend, f"{ratio:.3g}", limit, met)


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
            yield Answer(MANY, f"{what}, above 1e4", backend, f"{above:.2f}", "1.0 +- 0.1", abs(above - 1) <= 0.1)
            yield Answer(MANY, f"{what}, with 1e4", backend, f"{whole:.2f}", "", None)


def _memory(found):
    for backend in found.backends:
        ours, hand = (found.extra_mib("two-512-penalised", backend, program) for program in ("ours", "hand"))
        if ours is not None and hand:
            what = f"two-512-penalised: extra peak memory, ours / hand ({ours:.0f} / {hand:.0f} MiB)"
            yield Answer(WIDE, what, backend, f"{ours / hand:.3f}", "<= 0.15", ours / hand <= 0.15)
        case = f"n-{max(ROWS)}"
        extra, data = found.extra_mib(case, backend, "ours"), found.mib(case, backend, "ours", "data")
        if extra is not None:
            limit = 3.0 * data + ALLOWED_MIB
            yield Answer(MANY, f"{case}: extra peak memory, MiB", backend, f"{extra:.0f}", f"<= {limit:.0f}", extra <= limit)

"""What a check found, as a table."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ismcore.samples import html

__all__ = ["Check", "Line", "Verdict"]

Verdict = Literal["fault found", "no fault found", "cannot tell"]
KINDS: dict[Verdict, html.Kind] = {"fault found": "bad", "no fault found": "good", "cannot tell": "open"}
NAME, NUMBER, MEANING = 26, 11, 70
"""Widths of the printed columns."""


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Attributes:
        name: What.
        statistic: Its value, if it has one.
        limit: The value beyond which it is a fault, if there is one.
        fault: Whether it is.
        meaning: What the statistic is, and what a value beyond the limit means.
    """

    name: str
    statistic: float | None
    limit: float | None
    fault: bool
    meaning: str


@dataclass(frozen=True)
class Check:
    """What rows that a fit has not seen, and what it knows itself, say against it; prints as a table.

    Fisher divergences are E|psi - score|^2 in coordinates in which each column of the rows that the competitors were fitted to
    has mean 0 and standard deviation 1; shares are of E|score|^2, estimated from the same rows.

    Attributes:
        verdict: "fault found", where one of 0.15 E|score|^2 is likely and some is certain; "no fault found", where one of
            a quarter of E|score|^2 would have been seen; or "cannot tell". No check can say that a fit is right.
        why: The verdict in a sentence.
        lines: All that was looked at.
        at_least: Lower bound of the fit's Fisher divergence, with 95 % confidence; 0 where nothing bounds it.
        at_least_share: The same as a share of E|score|^2.
        visible: The smallest Fisher divergence, further than that of a competitor, that would have been found in four of five
            samples of such rows; infinite where there was no competitor.
        visible_share: The same as a share.
        rows: Rows that judged, m; 0 without rows.
        independent: How many labels they have, if rows of one label may depend on each other; see `check`.
    """

    verdict: Verdict
    why: str
    lines: tuple[Line, ...]
    at_least: float = 0.0
    at_least_share: float = 0.0
    visible: float = math.inf
    visible_share: float = math.inf
    rows: int = 0
    independent: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON: what is infinite is None."""
        found = asdict(self)
        found["lines"] = [dict(line) for line in found["lines"]]
        return {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in found.items()}

    def __str__(self) -> str:
        head = textwrap.fill(f"{self.verdict}: {self.why}", 118)
        columns = f"{'':<{NAME}}{'statistic':>{NUMBER}}{'limit':>{NUMBER}}         meaning"
        return "\n".join([head, "", columns, *(_printed(line) for line in self.lines)])

    def _repr_html_(self) -> str:
        rows = [(line.name, line.statistic, line.limit, "fault" * line.fault, line.meaning) for line in self.lines]
        head = ("", "statistic", "limit", "", "meaning")
        return html.fragment(html.notice(KINDS[self.verdict], self.verdict, self.why), html.html_table(head, rows))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _printed(line: Line) -> str:
    first = (
        f"{line.name:<{NAME}}{_number(line.statistic):>{NUMBER}}{_number(line.limit):>{NUMBER}}  {'fault' * line.fault:<5}  "
    )
    return textwrap.fill(line.meaning, len(first) + MEANING, initial_indent=first, subsequent_indent=" " * len(first))

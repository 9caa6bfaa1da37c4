"""Faulty backends, each of which a named check of the conformance kit must catch, and the table of them for its page."""

from planted import derivatives, edges, operations, sessions, trial
from planted.faults import Fault, Table

__all__ = ["OWN", "TRIAL", "Fault", "table"]

TRIAL: Table = trial.TRIAL
"""What a trial with unknown frameworks found that the kit of then let pass."""
OWN: Table = {**operations.OWN, **derivatives.OWN, **sessions.OWN, **edges.OWN}
"""Written down before the kit was extended, by somebody who had not its checks before him."""


def table() -> str:
    """All faults in Markdown: what is wrong, and the check that says so."""
    lines = ["| fault | what is wrong | caught by |", "|---|---|---|"]
    for one in (*TRIAL.values(), *OWN.values()):
        lines.append(f"| `{one.name}` | {' '.join(one.words.split())} | `{one.check}` |")
    return "\n".join(lines)

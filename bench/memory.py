"""Peak memory of one program of a cell, in a process of its own: `python memory.py --worker JSON` writes JSON."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from measuring import peak_mib


def measure(case, backend, program, dtype, device):
    """MiB at the peak: with everything imported, with the samples there, and after two steps of the program."""
    importlib.import_module("autograd" if backend == "autograd" else f"by_hand.with_{backend}")
    from cases import case as find
    from programs import programs

    imported = peak_mib()
    found = find(case)
    data = found.x.nbytes / 2**20
    sampled = peak_mib()
    losses, _ = programs(found, backend, dtype, device)[program].take(2)
    return {"imported": imported, "sampled": sampled, "peak": peak_mib(), "data": data, "loss": float(losses[-1])}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.stdout.write(json.dumps(measure(**json.loads(sys.argv[2]))) + "\n")

"""What a first fit costs: `python cold.py --worker JSON` imports, prepares and takes a first chunk, and writes the seconds."""

from __future__ import annotations

import json
import sys
import time


def measure(backend, device, epochs=16):
    """Seconds to import all that a fit needs, to prepare it, and to take a first chunk of steps of the reference run."""
    start = time.perf_counter()
    from ismcore.plugins.lookup import load_backend

    load_backend(backend)
    imported = time.perf_counter() - start
    from cases import case
    from ours import fit

    begun = time.perf_counter()
    timings = fit(case("reference"), backend, epochs, device=device).timings
    whole = time.perf_counter() - begun
    return {"import": imported, "prepare": timings["prepare"], "first chunk": timings["run"], "whole call": whole}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(**json.loads(sys.argv[2]))) + "\n")

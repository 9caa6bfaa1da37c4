"""Memory and rows a second of fits whose rows stay on disk, beside the same fit from memory.

    python bench/outside_memory.py [--rows N] [--in-memory-rows N] [--media npy parquet] [--backend NAME] [--hidden H ...]

It writes rows of 8 columns of float32 to a temporary folder, 3.2 GB for 1e8 rows, as .npy, and as parquet in row groups of
65,536, and removes them at the end. Each fit runs in a process of its own: one epoch of one network, batches of 1024, and
131,072 rows held out. Memory is the largest resident set during the fit less that of the process with ismcore and the
framework imported. Rows a second are those trained on over the seconds of the steps, which the waiting for rows is part of and
the pass before the training is not; the other rate is over the processor time of all threads from the first step to the end,
which others on the machine change less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

COLUMNS, PART, HELD_OUT = 8, 2**20, 2**17
MOST_GB, LEAST_SHARE = 0.8, 0.8
CASES = ("memory", "npy", "parquet")


def rows_of(count, seed=0):
    """Rows in parts, (m, 8) float32: normal ones, each column bent by the square of the one before it."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for start in range(0, count, PART):
        x = rng.standard_normal((min(PART, count - start), COLUMNS), dtype=np.float32)
        x[:, 1:] += 0.3 * x[:, :-1] ** 2
        yield x


def write_npy(path, count):
    import numpy as np

    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, COLUMNS))
    start = 0
    for part in rows_of(count):
        file[start : start + len(part)] = part
        start += len(part)
    file.flush()


def write_parquet(path, count):
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"x{j}" for j in range(COLUMNS)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        for part in rows_of(count):
            writer.write_table(pa.table(list(part.T.copy()), names=names), row_group_size=2**16)


def resident(what):
    """VmRSS, the resident memory of this process, or VmHWM, the most since `forget_the_most`, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024 / 1e9


def forget_the_most():
    Path("/proc/self/clear_refs").write_text("5")


def measure(case, path, rows, backend, hidden):
    """One fit, in this process."""
    import numpy as np

    import ismcore
    from ismcore.plugins.lookup import load_backend

    if case == "parquet":
        import pyarrow.dataset  # noqa: F401  (a framework too)
    warnings.simplefilter("ignore", ismcore.IsmWarning)
    small = np.random.default_rng(0).normal(size=(400, COLUMNS))
    plain = {"model": ismcore.MLP(tuple(hidden)), "backend": backend, "recipe": "single", "batch_size": 1024, "progress": False}
    ismcore.fit(small, epochs=1, **plain)  # imports, and compiles where that is done
    load_backend(backend)
    before = resident("VmRSS")
    forget_the_most()
    start, processor = time.monotonic(), []
    plain |= {"validation": HELD_OUT / rows, "callbacks": [lambda event: processor.append(time.process_time())]}
    x = np.concatenate(list(rows_of(rows))) if case == "memory" else getattr(ismcore.sources, case)(path)
    result = ismcore.fit(x, epochs=1, **plain)
    seconds, run = time.monotonic() - start, result.timings["run"]
    return {
        "case": case,
        "rows": rows,
        "backend": backend,
        "GB above the imports": round(resident("VmHWM") - before, 3),
        "rows a second": round((rows - result.held_out) / run),
        "rows a second of processor time": round((rows - result.held_out) / (processor[-1] - processor[0])),
        "seconds of the fit": round(seconds, 1),
        "of them steps": round(run, 1),
        "held-out loss": float(result.history["validation_loss"][-1]),
    }


def measured_apart(case, path, rows, backend, hidden):
    command = [sys.executable, __file__, "--case", case, "--path", str(path), "--rows", str(rows), "--backend", backend]
    command += ["--hidden", *map(str, hidden)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  (our own program)
    return json.loads(done.stdout.splitlines()[-1])


def say(found):
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10**8)
    parser.add_argument("--in-memory-rows", type=int, default=10**7)
    parser.add_argument("--media", nargs="*", choices=CASES[1:], default=list(CASES[1:]))
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        say(measure(given.case, given.path, given.rows, given.backend, given.hidden))
        return 0
    about = given.backend, given.hidden
    memory = measured_apart("memory", "", given.in_memory_rows, *about)
    say(memory)
    failed = False
    for medium in given.media:
        with tempfile.TemporaryDirectory(prefix="ismcore-rows-") as folder:
            path = Path(folder) / f"rows.{medium}"
            {"npy": write_npy, "parquet": write_parquet}[medium](path, given.rows)
            found = measured_apart(medium, path, given.rows, *about)
        shares = {rate: round(found[rate] / memory[rate], 2) for rate in memory if rate.startswith("rows a second")}
        say({**found, "shares of the rates from memory": shares})
        failed |= found["GB above the imports"] > MOST_GB or shares["rows a second"] < LEAST_SHARE
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

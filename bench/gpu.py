"""What a GPU does, in one command: `python bench/gpu.py`, with whatever torch or JAX is installed, in under ten minutes.

Parts, of which `--parts` takes some: the reference run, wide networks and up to 10^7 rows, each beside the program by hand;
peak memory of the device; and the conformance kit in both dtypes. Each has a process of its own for each backend, and what it
had found when it was stopped, or died, stays. Written are `reports/gpu.{json,md}` and `reports/matrix-gpu.md`.

    python bench/gpu.py                                                # every backend that has a GPU
    python bench/gpu.py --backends torch --parts reference kit
    python bench/gpu.py --device cpu --smallest --out FOLDER           # whether the program runs; no measurement
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cases import Case, case
from measuring import REPORTS, machine, peak_mib, versions
from programs import CHECKED, programs
from rounds import TOLERANCE, interleaved, missing_device

from ismcore.testing.matrix import Matrix
from ismcore.testing.report import Report, Row, check_backend

BACKENDS = ("torch", "jax")
TIMED = {
    "reference": ("reference", "reference-penalised"),
    "wide": ("two-128", "two-128-penalised", "one-512", "two-512", "two-512-penalised"),
    "rows": ("n-10000", "n-100000", "n-1000000", "n-10000000"),
}
SMALLEST = {"reference": ("reference",), "wide": ("two-128",), "rows": ("n-1000",)}
PEAKS, SMALLEST_PEAKS = ("two-512-penalised", "n-10000000"), ("n-1000",)
PARTS = (*TIMED, "memory", "kit")
WANTED = ("ours", "hand", "unsynchronised", "scan", "compiled", "squared score", "ours, squared score")
"""Programs that are run, where a case and a backend have them: no floor on the host."""
FEW_CHECKS = ("check_vjp", "check_loss*", "check_round_trip")
SHARE = {"reference": 0.1, "wide": 0.15, "rows": 0.15, "memory": 0.12, "kit": 0.42}
"""Of the minutes, shared by the backends; the rest is for what starting processes takes."""
COMPLETE, UNAVAILABLE = 0, 3


@dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        part: One of `PARTS`.
        backend: One of `BACKENDS`, or on a CPU any.
        device: Where.
        smallest: Whether it is to show only that it runs.
        seconds: After which it is stopped.
        program: Of which the memory is measured.
    """

    part: str
    backend: str
    device: str
    smallest: bool
    seconds: float
    program: str = ""


def found_case(id):
    """A row of `cases.py`, or the one with more rows than that table has."""
    return replace(case("n-1000000"), id=id, n=10**7, rounds=3, beside=("hand",)) if id == "n-10000000" else case(id)


def timings(job):
    """One row a program of each case of the part: seconds of each round, or why it was not timed."""
    for id in (SMALLEST if job.smallest else TIMED)[job.part]:
        cell: Case = found_case(id)
        names = WANTED[:2] if job.smallest else WANTED
        wanted = {name: found for name, found in programs(cell, job.backend, "float32", job.device).items() if name in names}
        if job.smallest:
            wanted = {name: replace(program, epochs=CHECKED) for name, program in wanted.items()}
        measured = interleaved(wanted, 1 if job.smallest else min(cell.rounds, 5), TOLERANCE["float32"])
        for name, timed in measured.items():
            failed = isinstance(timed, str)
            yield {
                "case": id,
                "program": name,
                **({"why": timed} if failed else {"seconds": timed.steps, "first": timed.first}),
            }


def memory(job):
    """Peak memory of the device, or of the process on a CPU, after two steps of one program of each case."""
    for id in SMALLEST_PEAKS if job.smallest else PEAKS:
        prepared = programs(found_case(id), job.backend, "float32", job.device)
        if job.program in prepared:
            prepared[job.program].take(2)
            yield {"case": id, "program": job.program, "mib": device_peak_mib(job)}


def device_peak_mib(job):
    """Most memory that was allocated at once, as the framework counts it."""
    if job.device == "cpu":
        return peak_mib()
    if job.backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated(job.device) / 2**20
    import jax

    return next(d for d in jax.devices() if d.platform != "cpu").memory_stats()["peak_bytes_in_use"] / 2**20


def kit(job):
    """The report of the conformance kit, in both dtypes; every check on its first case, and on others while there is time."""
    for dtype in ("float64", "float32"):
        only = FEW_CHECKS if job.smallest else ()
        report = check_backend(job.backend, dtype=dtype, device=job.device, only=only, within=0.4 * job.seconds)
        yield {"report": asdict(report)}


def device_name(job):
    """What the device calls itself."""
    if job.device == "cpu":
        return machine()["cpu"]
    if job.backend == "torch":
        import torch

        return torch.cuda.get_device_name(job.device)
    import jax

    return next(d for d in jax.devices() if d.platform != "cpu").device_kind


def work(job, file):
    """Write one line of JSON for each thing found, so that what was found stays if this process is stopped."""
    found = {"memory": memory, "kit": kit}.get(job.part, timings)
    with open(file, "w", encoding="utf-8") as out:

        def write(row):
            out.write(json.dumps({"part": job.part, "backend": job.backend, "device": job.device, **row}) + "\n")
            out.flush()

        write({"part": "device", "name": device_name(job), "versions": versions()})
        for row in found(job):
            write(row)


def in_a_process(job):
    """The rows that a process for the job found, and why it ended early, or ""."""
    # JAX would take the whole memory of the device, and its peak would tell nothing
    environment, why = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, ""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        command = [sys.executable, __file__, "--worker", json.dumps(asdict(job)), str(file)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=job.seconds, check=False)  # noqa: S603
            if done.returncode:
                why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            why = f"stopped after {job.seconds:.0f} s"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")], why


def jobs(options, backends):
    """What is run: the parts one after the other, each on every backend."""
    for part in PARTS:
        if part in options.parts:
            seconds = 60.0 * options.minutes * SHARE[part] / len(backends)
            for backend in backends:
                job = Job(part, backend, options.device, options.smallest, seconds)
                if part == "memory":
                    yield from (replace(job, program=program, seconds=seconds / 2) for program in ("ours", "hand"))
                else:
                    yield job


def measured(options, backends):
    """All rows, and what ended early and why, as [part, backend, why]."""
    rows, stopped, began = [], [], time.monotonic()
    for job in jobs(options, backends):
        left = 60.0 * options.minutes - (time.monotonic() - began)
        if left < 1.0:
            stopped.append([job.part, job.backend, "left out: there was no time"])
            continue
        sys.stderr.write(f"{job.part} {job.backend} {job.program}\n")
        found, why = in_a_process(replace(job, seconds=min(job.seconds, left)))
        rows += found
        stopped += [[job.part, job.backend, why]] if why else []
    return rows, stopped


def matrix_of(rows):
    """The kit's reports as the matrix that `ismcore.testing.matrix` prints."""
    found = [row["report"] for row in rows if row["part"] == "kit"]
    reports = [Report(**{**report, "rows": tuple(Row(**row) for row in report["rows"])}) for report in found]
    return Matrix(tuple(reports), {}, ())


def heading(options, rows):
    """Title and circumstances; a run on a CPU cannot be taken for another."""
    about = {row["backend"]: row for row in rows if row["part"] == "device"}
    devices = "; ".join(f"{backend} on {row['name']}" for backend, row in about.items()) or "nothing ran"
    used = {name: number for row in about.values() for name, number in row["versions"].items()}
    dry = options.device == "cpu"
    yield "# A dry run on a CPU: no measurement of a GPU" if dry else "# On a GPU"
    yield ""
    yield f"Written by `python bench/gpu.py`, parts {', '.join(options.parts)}. {devices}."
    yield f"Versions: {', '.join(f'{name} {number}' for name, number in used.items())}."
    yield ""


def timing_table(rows):
    """Seconds a step of ours and of each program beside it, and their ratio; the medians of the rounds."""
    yield "| part | case | backend | program | ms a step | ours / it |"
    yield "|---|---|---|---|---:|---:|"
    medians = {(r["case"], r["backend"], r["program"]): statistics.median(r["seconds"]) for r in rows if r.get("seconds")}
    for row in rows:
        if row["part"] not in TIMED:
            continue
        key = row["case"], row["backend"], row["program"]
        ours, own = medians.get((*key[:2], "ours")), medians.get(key)
        found = f"{1e3 * own:.3g}" if own else f"not timed: {row['why']}"
        ratio = f"{ours / own:.2f}" if ours and own and row["program"] != "ours" else ""
        yield f"| {row['part']} | {' | '.join(key)} | {found} | {ratio} |"
    yield ""


def memory_table(rows):
    """Peak memory."""
    yield "| case | backend | program | peak memory, MiB |"
    yield "|---|---|---|---:|"
    yield from (f"| {r['case']} | {r['backend']} | {r['program']} | {r['mib']:.0f} |" for r in rows if r["part"] == "memory")
    yield ""


def page(options, rows, stopped, seconds):
    """The report in Markdown."""
    yield from heading(options, rows)
    yield from timing_table(rows)
    yield from memory_table(rows)
    for report in matrix_of(rows).reports:
        counts = f"{report.count('passed')} passed, {len(report.failures)} failed, {report.left_out} left out"
        yield f"- kit, {report.backend} in {report.dtype} on {report.device}: {counts}"
    yield from (f"- {part}, {backend}: {why}" for part, backend, why in stopped)
    yield f"- all of it took {seconds:.0f} s"


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="all unless said")
    add("--backends", nargs="+", default=list(BACKENDS), help="torch and jax unless said")
    add("--device", default="cuda", help="'cpu' shows that the program runs, with --smallest in seconds")
    add("--smallest", action="store_true", help="small cells, few steps, few checks: whether it runs")
    add("--minutes", type=float, default=9.5, help="in all (default: %(default)s)")
    add("--out", type=Path, help="folder of the reports (default: bench/reports, for a GPU alone)")
    return parser.parse_args(words)


def main(words=None):
    words = sys.argv[1:] if words is None else list(words)
    if words[:1] == ["--worker"]:
        work(Job(**json.loads(words[1])), words[2])
        return COMPLETE
    options = parse(words)
    missing = {backend: missing_device(backend, options.device) for backend in options.backends}
    backends = [backend for backend, why in missing.items() if not why]
    for backend, why in missing.items():
        sys.stderr.write(f"{backend}: {why}\n" if why else "")
    out = options.out or (None if options.device == "cpu" else REPORTS)
    if not backends or out is None:
        sys.stderr.write("nothing was run; on a CPU, --device cpu --smallest --out FOLDER shows whether the program runs\n")
        return UNAVAILABLE
    began = time.monotonic()
    rows, stopped = measured(options, backends)
    seconds = time.monotonic() - began
    out.mkdir(parents=True, exist_ok=True)
    data = {
        "device": options.device,
        "dry_run": options.device == "cpu",
        "machine": machine(),
        "rows": rows,
        "stopped": stopped,
    }
    (out / "gpu.json").write_text(json.dumps({**data, "seconds": seconds}, indent=1) + "\n")
    (out / "gpu.md").write_text("\n".join(page(options, rows, stopped, seconds)) + "\n")
    if "kit" in options.parts:
        (out / "matrix-gpu.md").write_text("\n".join(heading(options, rows)) + "\n" + matrix_of(rows).to_markdown())
    sys.stdout.write(f"{out / 'gpu.md'}\n")
    return COMPLETE


if __name__ == "__main__":
    sys.exit(main())

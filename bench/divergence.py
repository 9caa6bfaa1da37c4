"""Exact divergence by closed formulas, beside one Hutchinson probe and beside the d-fold nested loop: time and memory.

    python bench/divergence.py [--quick] [--threads N]

Loss and gradient in float32, two hidden layers, softplus, warm, through the function that a prepared session steps with. One
fresh process for each measurement. Exact divergence and one probe alternate within each round, and the ratio is of medians; the
nested loop is evaluated a single time, after the rounds of the closed formulas. A route is
timed only where its loss and every gradient agree with the same in float64, to 1e-4 of max(1, largest magnitude), and where the
closed formulas agree with nested differentiation in float64, to 1e-10, on the first rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np
from measuring import (
    Evaluation,
    error,
    heading,
    in_fresh_process,
    interleaved,
    machine,
    median,
    two_hidden,
    versions,
    write_report,
)

from ismcore import Hutchinson, ImplicitScoreMatching

BACKENDS = ("autograd", "torch", "jax")
SMALL = {"d": 16, "width": 128}
LARGE = {"d": 784, "width": 512}
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
CURVATURE = 0.1
CLAIMS = {"small probe": 1.1, "large probe": 1.6, "large nested": 0.01}
CLAIMED_ROWS = 512


def samples(n, d):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)), rng.choice([-1.0, 1.0], size=(1, n, d))


def checked(backend, model, x, objective):
    """The prepared evaluation in float32, once it agrees with float64."""
    single = Evaluation(backend, model, objective, x)
    route = objective
    if objective.divergence == "nested":
        route = ImplicitScoreMatching(objective.curvature_weight, "analytic")
    double = Evaluation(backend, model, route, x, dtype="float64").values()
    found = error(single.values(), double)
    assert found < TOLERANCE["float32"], f"{backend}: {objective} is off by {found:.1e} in float32; it is not timed"
    return single, found


def formulas_hold(backend, model, d, weight=0.0):
    """Error of the closed formulas against nested differentiation, in float64, on as many rows as are soon done."""
    x = samples(3, d)[0]
    routes = (ImplicitScoreMatching(weight, route) for route in ("analytic", "nested"))
    analytic, nested = (Evaluation(backend, model, route, x, dtype="float64").values() for route in routes)
    found = error(analytic, nested)
    assert found < TOLERANCE["float64"], f"{backend}: the closed formulas are off by {found:.1e}; they are not timed"
    return found


def time_probe(backend, d, width, n, rounds):
    """Exact divergence and one probe, interleaved."""
    model, (x, probes) = two_hidden(width), samples(n, d)
    holds = formulas_hold(backend, model, d)
    exact, exact_error = checked(backend, model, x, ImplicitScoreMatching(divergence="analytic"))
    probe, probe_error = checked(backend, model, x, ImplicitScoreMatching(divergence=Hutchinson(probes=probes)))
    seconds = interleaved({"analytic": exact, "probe": probe}, rounds)
    return {"errors": {"formula": holds, "analytic": exact_error, "probe": probe_error}, "seconds": seconds}


def time_nested(backend, d, width, n, rounds, weight):
    """Closed formulas and one evaluation of the d-fold loop, on the same rows; both have run once before, for the check."""
    model, x = two_hidden(width), samples(n, d)[0]
    holds = formulas_hold(backend, model, d, weight)
    exact, exact_error = checked(backend, model, x, ImplicitScoreMatching(weight, "analytic"))
    seconds = interleaved({"analytic": exact}, rounds, warm=1)
    nested, nested_error = checked(backend, model, x, ImplicitScoreMatching(weight, "nested"))
    seconds |= interleaved({"nested": nested}, 1, warm=0)
    return {"errors": {"formula": holds, "analytic": exact_error, "nested": nested_error}, "seconds": seconds}


def peak_memory(backend, d, width, n, weight, route):
    """Growth of the process's peak memory in one evaluation, over what it is with everything imported and prepared, in MiB."""
    evaluate = Evaluation(backend, two_hidden(width), ImplicitScoreMatching(weight, route), samples(n, d)[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    evaluate()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"prepared_mib": before / unit, "extra_mib": (after - before) / unit, "first_seconds": seconds}


TASKS = {task.__name__: task for task in (time_probe, time_nested, peak_memory)}


def plan(backend, *, quick):
    """Task and arguments of every measurement on one backend."""
    few, nested_rows, rows = (5, 16, 32) if quick else (15, 512, 512)
    yield "small probe", "time_probe", {**SMALL, "n": 512, "rounds": 20 if quick else 100}
    yield "large probe", "time_probe", {**LARGE, "n": 512, "rounds": few}
    yield "large nested", "time_nested", {**LARGE, "n": nested_rows, "rounds": few, "weight": 0.0}
    yield "curvature nested", "time_nested", {**LARGE, "n": 16 if quick else 64, "rounds": 3, "weight": CURVATURE}
    yield "memory", "peak_memory", {**LARGE, "n": rows, "weight": CURVATURE, "route": "analytic"}
    less = {**LARGE, "n": 16 if quick else 64, "weight": CURVATURE}
    yield "memory, few rows", "peak_memory", {**less, "route": "analytic"}
    yield "memory, few rows, nested", "peak_memory", {**less, "route": "nested"}


def times_table(results):
    lines = [
        "| what | d | width | n | backend | analytic, ms | beside it, ms | ratio | claim |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    names = {
        "small probe": "one probe",
        "large probe": "one probe",
        "large nested": "nested loop",
        "curvature nested": f"nested loop, curvature_weight {CURVATURE}",
    }
    for key, what in names.items():
        for (backend, name), (arguments, found) in results.items():
            if name != key:
                continue
            ours, other = (1e3 * median(value) for value in found["seconds"].values())
            claim = f"<= {CLAIMS[key]}" if key in CLAIMS and arguments["n"] == CLAIMED_ROWS else ""
            place = " | ".join(str(arguments[k]) for k in ("d", "width", "n"))
            lines.append(f"| {what} | {place} | {backend} | {ours:.3g} | {other:.4g} | {ours / other:.3g} | {claim} |")
    return "\n".join(lines)


def memory_table(results):
    lines = ["| route | d | width | n | backend | prepared, MiB | extra at peak, MiB |", "|---|---|---|---|---|---|---|"]
    for (backend, name), (arguments, found) in results.items():
        if name.startswith("memory"):
            place = " | ".join(str(arguments[k]) for k in ("route", "d", "width", "n"))
            lines.append(f"| {place} | {backend} | {found['prepared_mib']:.0f} | {found['extra_mib']:.0f} |")
    return "\n".join(lines)


def report(results, *, quick, threads):
    command = "python bench/divergence.py" + " --quick" * quick + f" --threads {threads}"
    worst = max(max(found["errors"].values()) for _, found in results.values() if "errors" in found)
    return "\n".join(
        [
            heading("Exact divergence: time and memory", command, threads),
            "Loss and gradient, float32, two hidden layers, softplus, warm; medians over rounds. One probe is `Hutchinson(1)`",
            "as `divergence`, same backend, in turn with the analytic route. The nested loop, `nested`, takes d directional",
            "derivatives: a single evaluation, warm, after the rounds of the analytic route and not in turn with them, so its",
            "ratios carry the noise of one timing. Ratio: analytic over the other, same n; claims are for n = 512.",
            "",
            times_table(results),
            "",
            f"## Memory with curvature_weight {CURVATURE}",
            "",
            "A fresh process for each line: growth of the peak resident memory in the first evaluation, over that of the",
            "process with framework, samples and parameters in place. JAX compiles within it.",
            "",
            memory_table(results),
            "",
            f"Every route was checked before it was timed; the largest relative error against float64 was {worst:.1e}.",
            "",
        ]
    )


def parse():
    parser = argparse.ArgumentParser(description="Exact divergence beside one probe and beside nested differentiation.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and rows: half a minute a backend")
    parser.add_argument("--threads", type=int, default=1, help="threads of each framework; 1 is steadiest on a shared machine")
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse()
    if options.worker:
        task = json.loads(options.worker)
        sys.stdout.write(json.dumps(TASKS[task["task"]](**task["arguments"])) + "\n")
        return
    results = {}
    for backend in options.backends:
        for name, task, arguments in plan(backend, quick=options.quick):
            job = {"task": task, "arguments": {"backend": backend, **arguments}}
            results[backend, name] = (arguments, in_fresh_process(__file__, job, options.threads))
            sys.stdout.write(f"{backend}: {name}: done\n")
            sys.stdout.flush()
    data = {
        "machine": machine(options.threads),
        "versions": versions(),
        "results": [{"backend": b, "what": name, **arguments, **found} for (b, name), (arguments, found) in results.items()],
    }
    text = report(results, quick=options.quick, threads=options.threads)
    write_report("divergence", text, data)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()

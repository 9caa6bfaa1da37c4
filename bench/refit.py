"""What a call of `ismcore.Refit` costs beside its steps, and what a fit from the last parameters costs in its place.

    python bench/refit.py [--rounds N] [--threads N]

Plain steps are 25 in one call of a prepared session, on samples that stay where they are. A call is an update of 25 steps on
samples that have moved; or that and the score at them, as a particle method makes it 500 times. All alternate in a round, and
each number is of the lower quartiles of processor time, which others on the machine change least: overhead, in steps, is the
call's time over that of the plain steps, times 25, less 25.
"""

from __future__ import annotations

import argparse
import os
import time

CASES = (
    ("particles in the plane", 1600, 2, (32, 32)),
    ("Landau, d = 3", 3200, 3, (32, 32, 32)),
    ("few and small", 400, 2, (32,)),
)
BACKENDS = ("autograd", "torch", "jax")
STEPS, CLAIM = 25, 2.0


def alternating(calls, rounds):
    """Seconds of processor time of each call in each round: others on the machine count less than by the clock."""
    for call in calls.values():
        call()
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return seconds


def measured(backend, n, d, hidden, rounds):
    import numpy as np

    import ismcore
    from ismcore.plugins.lookup import load_backend
    from ismcore.problem import Steps

    x = np.random.default_rng(0).normal(size=(n, d))
    moved = iter(x * (1.0 + 1e-3 * k) for k in range(10**9))
    model = ismcore.MLP(hidden)
    refit, scored = (ismcore.Refit(x, model=model, optimizer=ismcore.Adam(1e-3), backend=backend) for _ in range(2))
    plain = {"recipe": "reference", "standardize": True, "validation": 0, "epochs": STEPS, "progress": False}
    begun = ismcore.fit(x, model=model, backend=backend, **plain)
    engine = load_backend(backend)(dtype="float32")
    with engine.scope():
        session = engine.prepare(refit._problem, refit._state)
    rates = np.full(STEPS, 1e-3)

    def steps():
        with engine.scope():
            session.run(Steps(rates))

    def follow():
        points = next(moved)
        scored.update(points, steps=STEPS)
        scored.score(points)

    calls = {
        "steps": steps,
        "update": lambda: refit.update(next(moved), steps=STEPS),
        "update and score": follow,
        "fit": lambda: ismcore.fit(next(moved), initial_params=begun, backend=backend, optimizer=ismcore.Adam(1e-3), **plain),
    }
    seconds = {name: float(np.quantile(times, 0.25)) for name, times in alternating(calls, rounds).items()}
    step = seconds.pop("steps") / STEPS
    return {"step": step, **{name: took / step - STEPS for name, took in seconds.items()}}


def report(rounds, threads):
    from measuring import heading, write_report

    rows = []
    lines = [
        heading("A fit kept open: what a call costs beside its steps", f"python bench/refit.py --threads {threads}", threads),
        f"Float32. Overhead in plain steps, of {STEPS} a call; claimed for an update: at most {CLAIM:g}.\n",
        "| particles | n | d | hidden | backend | a plain step, us | update | update and score | a fit from there |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, n, d, hidden in CASES:
        for backend in BACKENDS:
            found = measured(backend, n, d, hidden, rounds)
            rows.append({"case": name, "n": n, "d": d, "hidden": hidden, "backend": backend, **found})
            numbers = " | ".join(f"{found[what]:.1f}" for what in ("update", "update and score", "fit"))
            lines.append(f"| {name} | {n} | {d} | {hidden} | {backend} | {1e6 * found['step']:.0f} | {numbers} |")
            print(lines[-1], flush=True)  # noqa: T201
    write_report("refit", "\n".join(lines) + "\n", {"rows": rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before NumPy is imported
        os.environ[name] = str(given.threads)
    report(given.rounds, given.threads)

"""Processes that share a fit, on loopback: what an all-reduce costs, and how long the others live after kill -9 of one.

python bench/processes.py cost      # microseconds of an all-reduce of P + 1 numbers, by P and processes
python bench/processes.py kills     # ten random moments: seconds until the other has ended, and what it said
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES, CALLS = (25, 1000, 30_000, 1_066_768), 200


def say(text):
    """Write it at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def environment(world, rank, port):
    """That of torchrun, for one process on loopback."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "RANK": str(rank)}
    return {**os.environ, **place, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def started(world, *words):
    """So many processes of this script."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, pipe = [sys.executable, __file__, *words], subprocess.PIPE
    return [
        subprocess.Popen(command, env=environment(world, rank, port), stdout=pipe, stderr=pipe, text=True)  # noqa: S603
        for rank in range(world)
    ]


def reduce():
    """One of the processes of `cost`."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    for size in SIZES:
        vector, seconds = torch.zeros(size + 1), []
        for _ in range(CALLS):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(vector)
            seconds.append(time.perf_counter() - start)
        if dist.get_rank() == 0:
            say(f"{dist.get_world_size()} processes, P = {size}: {1e6 * float(np.median(seconds)):.0f} us\n")
    dist.destroy_process_group()


def share(folder):
    """One of the processes of `kills`: a fit that does not end."""
    import ismcore_torch

    import ismcore

    x = np.random.default_rng(0).normal(size=(1201, 2))
    plain = {"backend": "torch", "recipe": "single", "epochs": 10**6, "batch_size": 40, "validation": 0, "progress": False}
    begun = Path(folder) / f"begun{os.environ['RANK']}"
    with ismcore_torch.processes():
        where = ismcore.Checkpoint(Path(folder) / "run", every=0.05)
        ismcore.fit(x, checkpoint=where, callbacks=[lambda event: begun.touch()], **plain)


def kill(number, rng):
    """Kill one of two at a random moment, and go on from the checkpoint."""
    import ismcore

    with tempfile.TemporaryDirectory() as folder:
        running = started(2, "share", folder)
        while not all((Path(folder) / name).exists() for name in ("run", "begun0", "begun1")):
            time.sleep(0.02)
        victim, after = int(rng.integers(2)), float(rng.uniform(0.0, 2.0))
        time.sleep(after)
        running[victim].kill()
        start = time.monotonic()
        _, said = running[1 - victim].communicate(timeout=60)
        seconds = time.monotonic() - start
        running[victim].communicate()
        x = np.random.default_rng(0).normal(size=(1201, 2))
        stopped = ismcore.load(Path(folder) / "run")
        epochs = len(stopped.history["loss"]) + 2
        result = ismcore.resume(Path(folder) / "run", x, epochs=epochs, progress=False)
    last = said.strip().splitlines()[-1]
    say(f"{number}: process {victim} killed after {after:.2f} s; {seconds:.1f} s later: {last}; resumed: {result.status}\n")


def main(what, *words):
    """Run what is asked for."""
    if what == "reduce":
        reduce()
    elif what == "share":
        share(*words)
    elif what == "cost":
        for world in (2, 4):
            say(started(world, "reduce")[0].communicate(timeout=300)[0])
    else:
        rng = np.random.default_rng()
        for number in range(10):
            kill(number, rng)


if __name__ == "__main__":
    main(*sys.argv[1:])

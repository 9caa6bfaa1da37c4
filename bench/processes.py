"""Processes that share a fit, on loopback: what an all-reduce costs, and how long the others live after kill -9 of one.

python bench/processes.py cost BACKEND      # microseconds of an all-reduce of P + 1 numbers, by P and processes
python bench/processes.py kills BACKEND     # ten random moments: seconds until the other has ended, and what it said

BACKEND is torch or jax.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES, CALLS, IN_A_LOOP = (25, 1000, 30_000, 1_066_768), 200, 20


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


def reduce(backend):
    """One of the processes of `cost`."""
    timed = {"torch": torch_seconds, "jax": jax_seconds}[backend]
    for size, seconds in zip(SIZES, timed(), strict=True):
        if os.environ["RANK"] == "0":
            found = " us, least ".join(f"{1e6 * float(f(seconds)):.0f}" for f in (np.median, np.min))
            say(f"{backend}, {os.environ['WORLD_SIZE']} processes, P = {size}: median {found} us\n")


def torch_seconds():
    """Seconds of each all-reduce of gloo, for each size."""
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
        yield seconds
    dist.destroy_process_group()


def jax_seconds():
    """The same of JAX's sums over a mesh, 20 in a loop of one program at a time, as in a fit."""
    import jax
    from ismcore_jax.sharing.mesh import OWN, SAME, total

    from ismcore.backend.processes import shared

    with sharing("jax"):
        mesh = shared().mesh
        for size in SIZES:

            def summed(own):
                return jax.lax.fori_loop(0, IN_A_LOOP, lambda _, x: total(x) / mesh.size, own[0])

            program = jax.jit(jax.shard_map(summed, mesh=mesh, in_specs=OWN, out_specs=SAME, check_vma=False))
            own, seconds = shared().placed(np.ones((1, size + 1), np.float32)), []
            for _ in range(1 + CALLS // IN_A_LOOP):
                shared().gather([0.0])
                start = time.perf_counter()
                program(own).block_until_ready()
                seconds.append((time.perf_counter() - start) / IN_A_LOOP)
            yield seconds[1:]  # the first compiles


def sharing(backend):
    """What shares the fits of this process with those of the others."""
    if backend == "torch":
        import ismcore_torch

        return ismcore_torch.processes()
    import ismcore_jax

    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return ismcore_jax.processes(address, int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]))


def share(backend, folder):
    """One of the processes of `kills`: a fit that does not end."""
    import ismcore

    x = np.random.default_rng(0).normal(size=(1201, 2))
    plain = {"backend": backend, "recipe": "single", "epochs": 10**6, "batch_size": 40, "validation": 0, "progress": False}
    begun = Path(folder) / f"begun{os.environ['RANK']}"
    with sharing(backend):
        where = ismcore.Checkpoint(Path(folder) / "run", every=0.05)
        ismcore.fit(x, checkpoint=where, callbacks=[lambda event: begun.touch()], **plain)


def kill(backend, number, rng):
    """Kill one of two at a random moment, and go on from the checkpoint."""
    import ismcore

    with tempfile.TemporaryDirectory() as folder:
        running = started(2, "share", backend, folder)
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
        reduce(*words)
    elif what == "share":
        share(*words)
    elif what == "cost":
        for world in (2, 4):
            say(started(world, "reduce", *words)[0].communicate(timeout=300)[0])
    else:
        rng = np.random.default_rng()
        for number in range(10):
            kill(*words, number, rng)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a process can do that was forked, or spawned, from one that has run a fit: `python tests/forking.py BACKEND`."""

import json
import multiprocessing
import os
import sys
import warnings

import numpy as np

import ismcore

SECONDS = 60
X = np.random.default_rng(0).normal(size=(30_000, 3))  # enough rows for a framework to use its threads


def fit(backend):
    return ismcore.fit(
        X, backend=backend, model=ismcore.MLP((8,), "sigmoid"), epochs=2, progress=False, validation=0, batch_size="all"
    )


def same(one, two):
    return all(np.allclose(one.params[name], two.params[name], rtol=1e-4, atol=1e-5) for name in one.params)


def outcome(work):
    try:
        return "same" if work() else "other"
    except ismcore.IsmError as error:
        return f"{type(error).__name__}: {error}"


def in_child(result, backend):
    return {
        "score": outcome(lambda: np.array_equal(result.score(X[:100]), result.score(X)[:100])),
        "fit": outcome(lambda: same(fit(backend), result)),
        "evaluate": outcome(lambda: np.isfinite(result.divergence(X)).all()),
    }


def in_fork(result, backend):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(SECONDS)  # what hangs is ended, and said below
        os.write(writing, json.dumps(in_child(result, backend)).encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 100_000)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(said) if ended == 0 else f"ended by {ended}"


def send(queue, backend):
    queue.put(fit(backend).params)


def in_spawned(result, backend):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=send, args=(queue, backend))
    process.start()
    params = queue.get(timeout=SECONDS)
    process.join()
    return all(np.allclose(params[name], value, rtol=1e-4, atol=1e-5) for name, value in result.params.items())


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # JAX and Python warn of the fork, rightly
    backend = sys.argv[1]
    result = fit(backend)
    json.dump({"fork": in_fork(result, backend), "spawn": in_spawned(result, backend)}, sys.stdout)

"""Peak memory of the exact divergence at d = 784 with a bound set, measured from outside; its value stays the same."""

import os
import subprocess
import sys
import tracemalloc

import heavy
import ismcore_autograd
import ismcore_jax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frameworks import AUTOGRAD
from truth import needs

IN_TORCH = """
import sys
import torch
import ismcore_torch
sys.path.insert(0, sys.argv[2])
import heavy

def peak():
    # not getrusage, whose peak a process inherits from the one that started it
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

torch.set_num_threads(1)
x, psi = torch.tensor(heavy.samples()), heavy.score(torch.tanh, torch.tensor(heavy.scales()))
ismcore_torch.divergence(psi, x[:2, :3].clone(), chunk_size=1, differentiable=False)
before = peak()
found = ismcore_torch.divergence(psi, x, chunk_size=int(sys.argv[1]), differentiable=False)
print(peak() - before, *found.tolist())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's peak memory from /proc")
def test_memory_in_torch_is_within_the_bound():
    import torch  # noqa: F401  (which the process imports)

    def run(chunk_size):
        command = [sys.executable, "-c", IN_TORCH, str(chunk_size), heavy.__file__.rpartition("/")[0]]
        # every array in pages of its own, which go back when it is freed: holes that an allocator keeps are no memory of ours
        env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        peak, *values = (float(number) for number in done.stdout.split())
        np.testing.assert_allclose(values, heavy.divergence(), rtol=1e-12)
        return peak

    needs("torch")
    assert run(1) < heavy.BOUND
    assert run(heavy.ROWS) > heavy.BOUND


@pytest.mark.slow
def test_memory_in_autograd_is_within_the_bound():
    def run(chunk_size):
        tracemalloc.start()
        try:
            psi = heavy.score(AUTOGRAD.tanh, heavy.scales())
            found = ismcore_autograd.divergence(psi, heavy.samples(), chunk_size=chunk_size)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        np.testing.assert_allclose(found, heavy.divergence(), rtol=1e-12)
        return peak

    assert run(1) < heavy.BOUND
    assert run(heavy.ROWS) > heavy.BOUND


@pytest.mark.slow
def test_memory_in_jax_is_within_the_bound_for_value_and_gradient():
    with jax.enable_x64(True):
        x, scales = jnp.asarray(heavy.samples()), jnp.asarray(heavy.scales())

        def divergence(factor, chunk_size):
            psi = heavy.score(jnp.tanh, scales)
            return ismcore_jax.divergence(lambda q: factor * psi(q), x, chunk_size=chunk_size)

        def summed(factor, chunk_size):
            return divergence(factor, chunk_size).sum()

        def program(f, chunk_size):
            compiled = jax.jit(lambda factor: f(factor, chunk_size)).lower(1.0).compile()
            return compiled, compiled.memory_analysis().temp_size_in_bytes

        compiled, peak = program(divergence, 1)
        np.testing.assert_allclose(compiled(1.0), heavy.divergence(), rtol=1e-12)
        assert peak < heavy.BOUND
        compiled, peak = program(jax.grad(summed), 1)
        unbounded, whole = program(jax.grad(summed), None)
        np.testing.assert_allclose(compiled(1.0), heavy.divergence().sum(), rtol=1e-12)
        np.testing.assert_allclose(unbounded(1.0), heavy.divergence().sum(), rtol=1e-12)
        assert peak < heavy.BOUND < whole

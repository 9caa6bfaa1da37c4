"""Importing and fitting leave the process as they found it."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "jax", "jaxlib", "autograd", "optax", "scipy", "matplotlib", "safetensors", "PIL", "sklearn")

STATE = """
import json, os, random, signal, sys, threading, warnings
import numpy as np
{framework}

def state():
    found = {{
        "environ": dict(os.environ),
        "errstate": np.geterr(),
        "numpy": str(np.random.get_state()),
        "random": str(random.getstate()),
        "filters": [str(f) for f in warnings.filters],
        "signals": str([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]),
        "threads": threading.active_count(),
        "cwd": os.getcwd(),
    }}
    if "torch" in sys.modules:
        import torch
        found["torch"] = str((
            torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(), torch.random.get_rng_state().sum(),
        ))
    if "jax" in sys.modules:
        import jax
        found["jax"] = str(dict(jax.config.values)) + str((
            jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision, jax.config.jax_default_device))
    return found

before = state()
{work}
after = state()
print(json.dumps({{key: [before[key], after[key]] for key in before if before[key] != after[key]}}))
"""

IMPORTS = {
    "autograd": "import autograd",
    "torch": "import torch, torch._dynamo",
    "jax": "import jax, optax\njax.numpy.zeros(1) + 1",
}


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_import_loads_numpy_and_pluggy_at_most():
    code = "import sys; before = set(sys.modules); import ismcore; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = run(code)
    assert not [name for name in HEAVY if repr(name) in loaded]


def test_listing_backends_loads_no_framework():
    loaded = run("import ismcore, sys; ismcore.backends(); print(sorted({m.split('.')[0] for m in sys.modules}))")
    assert not [name for name in HEAVY if repr(name) in loaded]


def test_importing_changes_nothing():
    assert json.loads(run(STATE.format(framework="", work="import ismcore; ismcore.backends()"))) == {}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fitting_changes_nothing(backend, dtype):
    work = f"""
import ismcore
x = np.arange(40.0).reshape(20, 2) % 7
result = ismcore.fit(x, backend={backend!r}, dtype={dtype!r}, epochs=3, progress=False)
ismcore.evaluate(result.model, result.params, x, backend={backend!r}, dtype={dtype!r}).jacobian_diagonal
try:
    ismcore.fit(x, backend={backend!r}, dtype={dtype!r}, optimizer=ismcore.SGD(1e30), epochs=20, progress=False)
except ismcore.Diverged:
    pass
"""
    assert json.loads(run(STATE.format(framework=IMPORTS[backend], work=work))) == {}

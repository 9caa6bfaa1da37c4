"""A sample of the list of networks of `bench/networks.py`: each is exact or refused, as the page says."""

import sys
from importlib import import_module
from pathlib import Path

import pytest


def of_the_bench(*names):
    """Modules of bench/, one of which has the name of a module of the tests, which keeps it."""
    bench, ours = str(Path(__file__).parent.parent / "bench"), sys.modules.pop("networks", None)
    sys.path.insert(0, bench)
    try:
        return [import_module(name) for name in names]
    finally:
        sys.path.remove(bench)
        del sys.modules["networks"]
        if ours is not None:
            sys.modules["networks"] = ours


networks, networks_jax, networks_torch = of_the_bench("networks", "networks_jax", "networks_torch")
SAMPLE = [(networks_torch, case) for case in networks_torch.CASES[4::9]]
SAMPLE += [
    (networks_jax, case)
    for case in networks_jax.CASES
    if f"{case.family}: {case.name}"
    in {
        "linen: norms: GroupNorm",
        "NNX: parts: LoRA, all of it",
        "Equinox: own rules: custom_vjp, straight through",
        "JAX: functions: fft",
    }
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("framework", "case"), SAMPLE, ids=[f"{case.family}: {case.name}" for _, case in SAMPLE])
def test_a_network_is_exact_or_refused(framework, case):
    found = networks.judge(case, framework)
    assert networks.as_expected(case, found), found


@pytest.mark.parametrize(("framework", "least"), [(networks_torch, 100), (networks_jax, 90)])
def test_the_list_is_long_and_names_each_once(framework, least):
    names = [(case.family, case.name) for case in framework.CASES]
    assert len(set(names)) == len(names) >= least


def test_the_sample_has_networks_of_both_frameworks():
    assert len(SAMPLE) >= 19


def test_what_is_off_is_told():
    import torch

    class Cut(torch.nn.Module):
        """Evaluated as if its derivative were 0: what `evaluate` would have said before it looked."""

        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(3, 3)

        def forward(self, x):
            return torch.tanh(self.a(x.detach()))

    found = networks.judge(networks.Case("cut", "off", Cut, options={"allow_nonsmooth": True}), networks_torch)
    assert not networks.as_expected(networks.Case("cut", "off", Cut), found)

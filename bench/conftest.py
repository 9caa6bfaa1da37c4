"""Options of the suite, and what it writes into the JSON of pytest-benchmark: no host name, and what was not timed."""

from __future__ import annotations

import os

import by_others
import pytest
from cases import all_cases
from measuring import PACKAGES, machine, versions
from rounds import Cells
from run import BUNDLED, PARTS

SMALLEST = ("reference", "n-1000", "affine3", "s3_softplus-reg0.1")


def pytest_addoption(parser):
    add = parser.getgroup("ismcore", "speed of ismcore").addoption
    add("--backend", action="append", help="a backend to measure; may be repeated (if not given: the bundled ones)")
    add("--device", default="cpu", help="'cpu' or 'cuda'; on a GPU measure one backend a process (default: %(default)s)")
    add("--part", action="append", help=f"of the suite: {', '.join(PARTS)}; may be repeated")
    add("--smallest", action="store_true", help="the smallest cells, one round each: whether the suite runs, not how fast")


def pytest_configure(config):
    config.stash[CELLS] = Cells(config.getoption("--device"), quick=config.getoption("--smallest"))


CELLS = pytest.StashKey()


@pytest.fixture
def cells(pytestconfig):
    """Timings of this run."""
    return pytestconfig.stash[CELLS]


@pytest.fixture
def device(pytestconfig):
    return pytestconfig.getoption("--device")


def backends(config):
    """Those that the options ask for."""
    given = config.getoption("--backend")
    return tuple(given or BUNDLED[config.getoption("--device").partition(":")[0]])


def cases(config):
    """Those that the options ask for."""
    parts, smallest = config.getoption("--part"), config.getoption("--smallest")
    return [case for case in all_cases(parts=parts or ()) if not smallest or case.id in SMALLEST]


def pytest_ignore_collect(collection_path, config):
    """Leave a module out where no part of it is asked for."""
    parts, apart = set(config.getoption("--part") or ()), {"test_memory.py": "memory", "test_cold.py": "cold"}
    own = apart.get(collection_path.name)
    if not parts or not collection_path.name.startswith("test_"):
        return None
    return (own not in parts if own else parts <= set(apart.values())) or None


def pytest_benchmark_generate_machine_info():
    threads = os.environ.get("OMP_NUM_THREADS", "as each framework chooses")
    return {**machine(), "threads": threads, "versions": versions((*PACKAGES, *by_others.installed()))}


def pytest_benchmark_generate_commit_info():
    return {}


def pytest_benchmark_update_json(config, output_json):
    output_json["not_timed"] = config.stash[CELLS].not_timed

import pytest

from ismcore.testing import BackendConformance


@pytest.mark.slow
class TestJax(BackendConformance):
    backend = "jax"

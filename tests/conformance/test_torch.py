import pytest

from ismcore.testing import BackendConformance


@pytest.mark.slow
class TestTorch(BackendConformance):
    backend = "torch"

from ismcore.testing import BackendConformance


class TestTorch(BackendConformance):
    backend = "torch"

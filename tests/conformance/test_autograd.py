from ismcore.testing import BackendConformance


class TestAutograd(BackendConformance):
    backend = "autograd"

from ismcore.testing import BackendConformance


class TestTape(BackendConformance):
    backend = "tape"

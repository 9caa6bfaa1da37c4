from ismcore.testing import BackendConformance


class TestJax(BackendConformance):
    backend = "jax"

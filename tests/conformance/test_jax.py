import pytest

from ismcore.testing import BackendConformance


class TestJax(BackendConformance):
    backend = "jax"
    dtypes = ("float64",)


@pytest.mark.slow
class TestJaxInFloat32(BackendConformance):
    """Apart from those in float64, because JAX compiles every check anew for each dtype."""

    backend = "jax"
    dtypes = ("float32",)

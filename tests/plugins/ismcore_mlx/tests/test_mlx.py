from ismcore.testing import BackendConformance


class TestMlx(BackendConformance):
    backend = "mlx"
    dtypes = ("float32",)

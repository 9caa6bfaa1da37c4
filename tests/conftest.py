import pytest
from truth import BACKENDS, DTYPES


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each bundled backend; one whose framework is missing fails, it is never skipped."""
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param

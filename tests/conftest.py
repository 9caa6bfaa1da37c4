import pytest
from truth import BACKENDS, DTYPES, marked


@pytest.fixture(params=marked(BACKENDS))
def backend(request):
    """Each bundled backend; one whose framework is missing fails, it is never skipped."""
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param

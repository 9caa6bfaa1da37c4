import signal

import pytest
from truth import BACKENDS, DTYPES, marked, needs


@pytest.fixture(params=marked(BACKENDS))
def backend(request):
    """Each bundled backend; one whose framework is missing fails, and is skipped only where the run names that."""
    needs(request.param)
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def interrupts_are_heard():
    """A shell starts what it runs in the background with SIGINT ignored, and so would be what tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

"""What a file claims, with a right checksum, is what a fit could have written, or is refused by name."""

import pytest
from fuzzing import fuzz


@pytest.mark.slow
def test_mutated_contents_are_refused_by_name_or_are_fits():
    count = fuzz(8.0, 1)
    assert count["refused"] > 50, count
    assert count["loaded"] > 5, count

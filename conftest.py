"""Examples in Markdown run as tests; those in docstrings are run by pytest's own doctest option."""

import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"]).pytest()


@pytest.fixture(autouse=True)
def _names_in_docstring_examples(doctest_namespace):  # noqa: ANN001, ANN202
    import ismcore

    doctest_namespace.update(ismcore=ismcore, np=np)

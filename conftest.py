"""Examples in Markdown run as tests; those in docstrings are run by pytest's own doctest option. One thread a process."""

import os

# Processes that run side by side need no threads besides, which would wait for each other's. Read when a library is loaded,
# here, or in the workers of pytest-xdist, which inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.typing import Evaluator


class Page(Document):
    """A page, whose examples build on those above: of these, what another process was given runs in this one too."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text, path)
        self.begun: set[int] = set()

    def evaluate(self, example: Example, evaluator: Evaluator) -> None:
        """See `Document.evaluate`."""
        for above in self.examples():
            if above.start < example.start and above.start not in self.begun:
                above.evaluate()
        self.begun.add(example.start)
        super().evaluate(example, evaluator)


pytest_collect_file = Sybil([PythonCodeBlockParser(), SkipParser()], patterns=["*.md"], document_types={".md": Page}).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Examples of pages are slow tests: whole fits, each after those above it."""
    for item in items:
        if item.path.suffix == ".md":
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _names_in_docstring_examples(doctest_namespace):  # noqa: ANN001, ANN202
    import ismcore

    doctest_namespace.update(ismcore=ismcore, np=np)

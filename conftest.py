"""Examples in Markdown run as tests; those in docstrings are run by pytest's own doctest option. One thread a process."""

import contextlib
import doctest
import gc
import io
import os
import re
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

# Processes that run side by side need no threads besides, which would wait for each other's. Read when a library is loaded,
# here, or in the workers of pytest-xdist, which inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import pytest
from sybil import Document, Example, Sybil
from sybil.example import SybilFailure
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.typing import Evaluator

NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]\d+)?")


def alike(printed: str, shown: str) -> bool:
    """Whether the words are the same, but for white space, and the numbers up to two units of the last digit shown."""
    if NUMBER.sub("0", printed).split() != NUMBER.sub("0", shown).split():
        return False
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True)
    return all(abs(float(found) - float(number)) <= 2.01 * last_digit(number) for found, number in pairs)


def last_digit(number: str) -> float:
    """A unit of the last digit: 0.01 of 1.25, 1e-7 of 1.2e-6, 0.1 of an array's 1., 0 of whole numbers, which are counts."""
    digits, point, exponent = re.fullmatch(r"-?(\d+(\.?)\d*)(?:e(.*))?", number).groups()
    places = max(1, len(digits.partition(".")[2])) if point else 0
    return 10.0 ** (int(exponent or 0) - places) if point or exponent else 0.0


class Page(Document):
    """A page, whose examples build on those above: of these, what another process was given runs in this one too."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text, path)
        self.begun: set[int] = set()
        self.missing: Exception | None = None
        """Why an example above could not be run, where it needs a framework that this run does without."""

    def evaluate(self, example: Example, evaluator: Evaluator) -> None:
        """See `Document.evaluate`."""
        for above in self.examples():
            if above.start < example.start and above.start not in self.begun:
                above.evaluate()
        self.begun.add(example.start)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                super().evaluate(example, evaluator)
        except NameError as error:
            if self.missing is not None:  # a name that the example above would have made
                raise self.missing from error
            raise
        except Exception as error:
            self.missing = self.missing or (error if _needed(error) else None)
            raise
        shown = re.match(r"\s*(?:<!--.*?-->\s*)*```\n(.*?)```", self.text[example.end :], re.DOTALL)
        if shown and not alike(printed.getvalue(), shown[1]):
            raise SybilFailure(example, f"it prints\n{printed.getvalue()}\nwhere the page shows\n{shown[1]}")


WITHOUT = tuple(filter(None, os.environ.get("ISMCORE_TESTS_WITHOUT", "").split(",")))
"""Frameworks that this run does without, as it says itself: what needs one is skipped. Without a word, a missing one fails."""
AnyReport = TypeVar("AnyReport", pytest.CollectReport, pytest.TestReport)


def pytest_configure() -> None:
    """A framework that is here is not done without."""
    here = [name for name in WITHOUT if find_spec(name) is not None]
    if here:
        raise pytest.UsageError(
            f"ISMCORE_TESTS_WITHOUT names {', '.join(here)}, which is installed: nothing would be skipped for it"
        )


def _needed(error: BaseException | None) -> str:
    """The framework of `WITHOUT` for want of which an error came, by its type and name and not by words in it; "" for none.

    A module that cannot be collected, and a docstring's example that raises, are errors about another one, which counts.
    """
    if isinstance(error, pytest.Collector.CollectError):
        return _needed(error.__cause__)
    if hasattr(error, "failures"):  # pytest's own error of a docstring, whose first one brings on the others
        return _needed(error.failures[0])
    if isinstance(error, doctest.UnexpectedException):
        return _needed(error.exc_info[1])
    from ismcore.errors import BackendMissing

    found = ""
    if isinstance(error, ModuleNotFoundError):
        found = (error.name or "").partition(".")[0]
    elif isinstance(error, BackendMissing):
        needs = re.match(r"backend '\w+' needs (\w+)", str(error))
        found = needs[1] if needs else ""
    return found if found in WITHOUT else ""


def _skipped_without(report: AnyReport, error: BaseException | None) -> AnyReport:
    """The report, as skipped where it failed for a framework that `WITHOUT` names."""
    name = _needed(error) if WITHOUT and report.failed else ""
    if name:
        report.outcome = "skipped"
        report.longrepr = (report.nodeid, 0, f"Skipped: needs {name}, which ISMCORE_TESTS_WITHOUT names")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Modules that import a framework."""
    report = yield
    return _skipped_without(report, _error_of(report.call))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tests that fit with one."""
    return _skipped_without((yield), _error_of(call))


def _error_of(call: pytest.CallInfo[None]) -> BaseException | None:
    return None if call.excinfo is None else call.excinfo.value


pytest_collect_file = Sybil([PythonCodeBlockParser(), SkipParser()], patterns=["*.md"], document_types={".md": Page}).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Examples of pages are slow tests: whole fits, each after those above it."""
    for item in items:
        if item.path.suffix == ".md":
            item.add_marker(pytest.mark.slow)


_ended: list[Path] = []
"""Modules of the tests since objects were last left out of collections."""


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Leaves what a module keeps for good out of later collections: JAX's programs make one of them take seconds."""
    _ended.append(item.path)
    if nextitem is None or nextitem.path != item.path or len(_ended) == 100:
        _ended.clear()
        gc.freeze()


@pytest.fixture(autouse=True)
def _names_in_docstring_examples(doctest_namespace):  # noqa: ANN001, ANN202
    import ismcore

    doctest_namespace.update(ismcore=ismcore, np=np)

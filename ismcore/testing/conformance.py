"""The kit for pytest: a class for a three-line test file, and a decorator for a test of one's own. pytest is imported late."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ismcore.backend.contract import Backend
from ismcore.testing.catalogue import all_items
from ismcore.testing.kit import Item
from ismcore.testing.report import expected_reason, run_item
from ismcore.testing.subject import CheckFailed, Subject

__all__ = ["BackendConformance", "BoundCheck", "parametrize_with_checks"]


@dataclass(frozen=True, eq=False)
class BoundCheck:
    """A check, its case and the backend to run it on. The backend is imported when it is called, not before."""

    item: Item
    backend: str | type[Backend]
    dtype: str
    device: str
    reason: str = ""

    @property
    def id(self) -> str:
        """Name for the test's report."""
        name = self.backend if isinstance(self.backend, str) else self.backend.__name__
        return f"{name}-{self.device}-{self.dtype}-{self.item.id}"

    def __call__(self) -> None:
        """Run it; skips what the backend does not declare, and fails where it breaks the contract."""
        import pytest

        row, error = run_item(self.item, Subject.of(self.backend, self.dtype, self.device), self.reason)
        if row.status == "skipped":
            pytest.skip(row.message)
        if row.status == "expected":
            pytest.xfail(row.message)
        if row.status == "failed":
            raise CheckFailed(f"{self.id}: {row.message}") from error


def bound_checks(
    backends: Iterable[str | type[Backend]], dtypes: Iterable[str], device: str, expected_failures: Mapping[str, str]
) -> list[BoundCheck]:
    """Every check on every backend and dtype."""
    return [
        BoundCheck(item, backend, dtype, device, expected_reason(item, expected_failures))
        for backend in backends
        for dtype in dtypes
        for item in all_items()
    ]


def parametrize_with_checks(
    backends: Iterable[str | type[Backend]],
    *,
    dtypes: Iterable[str] = ("float32", "float64"),
    device: str = "cpu",
    expected_failures: Mapping[str, str] | None = None,
) -> Callable[..., Any]:
    """Decorate a test that takes `check`, and calls it.

    Example:
        >>> @parametrize_with_checks(["autograd"])
        ... def test_conforms(check):
        ...     check()
    """
    import pytest

    bound = bound_checks(backends, tuple(dtypes), device, expected_failures or {})
    return pytest.mark.parametrize("check", bound, ids=[one.id for one in bound])


class BackendConformance:
    """Inherit in a test file, name the backend, and pytest runs every check on it.

    Attributes:
        backend: Its name, or its class.
        dtypes: What it is tested in. A backend that declares float32 alone says `dtypes = ("float32",)`: it is imported when a
            test runs, so that the class cannot ask it, and a dtype that it does not declare is a failure.
        device: One of its devices.
        expected_failures: Checks that are known to fail, and why, as for `check_backend`.

    Example:
        >>> class TestAutograd(BackendConformance):
        ...     backend = "autograd"
    """

    backend: ClassVar[str | type[Backend]]
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    device: ClassVar[str] = "cpu"
    expected_failures: ClassVar[Mapping[str, str]] = {}

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Give `test_conforms` one call a check."""
        if "conformance_check" in metafunc.fixturenames:
            bound = bound_checks([self.backend], self.dtypes, self.device, self.expected_failures)
            metafunc.parametrize("conformance_check", bound, ids=[one.id for one in bound])

    def test_conforms(self, conformance_check: BoundCheck) -> None:
        """The backend keeps the promise of the check."""
        conformance_check()

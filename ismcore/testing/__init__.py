"""The conformance kit: anybody's backend, against answers that no differentiation library produced.

`check_backend("name")` runs it and returns a report; `python -m ismcore.testing name` prints it. With pytest, inherit from
`BackendConformance`, or decorate a test of your own with `parametrize_with_checks`; nothing else here needs pytest.
"""

from ismcore.testing.cases import TrainingCase, training_cases
from ismcore.testing.catalogue import all_checks, all_items
from ismcore.testing.conformance import BackendConformance, parametrize_with_checks
from ismcore.testing.kit import Check, Item
from ismcore.testing.report import Report, Row, check_backend
from ismcore.testing.scenarios import Answer, Scenario, all_scenarios, scenario
from ismcore.testing.subject import TOLERANCES, CheckFailed, Subject, Tolerances

__all__ = [
    "TOLERANCES",
    "Answer",
    "BackendConformance",
    "Check",
    "CheckFailed",
    "Item",
    "Report",
    "Row",
    "Scenario",
    "Subject",
    "Tolerances",
    "TrainingCase",
    "all_checks",
    "all_items",
    "all_scenarios",
    "check_backend",
    "parametrize_with_checks",
    "scenario",
    "training_cases",
]

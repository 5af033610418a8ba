"""The distribution of tests over processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.distribution import GROUPS, LONGEST, check_groups, group_of, rank

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/e2e/stack/test_page.py::test_a[b/c]", "stack"),
        ("tests/e2e/live_airflow/test_interrupted_waits.py::test_a", "live_airflow"),
        ("tests/integration/test_interrupted_waits.py::test_a", "tests/integration/test_interrupted_waits"),
    ],
)
def test_modules_with_a_shared_fixture_are_one_group(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_long_groups_start_first_and_unit_tests_last() -> None:
    nodeids = [
        "tests/unit/test_a.py::b",
        "tests/integration/test_a.py::b",
        "tests/e2e/stack/test_a.py::a",
        "tests/e2e/live_airflow/test_a.py::a",
    ]
    assert sorted(nodeids, key=rank) == nodeids[::-1]


@pytest.mark.parametrize("name", [*LONGEST, *(module for modules in GROUPS.values() for module in modules)])
def test_each_listed_module_exists(name: str) -> None:
    assert name in GROUPS or list(TESTS.glob(f"**/{name}.py")), f"renamed? {name}"


def test_a_module_that_is_not_listed_is_an_error() -> None:
    item: Any = SimpleNamespace(nodeid="tests/e2e/test_new.py::test_a", fixturenames=["stack"])
    with pytest.raises(pytest.UsageError, match=r"test_new\.py::test_a uses \['stack'\]"):
        check_groups([item])

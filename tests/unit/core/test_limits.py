"""Limits at their edges: the last accepted value and the first rejected one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlengine.core import limits
from mlengine.core.limits import Problem


@pytest.mark.parametrize(
    ("check", "least", "most"),
    [
        (limits.replica_count, 0, 1000),
        (limits.accelerator_count, 0, 256),
        (limits.attempts, 1, 100),
        (limits.priority, 0, 1000),
        (limits.seconds, 1, limits.MAX_SECONDS),
        (limits.boot_disk_gb, 100, 64_000),
    ],
)
def test_numbers_are_accepted_within_their_range(check: Callable[[int], Problem | None], least: int, most: int) -> None:
    assert check(least) is None
    assert check(most) is None
    for wrong in (least - 1, most + 1):
        assert check(wrong) == Problem(f"is {wrong}", f"use {least} to {most}")


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("team", "vision", True),
        ("t", "", True),
        ("a" * 63, "b" * 63, True),
        ("a" * 64, "", False),
        ("a", "b" * 64, False),
        ("", "x", False),
        ("1st", "x", False),
        ("Team", "x", False),
        ("team", "A", False),
        ("a=b", "x", False),
        ("größe", "größe", True),
    ],
)
def test_labels_are_checked(name: str, value: str, accepted: bool) -> None:
    assert (limits.label(name, value) is None) is accepted
    assert (limits.labels({"ok": "ok", name: value}) is None) is accepted


def test_labels_variables_and_packages_are_counted() -> None:
    assert limits.labels({f"l{number}": "" for number in range(64)}) is None
    assert limits.labels({f"l{number}": "" for number in range(65)}) is not None
    assert limits.variables({f"V{number}": "" for number in range(100)}) is None
    assert limits.variables({f"V{number}": "" for number in range(101)}) is not None
    assert limits.package_count(100) is None
    assert limits.package_count(101) is not None


@pytest.mark.parametrize(
    ("name", "accepted"), [("_A1", True), ("A=B", False), ("1A", False), ("", False), ("A B", False)]
)
def test_names_of_variables_are_checked(name: str, accepted: bool) -> None:
    assert (limits.variable(name) is None) is accepted


@pytest.mark.parametrize(
    ("text", "accepted"), [("a", True), ("A_1", True), ("a" * 129, False), ("exp#3", False), ("_a", False)]
)
def test_job_ids_are_checked(text: str, accepted: bool) -> None:
    assert (limits.job_id(text) is None) is accepted

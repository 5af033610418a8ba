"""Extra checks: names, digests, and errors."""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.utils.file import get_unique_dag_module_name

from mlengine.core.verdict import Check
from mlengine.validation.extra_checks import check_digest, check_name, run_check

FLOOR = 5


def has_words(model: Path, figures: Mapping[str, Any], *, least: Any = FLOOR, language: str = "en") -> Check:
    return Check("words", least, language, passed=True, message="Enough.")


def uses_a_helper(model: Path, figures: Mapping[str, Any]) -> Check:
    return has_words(model, figures, least=FLOOR)


def holding(value: Any) -> Callable[..., Check]:
    def check(model: Path, figures: Mapping[str, Any]) -> Check:
        return Check("value", str(value), "", passed=bool(value), message="")

    return check


@dataclass(frozen=True)
class AtLeast:
    least: int

    def __call__(self, model: Path, figures: Mapping[str, Any]) -> Check:
        return Check("at least", self.least, "", passed=True, message="")

    def method(self, model: Path, figures: Mapping[str, Any]) -> Check:
        return self(model, figures)


class Counter:
    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, model: Path, figures: Mapping[str, Any]) -> Check:
        return Check("counter", self.least, "", passed=True, message="")


def recursive(depth: int) -> Callable[..., Check]:
    def check(model: Path, figures: Mapping[str, Any]) -> Check:
        return check(model, figures) if depth else Check("r", 0, "", passed=True, message="")

    return check


SAME = [
    (functools.partial(has_words, least=3), functools.partial(has_words, least=3)),
    (holding({"a": [1, 2.0], "b": {3, 4}}), holding({"b": {4, 3}, "a": [1, 2.0]})),
    (AtLeast(3), AtLeast(3)),
    (AtLeast(3).method, AtLeast(3).method),
    (Counter(3), Counter(3)),
    (recursive(0), recursive(0)),
    (functools.partial(functools.partial(has_words, least=3), language="de"),) * 2,
]
OTHER = [
    (functools.partial(has_words, least=3), functools.partial(has_words, least=4)),
    (functools.partial(has_words, least=3), functools.partial(has_words, language="3")),
    (functools.partial(has_words, least=3), has_words),
    (functools.partial(has_words, least=1), functools.partial(has_words, least=True)),
    (holding([1, 2]), holding([2, 1])),
    (holding(Path("a")), holding(Path("b"))),
    (holding(has_words), holding(uses_a_helper)),
    (AtLeast(3), AtLeast(4)),
    (AtLeast(3).method, AtLeast(4).method),
    (Counter(3), Counter(4)),
    (lambda model, figures: 1, lambda model, figures: 2),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_checks_have_the_same_digest(one: Any, other: Any) -> None:
    assert check_digest(one) == check_digest(other) != ""


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_different_checks_have_different_digests(one: Any, other: Any) -> None:
    assert check_digest(one) != check_digest(other)
    assert check_digest(one)
    assert check_digest(other)


def test_the_digest_covers_constants_of_the_same_module(monkeypatch: pytest.MonkeyPatch) -> None:
    before = check_digest(uses_a_helper)
    monkeypatch.setattr(f"{__name__}.FLOOR", 6)
    assert check_digest(uses_a_helper) != before


def test_the_digest_covers_helpers_of_the_same_module(monkeypatch: pytest.MonkeyPatch) -> None:
    before = check_digest(uses_a_helper)
    defaults = has_words.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "language", "de")
    assert check_digest(uses_a_helper) != before


_DAG_FILE = """
from dataclasses import dataclass
from enum import Enum

Unit = Enum("Unit", ["BYTES", "ROWS"])

@dataclass
class Smaller:
    limit: int
    unit: Unit
    def __call__(self, model, figures):
        return None

def small(model, figures):
    return Smaller(5, Unit.ROWS)(model, figures)
"""


def test_the_digest_does_not_depend_on_the_path_of_the_dag_file(tmp_path: Path) -> None:
    """In a DAG bundle with versions, each version has another path, and the names of modules contain its hash."""
    digests = []
    for version in ("v1", "v2"):
        name = get_unique_dag_module_name(str(tmp_path / version / "retrain.py"))
        module: dict[str, Any] = {"__name__": name}
        sys.modules[name] = ModuleType(name)  # the decorator of a dataclass looks its module up
        exec(_DAG_FILE, module)
        del sys.modules[name]
        digests.append([check_digest(module["small"]), check_digest(module["Smaller"](5, module["Unit"].ROWS))])
    assert digests[0] == digests[1]
    assert all(digests[0])


@pytest.mark.parametrize("check", [holding(threading.Lock()), functools.partial(has_words, least=object())])
def test_a_check_without_comparable_content_has_no_digest_and_logs_a_warning(
    check: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert check_digest(check) == ""
    assert "no comparable content; models of reused jobs are validated again" in caplog.text


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (has_words, "has_words"),
        (functools.partial(has_words, least=5, language="de"), "has_words(least=5, language='de')"),
        (AtLeast(3), "AtLeast"),
        (AtLeast(3).method, "method"),
    ],
)
def test_the_name_of_a_partial_has_its_arguments(check: Any, name: str) -> None:
    assert check_name(check) == name


def test_an_exception_or_a_wrong_result_is_a_failed_check(tmp_path: Path) -> None:
    result = run_check(functools.partial(has_words, colour="red"), tmp_path, {})  # type: ignore[call-arg]
    assert not result.passed
    assert result.message.startswith("has_words(colour='red') raised TypeError")
    assert "returned int, not mlengine" in run_check(lambda model, figures: 1, tmp_path, {}).message  # type: ignore[arg-type,return-value]

"""The pages that are generated from the code are up to date."""

from __future__ import annotations

import re

import pytest
from scripts import reference


@pytest.mark.parametrize(
    ("page", "made"), [(reference.REFERENCE, reference.reference), (reference.ERRORS, reference.errors)]
)
def test_the_page_is_up_to_date(page: object, made: object) -> None:
    assert callable(made)
    assert page.read_text(encoding="utf-8") == made(), "run `make reference`"  # type: ignore[attr-defined]


def test_every_error_class_has_a_section() -> None:
    text = reference.errors()
    for name in ("JobFileError", "StorageForbiddenError", "JobLostError", "AirflowError"):
        assert f"## {name}\n" in text
    assert text.count("\n| ") > 150


def test_every_command_and_operator_is_documented() -> None:
    text = reference.reference()
    for name in (
        "mlengine datasets add",
        "mlengine models rollback",
        "mlengine jobs reap",
        "SubmitTrainingJobOperator",
    ):
        assert f"### {name}\n" in text
    assert "| `backend_options` | `None` | keyword arguments of the backend. |" in text


def section(name: str) -> str:
    return reference.reference().partition(f"### {name}\n")[2].partition("\n### ")[0]


def test_no_cell_is_empty() -> None:
    for page in (reference.reference(), reference.errors()):
        assert not [line for line in page.splitlines() if re.search(r"\|\s*\|", line)]


@pytest.mark.parametrize(
    "name",
    [
        "max_attempts",
        "poll_interval_seconds",
        "progress_interval_seconds",
        "queued_timeout_seconds",
        "running_timeout_seconds",
        "retry_backoff_seconds",
        "validation_time_limit_seconds",
        "validation_memory_limit_gib",
        "serving_signature",
        "extra_checks",
        "labels",
        "requirements",
        "impersonation_chain",
        "project_id",
        "region",
        "task_args",
    ],
)
def test_the_options_of_the_task_group_are_documented(name: str) -> None:
    assert f"| `{name}` |" in section("RetrainingTaskGroup")


@pytest.mark.parametrize("operator", ["SubmitTrainingJobOperator", "TrainingJobSensor", "PublishModelOperator"])
def test_arguments_of_the_base_class_are_documented(operator: str) -> None:
    assert "| `gcp_conn_id` |" in section(operator)
    assert "| `impersonation_chain` |" in section(operator)
    assert "`retry_delay`" not in section(operator)

"""The tables in docs/operations.md match the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlengine.backends.local.restart_policy import exit_reason
from mlengine.backends.vertex.states import STATES
from mlengine.core.job import Decision, FailureCause, JobState

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("cause", FailureCause)
def test_every_failure_cause_is_documented_with_retry_and_advice(cause: FailureCause) -> None:
    (row,) = [row for row in ROWS if row[0] == f"`{cause.value}`"]
    assert row[2].startswith("yes") == cause.retryable
    assert row[3] == cause.advice()


def test_exit_codes_mean_what_the_page_says() -> None:
    codes = {int(code): row[2] for row in ROWS if len(row) == 3 for code in re.findall(r"`(-?\d+)`", row[0])}
    assert len(codes) >= 10
    for code, cause in codes.items():
        if code:
            assert cause.startswith(f"`{exit_reason(code).cause.value}`"), code


def test_every_state_is_documented() -> None:
    first = " ".join(row[0] for row in ROWS if len(row) == 4)
    for state in JobState:
        assert f"`{state.value}`" in first
    for name in STATES:
        assert name == "JOB_STATE_UNSPECIFIED" or f"`{name}`" in PAGE


@pytest.mark.parametrize("decision", Decision)
def test_every_decision_is_documented(decision: Decision) -> None:
    assert f"`mlengine.{decision.value}`" in PAGE
    assert f"| `{decision.value}` |" in (DOCS / "architecture.md").read_text()

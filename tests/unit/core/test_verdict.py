"""Checks, and the verdict that follows from them."""

from __future__ import annotations

import json

import pytest

from mlengine.core.errors import MlengineError
from mlengine.core.verdict import (
    NOT_WORSE,
    SIZE_RATIO,
    Check,
    Decision,
    Verdict,
    decide,
    table,
)

GOOD = Check("accuracy", 0.98, "≥ 0.97", passed=True, message="Accuracy is 0.98.")
BAD = Check("devices", "/job:ps", "none", passed=False, message="The graph is still tied to /job:ps.")
BETTER = Check(NOT_WORSE, 0.001, "≥ -0.005", passed=True, message="It gained 10 rows.", comparison=True)
NOT_ASKED = Check.skip(NOT_WORSE, "The model was not run.", comparison=True)


def test_one_failed_check_rejects_and_its_message_is_the_reason() -> None:
    verdict = decide([GOOD, BAD, BETTER], champion="old")
    assert verdict.decision is Decision.REJECTED
    assert verdict.reasons == ("The graph is still tied to /job:ps.",)
    assert verdict.failed == (BAD,)
    assert not verdict.decision.publishable


def test_the_first_model_is_not_compared_but_still_checked() -> None:
    verdict = decide([GOOD, NOT_ASKED], champion=None)
    assert verdict.decision is Decision.FIRST
    assert verdict.reasons == ("There is no champion yet; the check passed.",)
    assert decide([BAD, NOT_ASKED], champion=None).decision is Decision.REJECTED


def test_the_reasons_of_an_acceptance_compare_with_the_champion() -> None:
    verdict = decide([GOOD, BETTER], champion="old")
    assert verdict.decision is Decision.ACCEPTED
    assert verdict.reasons == ("All 2 checks passed.", "It gained 10 rows.")


SMALL = Check(SIZE_RATIO, 1.0, "≤ 3", passed=True, message="It is as large as the champion.", comparison=True)


@pytest.mark.parametrize("checks", [[GOOD], [GOOD, NOT_ASKED], [GOOD, NOT_ASKED, SMALL]])
def test_a_model_without_a_quality_comparison_is_not_accepted(checks: list[Check]) -> None:
    verdict = decide(checks, champion="old")
    assert verdict.decision is Decision.NOT_COMPARED
    assert not verdict.decision.publishable
    assert verdict.reasons[0].startswith("The model was not compared with the champion old: ")
    assert "require_comparison" in verdict.reasons[1]


def test_acceptance_without_a_required_comparison_says_so() -> None:
    verdict = decide([GOOD, NOT_ASKED, SMALL], champion="old", require_comparison=False)
    assert verdict.decision is Decision.ACCEPTED
    assert verdict.reasons == (
        "All 2 checks passed.",
        "It is as large as the champion.",
        "The model was not compared with the champion old: The model was not run. No comparison is required.",
    )


def test_a_failed_check_rejects_a_model_that_was_not_compared() -> None:
    assert decide([BAD, NOT_ASKED], champion="old").decision is Decision.REJECTED


def test_a_custom_comparison_check_counts_as_a_comparison() -> None:
    own = Check("perplexity", 12.0, "≤ 13", passed=True, message="It is not worse.", comparison=True)
    assert decide([GOOD, NOT_ASKED, own], champion="old").decision is Decision.ACCEPTED


@pytest.mark.parametrize("checks", [[], [NOT_ASKED]])
def test_a_validation_without_checks_accepts_nothing(checks: list[Check]) -> None:
    with pytest.raises(MlengineError, match="made no check"):
        decide(checks, champion=None)


def test_a_verdict_survives_json() -> None:
    verdict = decide([GOOD, BAD, NOT_ASKED], champion=None)
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@pytest.mark.parametrize("data", [{}, {"verdict": "maybe", "reasons": []}, {"verdict": "first", "reasons": None}])
def test_an_invalid_verdict_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(MlengineError, match="not a verdict"):
        Verdict.from_json(data)


def test_the_table_is_aligned() -> None:
    lines = table([GOOD, BAD, NOT_ASKED])
    assert lines[0].split() == ["check", "value", "threshold"]
    assert lines[2].split() == ["ok", "accuracy", "0.9800", "≥", "0.97"]
    assert lines[3].startswith("FAILED")
    assert lines[4].startswith("skipped")
    assert {line.index(check.name) for line, check in zip(lines[2:], [GOOD, BAD, NOT_ASKED], strict=True)} == {9}

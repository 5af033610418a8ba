"""The table of exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlengine.backends.local import restart_policy
from mlengine.backends.local.settings import Settings
from mlengine.core.job import FailureCause
from mlengine.core.spec import Role

SETTINGS = Settings.load()


@pytest.mark.parametrize(
    ("code", "again", "cause"),
    [
        (0, False, FailureCause.TRAINER),
        (1, False, FailureCause.TRAINER),
        (2, False, FailureCause.TRAINER),
        (3, False, FailureCause.TRAINER),
        (75, True, FailureCause.PREEMPTED),
        (126, False, FailureCause.TRAINER),
        (127, False, FailureCause.TRAINER),
        (128, False, FailureCause.TRAINER),
        (130, True, FailureCause.PREEMPTED),
        (134, True, FailureCause.TRAINER),
        (137, True, FailureCause.PREEMPTED),
        (139, True, FailureCause.TRAINER),
        (143, True, FailureCause.PREEMPTED),
        (255, False, FailureCause.TRAINER),
        (-6, True, FailureCause.TRAINER),
        (-9, True, FailureCause.PREEMPTED),
        (-11, True, FailureCause.TRAINER),
        (-15, True, FailureCause.PREEMPTED),
        (-2, True, FailureCause.PREEMPTED),
    ],
)
def test_exit_codes_are_classified(code: int, again: bool, cause: FailureCause) -> None:
    reason = restart_policy.exit_reason(code)
    assert (reason.restartable, reason.cause) == (again, cause)
    assert reason.text
    assert restart_policy.restarts_allowed(Role.CHIEF, code, SETTINGS) == (SETTINGS.max_chief_restarts if again else 0)
    # A replica other than the chief is restarted after any exit code.
    assert restart_policy.restarts_allowed(Role.WORKER, code, SETTINGS) == SETTINGS.max_restarts


def test_both_notations_of_a_signal_have_the_same_meaning() -> None:
    for number in (6, 9, 11, 15):
        assert restart_policy.exit_reason(-number) == restart_policy.exit_reason(128 + number)
    assert "SIGKILL" in restart_policy.exit_reason(-9).text
    assert "signal 63" in restart_policy.exit_reason(-63).text


def test_pauses_grow_up_to_a_maximum() -> None:
    pauses = [restart_policy.backoff(restarts, SETTINGS) for restarts in range(8)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_the_table_in_the_docs_is_up_to_date() -> None:
    text = (Path(__file__).parents[4] / "docs" / "local-backend.md").read_text()
    rows = re.findall(r"^\| `([^|]+)` \|[^|]*\| (yes|no) +\| ([a-z]+|—) +\|", text, re.MULTILINE)
    assert len(rows) >= 8
    for codes, again, cause in rows:
        for code in re.findall(r"-?\d+", codes):
            reason = restart_policy.exit_reason(int(code))
            assert reason.restartable == (again == "yes"), code
            assert cause in {reason.cause.value, "—"}, code

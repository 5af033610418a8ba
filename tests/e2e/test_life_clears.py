"""What tells a clear from a retry, asked of the real scheduler in every state that a task is cleared in.

A retry keeps the job's key and a clear changes it. Deferred tasks are cleared in ``test_life_kills.py``.
"""

from __future__ import annotations

import uuid

import pytest

from tests.e2e.life_lab import Lab, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

STATES = ("success", "failed", "up_for_retry", "running")


def test_a_clear_changes_the_key_in_every_state(lab: Lab) -> None:
    lab.api.wait_for_dag("life_keys")
    files = {state: lab.root / f"keys-{state}" for state in STATES}
    runs = {}
    for state, file in files.items():
        conf = {"file": str(file), "then": state}
        runs[state] = lab.trigger("life_keys", conf, f"{state}-{uuid.uuid4().hex[:6]}")

    def state_of(state: str) -> str | None:
        found: str | None = persist(lab.api.tasks, "life_keys", runs[state].run_id)[0].state
        return found

    def keys(state: str) -> set[str]:
        return set(files[state].read_text().split()) if files[state].exists() else set()

    for state in STATES:
        until(lambda state=state: state_of(state) == state and keys(state), f"it is {state}")  # type: ignore[misc]
        persist(lab.api.clear, runs[state], "keys")
    # A try that the machine itself cut short is a retry, and notes the same key again.
    for count in (2, 3):
        for state in STATES:
            until(lambda state=state: len(keys(state)) == count, f"cleared while {state}, it has another key")  # type: ignore[misc]  # noqa: B023
            until(lambda state=state: state_of(state) == "success", "it ends")  # type: ignore[misc]
            assert len(keys(state)) == count
            persist(lab.api.clear, runs[state], "keys")


def test_a_retry_keeps_the_key(lab: Lab) -> None:
    lab.api.wait_for_dag("life_retry")
    file = lab.root / f"retry-{uuid.uuid4().hex[:6]}"
    run = lab.trigger("life_retry", {"file": str(file)}, file.name)
    until(lambda: persist(lab.api.run, run.dag_id, run.run_id).state == "success", "it succeeds with its third try")
    assert len(set(file.read_text().split())) == 1
    assert len(file.read_text().split()) == 3

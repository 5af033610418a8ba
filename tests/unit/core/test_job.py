"""Keys, ids, states, and the record that claims a job."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.errors import MlengineError
from mlengine.core.job import (
    SERVICE_RESTART,
    SERVICE_RESUMED,
    Failure,
    FailureCause,
    JobHandle,
    JobKey,
    JobRecord,
    JobState,
    make_job_id,
    make_label,
)

KEY = JobKey("mnist_retraining", "scheduled__2026-11-01", "train.submit", generation=2)
RECORD = JobRecord(key=KEY.digest, job_id="mnist_1", model="mnist", backend="local", spec={"module": "trainer.task"})


def test_only_final_states_are_terminal() -> None:
    terminal = {state for state in JobState if state.terminal}
    assert terminal == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
    assert not JobState.UNKNOWN.terminal, "an unknown state must not be terminal"


def test_a_trainer_error_is_not_retryable() -> None:
    retryable = {cause for cause in FailureCause if cause.retryable}
    assert retryable == {FailureCause.PREEMPTED, FailureCause.LOST, FailureCause.QUOTA, FailureCause.SERVICE}


keys = st.builds(JobKey, st.text(), st.text(), st.text(), st.integers(-1, 10_000), st.integers(0, 10_000), st.text())


@given(keys, keys)
def test_keys_are_equal_if_and_only_if_their_digests_are(one: JobKey, two: JobKey) -> None:
    assert (one.digest == two.digest) == (one == two)
    assert re.fullmatch("[0-9a-f]{40}", one.digest)


def test_a_cleared_task_has_a_new_key() -> None:
    assert JobKey("d", "r", "t", generation=1).digest != JobKey("d", "r", "t", generation=0).digest


def test_a_recreated_run_has_a_new_key() -> None:
    assert JobKey("d", "r", "t", run_uid="a").digest != JobKey("d", "r", "t", run_uid="b").digest


@given(st.text(max_size=300), st.text(max_size=300), keys)
def test_job_ids_are_valid_for_every_service(model: str, hint: str, key: JobKey) -> None:
    job_id = make_job_id(model, hint, key)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,127}", job_id)
    assert job_id.endswith(f"_{key.digest[:8]}")


def test_job_ids_are_readable() -> None:
    assert make_job_id("mnist", "2026-11-01", KEY) == f"mnist_2026_11_01_{KEY.digest[:8]}"
    assert make_job_id("3d", "", KEY).startswith("j_3d_")


@given(st.text(max_size=200))
def test_labels_are_valid(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]{0,63}", make_label(text))


def test_labels_are_readable() -> None:
    assert make_label("manual__2026-11-01T00:00:00+00:00") == "manual__2026-11-01t00-00-00-00-00"


def test_handle_and_failure_survive_json() -> None:
    handle = JobHandle("vertex", "projects/p/locations/l/customJobs/1", "mnist_1", 2, "gs://bucket/mnist/mnist_1")
    assert JobHandle.from_json(json.loads(json.dumps({**handle.to_json(), "decision": "reattached"}))) == handle
    failure = Failure(FailureCause.PREEMPTED, "received SIGTERM", "worker-1", 143, ("a", "b"))
    assert Failure.from_json(json.loads(json.dumps(failure.to_json()))) == failure
    assert Failure.from_json({"cause": "lost", "message": "gone"}) == Failure(FailureCause.LOST, "gone")


def test_a_record_survives_serialization_and_keeps_its_history() -> None:
    later = RECORD.with_attempt(2, "job-2", {"decision": "restarted_from_checkpoint"})
    assert JobRecord.from_bytes(later.to_bytes()) == later
    assert (RECORD.attempt, RECORD.name, RECORD.history) == (1, None, ())
    assert later.history == ({"decision": "restarted_from_checkpoint"},)
    assert RECORD.handle("gs://bucket/mnist/mnist_1") is None
    assert later.handle("gs://bucket/mnist/mnist_1") == JobHandle(
        "local", "job-2", "mnist_1", 2, "gs://bucket/mnist/mnist_1"
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{}", b'{"key": 1, "else": 2}', b'{"history": null}', b"\xff", b"[" * 100_000],
    ids=lambda data: data[:30].decode("latin-1"),
)
def test_an_invalid_record_is_refused_with_a_hint(data: bytes) -> None:
    with pytest.raises(MlengineError, match=r"job\.json is not the record of a job") as caught:
        JobRecord.from_bytes(data)
    assert caught.value.hint


@pytest.mark.parametrize(
    "change", [{"backend": []}, {"name": 5}, {"spec": "x"}, {"owner": []}, {"attempt": "1"}, {"history": [7]}]
)
def test_a_record_with_a_value_of_a_wrong_type_is_refused(change: dict[str, Any]) -> None:
    """Trainers can also write to the job dir, so a record may contain anything."""
    raw = {**json.loads(RECORD.to_bytes()), **change}
    with pytest.raises(MlengineError, match=r"job\.json is not the record of a job"):
        JobRecord.from_bytes(json.dumps(raw).encode())


def test_restarts_by_the_service_are_counted_over_all_attempts() -> None:
    record = RECORD
    assert (record.service_restarts, record.restarting) == (0, False)
    for attempt, event in ((1, SERVICE_RESTART), (1, SERVICE_RESUMED), (1, SERVICE_RESTART)):
        record = record.with_attempt(attempt, "n", {"event": event, "attempt": attempt, "time": 1.0})
    assert (record.service_restarts, record.restarting) == (2, True)
    record = record.with_attempt(2, "n2", {"event": "attempt", "attempt": 2, "time": 2.0})
    assert (record.service_restarts, record.restarting) == (2, False), "the next attempt must not count as restarting"


@pytest.mark.parametrize("message", ["out of memory", "CUDA out-of-memory", "Termination reason: OOMKilled"])
def test_the_advice_for_an_out_of_memory_error_is_more_memory(message: str) -> None:
    assert "more memory" in Failure(FailureCause.TRAINER, message).advice()
    assert "more memory" in Failure(FailureCause.TRAINER, "exit code 1", log_tail=(message,)).advice()
    assert Failure(FailureCause.PREEMPTED, message).advice() == FailureCause.PREEMPTED.advice()
    assert Failure(FailureCause.TRAINER, "exit code 1").advice() == FailureCause.TRAINER.advice()


@pytest.mark.parametrize("cause", list(FailureCause))
def test_the_advice_fits_how_the_job_was_started(cause: FailureCause) -> None:
    assert "clear `submit`" in cause.advice()
    by_hand = Failure(cause, "out of memory").advice(by_hand=True)
    assert "clear" not in by_hand
    assert "train under another job id" in by_hand

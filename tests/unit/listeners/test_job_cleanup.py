"""How the jobs of a finished run are found. ``tests/e2e`` tests the queries of the database."""

from __future__ import annotations

from typing import Any

from mlengine.core.job import JobKey
from mlengine.listeners.cleanup_process import CancelRequest
from mlengine.listeners.job_cleanup import _submit_requests

KEY = JobKey("dag", "run", "submit", -1, 2, "uid")
LOST = JobKey("dag", "run", "submit", -1, 2)  # `[state_store] clear_on_success` has removed the run's uid
FIELDS = {"backend": "vertex", "gcp_conn_id": "google", "backend_options": {"region": "r"}}
WHERE: dict[str, Any] = {"gcp_conn_id": "google", "backend_options": {"region": "r"}}
HANDLE: dict[str, Any] = {"backend": "local", "name": "n", "job_id": "j", "attempt": 1, "job_dir": "gs://bucket/m/j"}


OWNER = {"dag_id": "dag", "run_id": "run"}
PREPARED = {"job": {"model": "m", "job_dir": "gs://bucket/m/prepared"}}


def test_a_submission_is_identified_by_its_key_and_its_job_dir() -> None:
    """The key is that of the current generation; a job from before the task was cleared has another key."""
    (found,) = _submit_requests(KEY, FIELDS, {**HANDLE, "backend": "vertex"})
    assert found == CancelRequest(key=KEY.digest, job_dir=HANDLE["job_dir"], owner=OWNER, backend="vertex", **WHERE)
    (found,) = _submit_requests(KEY, {}, HANDLE)
    assert (found.key, found.job_dir, found.backend) == (KEY.digest, HANDLE["job_dir"], "local")


def test_without_a_result_a_submission_is_identified_by_the_prepared_dir() -> None:
    (found,) = _submit_requests(KEY, {**FIELDS, **PREPARED}, None)
    assert (found.key, found.job_dir, found.owner) == (KEY.digest, "gs://bucket/m/prepared", OWNER)
    (found,) = _submit_requests(KEY, {}, None)
    assert (found.key, found.job_dir, found.gcp_conn_id) == (KEY.digest, "", "")


def test_the_backend_of_the_submission_is_used() -> None:
    by_key, by_dir = _submit_requests(KEY, FIELDS, HANDLE)
    assert (by_key.key, by_key.job_dir, by_key.backend) == (KEY.digest, "", "vertex")
    assert (by_dir.key, by_dir.job_dir, by_dir.backend) == ("", HANDLE["job_dir"], "local")


def test_a_reused_job_is_not_cancelled() -> None:
    (found,) = _submit_requests(KEY, FIELDS, {**HANDLE, "decision": "reused"})
    assert (found.key, found.job_dir) == (KEY.digest, "")


def test_without_a_run_uid_the_returned_job_is_used() -> None:
    (found,) = _submit_requests(LOST, FIELDS, HANDLE)
    assert found == CancelRequest(job_dir="gs://bucket/m/j", owner=OWNER, backend="local", **WHERE)


def test_a_task_without_stored_access_uses_its_key() -> None:
    """The request still has the key of a job that was submitted without Airflow's state store, as in tests."""
    (found,) = _submit_requests(LOST, FIELDS, None)
    assert found.key == LOST.digest

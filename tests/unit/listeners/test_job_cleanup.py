"""By what the jobs of a run that is over are found; the database is asked in ``tests/e2e``."""

from __future__ import annotations

from typing import Any

from mlengine.core.job import JobKey
from mlengine.listeners.cleanup_process import CancelRequest
from mlengine.listeners.job_cleanup import _submit_request

KEY = JobKey("dag", "run", "submit", -1, 2, "uid")
LOST = JobKey("dag", "run", "submit", -1, 2)  # `[state_store] clear_on_success` has removed the run's uid
FIELDS = {"backend": "vertex", "gcp_conn_id": "google", "backend_options": {"region": "r"}}
WHERE: dict[str, Any] = {"gcp_conn_id": "google", "backend_options": {"region": "r"}}
HANDLE = {"backend": "local", "name": "n", "job_id": "j", "attempt": 1, "job_dir": "gs://bucket/m/j"}


def test_a_submission_is_found_by_its_key() -> None:
    assert _submit_request(KEY, FIELDS, HANDLE) == CancelRequest(key=KEY.digest, backend="vertex", **WHERE)
    assert _submit_request(KEY, {}, None) == CancelRequest(key=KEY.digest, gcp_conn_id="")


def test_without_the_runs_uid_it_is_found_by_what_the_task_returned() -> None:
    assert _submit_request(LOST, FIELDS, HANDLE) == CancelRequest(job_dir="gs://bucket/m/j", backend="local", **WHERE)


def test_a_task_that_has_kept_neither_has_submitted_nothing() -> None:
    """The key is that of a job submitted without Airflow's state store, as in tests."""
    assert _submit_request(LOST, FIELDS, None).key == LOST.digest

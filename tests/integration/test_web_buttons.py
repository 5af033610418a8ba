"""Tests the page's two buttons on a real bucket: who may use them, and that each use is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from fastapi.testclient import TestClient

from mlengine import connections
from mlengine.backends import TrainingBackend
from mlengine.champions import history
from mlengine.cli import main
from mlengine.cli.options import reason
from mlengine.core.errors import BackendError, JobFailedError
from mlengine.core.job import Failure, FailureCause, JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.jobs.submission import Submitter, cancelled_outside, may_be_tried_again
from mlengine.web import guard
from tests.support.page_client import BUTTON, champion
from tests.support.sample_jobs import BACKEND, DAY, NOW, SampleJobs

pytestmark = pytest.mark.integration


def test_a_cancellation_is_executed_and_recorded(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    job_dir = sample_jobs.job("mnist_1", state=JobState.RUNNING)
    answer = visit().post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": " wrong data "})
    assert answer.status_code == 200, answer.text
    assert answer.json()["row"]["state"] == "CANCELLED"
    noted = JobRecord.from_bytes(sample_jobs.storage.read(job_dir.claim)).history[-1]
    assert (noted["event"], noted["by"], noted["why"]) == ("cancelled_by_person", "ann", "wrong data")
    again = visit().post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": "again"})
    assert again.status_code == 409
    assert len(JobRecord.from_bytes(sample_jobs.storage.read(job_dir.claim)).history) == 3


@pytest.mark.parametrize("text", ["wrong data,\n\n  see #5", "\x1b[2Jwrong data,\tsee #5\r\n"])
def test_a_reason_is_recorded_as_one_line(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """It is written to the API server's log, to the task's log, and to tables of the command line."""
    job_dir = sample_jobs.job("mnist_1", state=JobState.RUNNING)
    answer = visit().post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": text})
    assert answer.status_code == 200, answer.text
    noted = JobRecord.from_bytes(sample_jobs.storage.read(job_dir.claim)).history[-1]
    assert noted["why"] == reason(text) == "wrong data, see #5"
    assert "Job mnist_1: cancelled by ann: wrong data, see #5" in caplog.messages


def failed_attempt(sample_jobs: SampleJobs, ended: float, cause: FailureCause = FailureCause.PREEMPTED) -> JobDir:
    """A job whose first attempt failed at that time."""
    job_dir = sample_jobs.job("mnist_1", state=JobState.FAILED, began=ended - 180)
    BACKEND.jobs[-1].failure = Failure(cause, "chief-0 received SIGTERM", "chief-0", 143)
    return job_dir


def test_a_job_can_be_cancelled_before_its_next_attempt(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    job_dir = failed_attempt(sample_jobs, time.time() - 10)
    client = visit()
    job = client.get("api/jobs/mnist/mnist_1").json()
    assert (job["row"]["state"], job["cancellable"], job["may_be_tried_again"]) == ("FAILED", True, True)
    calls = list(BACKEND.calls)
    answer = client.post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": "wrong data"})
    assert answer.status_code == 200, answer.text
    assert "cancel" not in BACKEND.calls[len(calls) :]
    record = JobRecord.from_bytes(sample_jobs.storage.read(job_dir.claim))
    handle = record.handle(job_dir.uri)
    assert handle is not None
    # When the pause is over, the task reads this and fails.
    assert "it was cancelled by ann: wrong data" in cancelled_outside(record, BACKEND.describe([handle])[0])
    assert client.get("api/jobs/mnist/mnist_1").json()["cancellable"] is False
    again = client.post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": "again"})
    assert again.status_code == 409


def test_jobs_cancel_works_before_the_next_attempt(
    sample_jobs: SampleJobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_dir = failed_attempt(sample_jobs, time.time() - 10)
    monkeypatch.setattr("mlengine.cli.jobs.cancel.find_job", lambda _: (BACKEND, BACKEND.jobs[-1].handle))
    command = ["jobs", "cancel", "mnist_1", "--reason", "wrong data", "--by", "ann"]
    assert main(command) == 0
    assert "its task will make no further attempt" in capsys.readouterr().out
    noted = JobRecord.from_bytes(sample_jobs.storage.read(job_dir.claim)).history[-1]
    assert (noted["event"], noted["by"], noted["why"]) == ("cancelled_by_person", "ann", "wrong data")
    assert main(command) == 0
    assert "has already ended" in capsys.readouterr().out


def test_the_command_says_so_if_the_next_attempt_has_begun(
    sample_jobs: SampleJobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_dir = failed_attempt(sample_jobs, time.time() - 10)
    monkeypatch.setattr("mlengine.cli.jobs.cancel.find_job", lambda _: (BACKEND, BACKEND.jobs[-1].handle))

    def begins(_: object) -> bool:
        record = JobRecord.from_bytes(sample_jobs.storage.read(job_dir.claim))
        event = {"event": "attempt", "attempt": 2, "time": time.time()}
        sample_jobs.storage.write(job_dir.claim, record.with_attempt(2, None, event).to_bytes())
        return True

    monkeypatch.setattr("mlengine.cli.jobs.cancel._waits_for_next_attempt", begins)
    assert main(["jobs", "cancel", "mnist_1", "--by", "ann"]) != 0
    shown = capsys.readouterr()
    assert "is already at attempt 2" in shown.err
    assert "no further attempt" not in shown.out


@pytest.mark.parametrize(("ago", "cause"), [(2 * 3600.0, FailureCause.PREEMPTED), (10.0, FailureCause.TRAINER)])
def test_a_failed_job_that_is_not_retried_cannot_be_cancelled(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], ago: float, cause: FailureCause
) -> None:
    failed_attempt(sample_jobs, time.time() - ago, cause)
    assert visit().get("api/jobs/mnist/mnist_1").json()["cancellable"] is False
    answer = visit().post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": "x"})
    assert answer.status_code == 409


def test_a_job_whose_last_attempt_failed_cannot_be_cancelled(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    job_dir = failed_attempt(sample_jobs, time.time() - 10)
    client = visit()
    assert client.get("api/jobs/mnist/mnist_1").json()["cancellable"] is True
    (status,) = BACKEND.describe([BACKEND.jobs[-1].handle])
    submitter = Submitter(sample_jobs.storage, BACKEND, max_attempts=1)
    for _ in range(2):  # a retry of the task comes to the same end
        with pytest.raises(JobFailedError, match="it was attempt 1 of 1"):
            submitter.next_attempt(status)
    job = client.get("api/jobs/mnist/mnist_1").json()
    assert (job["cancellable"], job["may_be_tried_again"]) == (False, False)
    noted = [event for event in submitter.record(job_dir).history if event["event"] == "last_attempt_failed"]
    assert [(event["attempt"], event["why"]) for event in noted] == [(1, "it was attempt 1 of 1")]
    # A user who allows more attempts and clears the task starts another attempt, which is not the last one.
    submitted = Submitter(sample_jobs.storage, BACKEND, max_attempts=3).next_attempt(status, wanted=True)
    failed = replace(status, handle=submitted.handle, ended=time.time())
    assert may_be_tried_again(submitter.record(job_dir), failed)


def test_an_unusable_backend_is_tried_again_later(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING)
    works = connections.CloudAccess.backend

    def fails(self: connections.CloudAccess, name: str | None = None) -> TrainingBackend:
        raise BackendError(f"{name} has no project", hint="set vertex_project")

    with monkeypatch.context() as patch:
        patch.setattr(connections.CloudAccess, "backend", fails)
        answer = visit().post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": "x"})
        assert answer.status_code == 409
        assert answer.json() == {"error": "memory has no project", "hint": "set vertex_project"}
    assert connections.CloudAccess.backend is works
    answer = visit().post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": "x"})
    assert answer.status_code == 200, answer.text


def test_a_rollback_is_executed_and_recorded(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    champion(sample_jobs, "mnist_a", 0.97, "v9", NOW - 30 * DAY)
    champion(sample_jobs, "mnist_b", 0.98, "v12", NOW - 20 * DAY)
    answer = visit().post("api/models/mnist/rollback", headers=BUTTON, json={"reason": "b is slow", "to": 1})
    assert answer.status_code == 200, answer.text
    now = history.current(sample_jobs.storage, sample_jobs.bucket, "mnist")
    assert now is not None
    assert (now.job_id, now.by, now.why, now.serial) == ("mnist_a", "ann", "b is slow", 3)
    again = visit().post("api/models/mnist/rollback", headers=BUTTON, json={"reason": "x", "to": 1})
    assert again.status_code == 409


def test_a_rollback_does_not_replace_a_champion_published_meanwhile(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    """The page was open when another model was published."""
    champion(sample_jobs, "mnist_a", 0.97, "v9", NOW - 30 * DAY)
    champion(sample_jobs, "mnist_b", 0.98, "v12", NOW - 20 * DAY)
    champion(sample_jobs, "mnist_c", 0.99, "v13", NOW - 10 * DAY)
    request = {"reason": "b is bad", "to": 1, "shown": 2}
    answer = visit().post("api/models/mnist/rollback", headers=BUTTON, json=request)
    assert answer.status_code == 409
    assert "the champion of mnist has changed: it is mnist_c, serial 3" in answer.text
    now = history.current(sample_jobs.storage, sample_jobs.bucket, "mnist")
    assert now is not None
    assert now.serial == 3
    assert visit().post("api/models/mnist/rollback", headers=BUTTON, json={**request, "shown": 3}).status_code == 200


@pytest.mark.parametrize("dag_id", ["mlengine train", "mlengine rerun", ""])
def test_jobs_of_the_command_line_need_general_dag_permissions(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, dag_id: str
) -> None:
    """Users who may read a DAG see these jobs; users who may edit all DAGs may cancel them."""
    sample_jobs.job("mnist_1", state=JobState.RUNNING, dag_id=dag_id)
    client = visit()

    def cancel() -> int:
        return client.post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": "x"}).status_code

    with monkeypatch.context() as patch:
        patch.setattr(guard, "get_auth_manager", OwnRuns)
        (row,) = client.get("api/jobs").json()["jobs"]
        assert (row["dag_id"], row["run_id"]) == ("", "")
        assert not client.get("api/jobs/mnist/mnist_1").json()["may_change"]
        assert cancel() == 403
    assert cancel() == 200


class OwnRuns(SimpleAuthManager):
    """Ann may edit the DAG ``mine`` and its runs, and read other DAGs.

    As with other auth managers, this permits runs without a DAG's id, but not DAGs without one.
    """

    def is_authorized_dag(self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        dag_id = details.id if details else None
        return method == "GET" or dag_id == "mine" or (dag_id is None and access_entity is DagAccessEntity.RUN)


def test_a_rollback_needs_the_permission_of_the_dag_that_trained_the_champion(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also applies if the user sees only other jobs of the model, or if the champion's job or DAG is unknown."""
    champion(sample_jobs, "mnist_a", 0.97, "v9", NOW - 30 * DAY, dag_id="mine")
    theirs = champion(sample_jobs, "mnist_b", 0.98, "v12", NOW - 20 * DAY, dag_id="theirs")
    client = visit()

    def roll_back() -> int:
        answer = client.post("api/models/mnist/rollback", headers=BUTTON, json={"reason": "x", "to": 1})
        assert client.get("api/models/mnist").json()["may_change"] is (answer.status_code != 403)
        return answer.status_code

    monkeypatch.setattr(guard, "get_auth_manager", OwnRuns)
    assert roll_back() == 403
    # Only ann's own jobs of the model are listed.
    monkeypatch.setattr(guard, "readable", lambda *_: {"mine", ""})
    assert client.get("api/jobs").json()["total"] == 1
    assert roll_back() == 403
    claim = sample_jobs.storage.read(theirs.claim)
    sample_jobs.storage.delete(theirs.claim)
    assert roll_back() == 403
    sample_jobs.storage.write(theirs.claim, claim.replace(b'"theirs"', b'""'))
    assert roll_back() == 403
    sample_jobs.storage.write(theirs.claim, claim.replace(b'"theirs"', b'"mine"'))
    assert roll_back() == 200


def test_a_job_without_a_dag_needs_the_permission_for_dags_in_general(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING, dag_id="")
    monkeypatch.setattr(guard, "get_auth_manager", OwnRuns)
    client = visit()
    assert client.get("api/jobs/mnist/mnist_1").json()["may_change"] is False
    assert client.post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json={"reason": "x"}).status_code == 403
    assert BACKEND.live


@pytest.mark.parametrize("path", ["api/jobs/mnist/mnist_1/cancel", "api/models/mnist/rollback"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"sec-fetch-site": "same-origin"}, 403),
        ({"x-requested-by": "mlengine", "sec-fetch-site": "cross-site"}, 403),
        ({"x-requested-by": "mlengine", "sec-fetch-site": "same-site"}, 403),
        ({"x-requested-by": "mlengine", "origin": "http://evil.test"}, 403),
        ({"x-requested-by": "mlengine", "origin": "null"}, 403),
        ({**BUTTON, "content-type": "text/plain"}, 415),
    ],
)
def test_requests_from_another_site_are_refused(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], path: str, headers: dict[str, str], status: int
) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING)
    answer = visit().post(path, headers={"content-type": "application/json", **headers}, content='{"reason": "evil"}')
    assert answer.status_code == status
    assert BACKEND.live
    assert "cancel" not in BACKEND.calls


@pytest.mark.parametrize("path", ["api/jobs/mnist/mnist_1/cancel", "api/models/mnist/rollback"])
def test_users_with_read_permission_only_cannot_change_anything(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], path: str
) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING)
    client = visit("VIEWER", "vic")
    found = client.get("api/jobs/mnist/mnist_1").json()
    assert (found["cancellable"], found["may_change"]) == (True, False)
    assert client.post(path, headers=BUTTON, json={"reason": "I want to"}).status_code == 403
    assert BACKEND.live
    assert client.get("api/models/mnist").json()["may_change"] is False


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "  "}, {"reason": "x" * 501}, {"reason": 5}, []])
def test_a_change_requires_a_reason(sample_jobs: SampleJobs, visit: Callable[..., TestClient], body: Any) -> None:
    sample_jobs.job("mnist_1", state=JobState.RUNNING)
    assert visit().post("api/jobs/mnist/mnist_1/cancel", headers=BUTTON, json=body).status_code == 422
    assert BACKEND.live

"""Tests reaping jobs that no task waits for, with a real bucket, real claims, and a stub of Airflow's API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlengine import backends
from mlengine.cli import main
from mlengine.core.errors import BackendUnavailableError
from mlengine.core.job import JobHandle, JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.submission import Intent, Submitter, ended_with_task
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from tests.support.airflow_stub import AirflowStub

pytestmark = pytest.mark.integration


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> MemoryBackend:
    memory = MemoryBackend()
    backends.register("memory", lambda **_: memory)
    return memory


def submit(
    storage: Storage, bucket: str, run_id: str, *, dag_id: str = "dag", uid: str = "", installation: str = ""
) -> JobDir:
    job_dir = JobDir.of(bucket, "m", f"job_{run_id}{uid}")
    key = JobKey(dag_id, run_id, "submit", -1, 2, uid)
    intent = Intent(key, "m", job_dir, TrainingSpec("trainer.task"), installation=installation)
    Submitter(storage, backends.get_backend("memory")).submit(intent)
    return job_dir


def tasks(submitted: str = "success", waits: str | None = "deferred", max_tries: int = 2) -> list[dict[str, Any]]:
    return [
        {"task_id": "submit", "map_index": -1, "state": submitted, "max_tries": max_tries, "operator": "Submit"},
        {"task_id": "wait", "map_index": -1, "state": waits, "max_tries": 2, "operator": "TrainingJobSensor"},
    ]


def reap(bucket: str, *more: str) -> int:
    return main(["jobs", "reap", "--bucket", bucket, *more])


CASES = {
    "waited": ("running", tasks(), None),
    "unborn_wait": ("running", tasks(waits=None), None),
    "retried": ("running", tasks(submitted="up_for_retry", waits=None), None),
    "failed_run": ("failed", tasks(), "has ended: failed"),
    "marked_run": ("success", tasks(), "has ended: success"),
    "lost_wait": ("running", tasks(waits="failed"), "wait is failed"),
    "lost_submit": ("running", tasks(submitted="failed", waits="upstream_failed"), "submit has ended: failed"),
    "cleared": ("running", tasks(max_tries=4), "was cleared"),
}


def test_reap_lists_orphans_and_cancels_them_with_yes(
    storage: Storage, bucket: str, backend: MemoryBackend, airflow_stub: AirflowStub, capsys: pytest.CaptureFixture[str]
) -> None:
    dirs = {name: submit(storage, bucket, name) for name in CASES}
    airflow_stub.runs = {name: state for name, (state, _, _) in CASES.items()}
    airflow_stub.tasks = {name: found for name, (_, found, _) in CASES.items()}
    dirs["deleted_run"] = submit(storage, bucket, "deleted_run")
    submit(storage, bucket, "by_hand", dag_id="mlengine train")
    wrong = {name: why for name, (_, _, why) in CASES.items() if why} | {"deleted_run": "no longer exists"}

    assert reap(bucket) == 0
    output = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in output[1:-1]} == {f"job_{name}" for name in wrong}
    for name, why in wrong.items():
        assert any(f"job_{name} " in line and why in line for line in output), output
    assert output[-1] == f"{len(wrong)} of {len(CASES) + 1} active jobs would be cancelled; add --yes to cancel"
    assert reap(bucket, "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {one["job_id"]: one["reason"] for one in listed}.keys() == {f"job_{name}" for name in wrong}
    assert not any(one["cancelled"] for one in listed)
    assert len(backend.live) == len(CASES) + 2, "nothing must be cancelled without --yes"

    assert reap(bucket, "--yes") == 0
    assert {job.handle.job_id for job in backend.live} == {
        "job_waited",
        "job_unborn_wait",
        "job_retried",
        "job_by_hand",
    }
    assert ended_with_task(Submitter(storage, backend).record(dirs["failed_run"]))
    capsys.readouterr()
    assert reap(bucket, "--yes") == 0
    assert "no orphan jobs among 3 active jobs of Airflow" in capsys.readouterr().out


@pytest.mark.parametrize("begun", [True, False])
def test_a_sensor_of_a_subclass_waits_for_its_job(
    storage: Storage, bucket: str, backend: MemoryBackend, airflow_stub: AirflowStub, begun: bool
) -> None:
    """The run's other sensor, which is known by its name, has ended."""
    submit(storage, bucket, "r")
    other = {"task_id": "other", "map_index": -1, "state": "deferred", "max_tries": 2, "operator": "MySensor"}
    airflow_stub.runs, airflow_stub.tasks = {"r": "running"}, {"r": [*tasks(waits="success"), other]}
    airflow_stub.with_jobs = {("r", "other")} if begun else set()
    assert reap(bucket, "--yes") == 0
    assert len(backend.live) == begun


def test_reap_finds_a_submission_that_was_never_recorded(
    storage: Storage, bucket: str, backend: MemoryBackend, airflow_stub: AirflowStub
) -> None:
    backend.lose_answers = 1
    with pytest.raises(Exception, match="lost"):
        submit(storage, bucket, "r")
    airflow_stub.runs, airflow_stub.tasks = {"r": "failed"}, {"r": []}
    assert reap(bucket, "--yes") == 0
    assert [job.state for job in backend.jobs] == [JobState.CANCELLED]


def test_jobs_that_cannot_be_checked_do_not_block_others(
    storage: Storage, bucket: str, backend: MemoryBackend, airflow_stub: AirflowStub, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {name: submit(storage, bucket, name) for name in ("a", "gone", "owner", "index", "spec", "refuses")}
    airflow_stub.runs = dict.fromkeys(made, "failed")

    def change(job: str, **fields: Any) -> None:
        claim = json.loads(storage.read(made[job].claim))
        storage.write(made[job].claim, json.dumps({**claim, **fields}).encode())

    def refuse(**_: Any) -> MemoryBackend:
        raise BackendUnavailableError("no answer")

    backends.register("refuses", refuse)
    change("gone", backend="not registered")
    change("owner", owner={"dag_id": "dag"})
    change("index", owner={"dag_id": "dag", "run_id": "index", "task_id": "submit", "map_index": "x"})
    change("spec", spec={}, name=None)
    change("refuses", backend="refuses")
    assert reap(bucket, "--yes") == 1
    out, err = capsys.readouterr()
    assert "requested the cancellation of 1 active job" in out
    assert [job.handle.job_id for job in backend.jobs if job.state is JobState.CANCELLED] == ["job_a"]
    for why in (
        "skipped the jobs of backend not registered, job_gone: no backend named 'not registered'",
        "skipped the jobs of backend refuses, job_refuses: no answer",
        f"skipped {made['owner'].claim}: its owner has no valid run_id and no valid task_id",
        f"skipped {made['index'].claim}: its owner has no valid map_index",
        f"skipped {made['spec'].claim}: not a training spec",
    ):
        assert why in err


def test_a_failed_cancellation_does_not_block_others(
    storage: Storage,
    bucket: str,
    backend: MemoryBackend,
    airflow_stub: AirflowStub,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a", "b", "c"):
        submit(storage, bucket, name)
    airflow_stub.runs = dict.fromkeys("abc", "failed")
    cancel = backend.cancel

    def refuse_one(handle: JobHandle) -> None:
        if handle.job_id == "job_b":
            raise BackendUnavailableError("the service does not respond", hint="try again")
        cancel(handle)

    with monkeypatch.context() as patch:
        patch.setattr(backend, "cancel", refuse_one)
        assert reap(bucket, "--yes", "--json") == 1
    out, err = capsys.readouterr()
    assert {one["job_id"]: one["cancelled"] for one in json.loads(out)} == {
        "job_a": True,
        "job_b": False,
        "job_c": True,
    }
    assert "job_b was not cancelled: the service does not respond" in err
    assert "1 active job not cancelled; run the command again" in err
    assert reap(bucket, "--yes") == 0
    assert backend.live == []


def test_an_unavailable_airflow_cancels_nothing(
    storage: Storage, bucket: str, backend: MemoryBackend, airflow_stub: AirflowStub, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(storage, bucket, "r")
    airflow_stub.silent = True
    assert reap(bucket, "--yes") == 1
    assert "503" in capsys.readouterr().err
    assert len(backend.live) == 1


def test_jobs_unknown_to_airflow_are_cancelled_only_with_unknown(
    storage: Storage, bucket: str, backend: MemoryBackend, airflow_stub: AirflowStub, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(storage, bucket, "r")
    assert reap(bucket, "--yes") == 1
    assert "--unknown" in capsys.readouterr().err
    assert len(backend.live) == 1
    assert reap(bucket, "--yes", "--unknown") == 0
    assert backend.live == []


def test_the_jobs_of_a_deleted_run_and_of_its_recreation_are_distinguished(
    storage: Storage, bucket: str, backend: MemoryBackend, airflow_stub: AirflowStub, capsys: pytest.CaptureFixture[str]
) -> None:
    for uid in ("old", "new"):
        submit(storage, bucket, "nightly", uid=uid, installation="this")
    submit(storage, bucket, "unborn", uid="x", installation="this")  # its run is active, but has not stored a uid yet
    airflow_stub.installation = "this"
    airflow_stub.runs = {"nightly": "running", "unborn": "running"}
    airflow_stub.tasks = {"nightly": tasks(), "unborn": tasks()}
    airflow_stub.uids = {"nightly": "new"}
    assert reap(bucket, "--yes") == 0
    assert "job_nightlyold " in (output := capsys.readouterr().out)
    assert "its run nightly of dag was deleted and recreated" in output
    assert {job.handle.job_id for job in backend.live} == {"job_nightlynew", "job_unbornx"}


def test_jobs_of_another_airflow_are_left_alone_unless_it_is_named(
    storage: Storage, bucket: str, backend: MemoryBackend, airflow_stub: AirflowStub, capsys: pytest.CaptureFixture[str]
) -> None:
    """This Airflow does not know the run; the other Airflow waits for its job."""
    submit(storage, bucket, "theirs", installation="other")
    submit(storage, bucket, "ours", installation="this")
    submit(storage, bucket, "by_api")
    airflow_stub.installation, airflow_stub.runs = "this", {"some": "running"}
    assert reap(bucket, "--yes") == 0
    assert "ignored jobs of another Airflow (--installation other): job_theirs" in capsys.readouterr().err
    assert [job.handle.job_id for job in backend.live] == ["job_theirs"]
    assert reap(bucket, "--yes", "--installation", "other") == 0
    assert backend.live == []


def test_an_airflow_without_submissions_cancels_nothing(
    storage: Storage, bucket: str, backend: MemoryBackend, airflow_stub: AirflowStub, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example, its database may be new."""
    submit(storage, bucket, "theirs", installation="other")
    airflow_stub.runs = {"some": "running"}
    assert reap(bucket, "--yes") == 0
    assert len(backend.live) == 1

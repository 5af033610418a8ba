"""Tests a run that is deleted and created again, two Airflows with one bucket, and a retry with changed inputs.

The tests call the tasks as Airflow does; ``tests/e2e/live_airflow/test_recreated_dag_runs.py`` uses a real Airflow.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine import backends, connections
from mlengine.core.errors import BackendUnavailableError, JobConflictError
from mlengine.core.job import FailureCause, JobHandle, JobKey, JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import Role, TrainingSpec
from mlengine.jobs.submission import Intent, Submitter
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.sensors.training_job import TrainingJobSensor
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from tests.support import local_jobs
from tests.support.scripted_backends import ScriptedBackend
from tests.support.state_store import StateStore

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def backend(storage: Storage, scripted_backend: ScriptedBackend) -> Iterator[ScriptedBackend]:
    """Replaces the backend: all tests in this module must pass with every backend."""
    backends.register(scripted_backend.name, lambda **_: scripted_backend)
    connections.forget_connections()
    assert storage
    yield scripted_backend
    connections.forget_connections()


class Run:
    """One DAG run of one Airflow, from its creation to its deletion."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, bucket: str, package: str, *, airflow: str = "this", **words: Any
    ) -> None:
        self._patch, self.bucket, self.package, self.airflow, self.words = monkeypatch, bucket, package, airflow, words
        self.store = StateStore()

    def context(self, task_id: str, **ti: Any) -> Any:
        fields = {"dag_id": "dag", "run_id": "nightly", "map_index": -1, "try_number": 1, "max_tries": 2, **ti}
        return {"ti": SimpleNamespace(task_id=task_id, **fields), "task_state_store": self.store}

    def submit(self, **more: Any) -> dict[str, Any]:
        """Prepare and submit.

        :param more: ``try_number``, ``max_tries``, and arguments of the operator.
        """
        ti = {name: more.pop(name) for name in ("try_number", "max_tries") if name in more}
        self._patch.setenv("AIRFLOW_VAR_MLENGINE_INSTALLATION_ID", self.airflow)
        prepare = PrepareJobDirOperator(
            task_id="prepare", model="m", job_id_hint="h", bucket=self.bucket, gcp_conn_id=None
        )
        job_file = {"trainingInput": {"pythonModule": "tiny.task", "packageUris": [self.package]}}
        words = {"job_file": job_file, "force_retrain": "", **self.words}
        operator = SubmitTrainingJobOperator(
            task_id="submit",
            job=prepare.execute(self.context("prepare")),
            gcp_conn_id=None,
            **{**words, **more},
        )
        return dict(operator.execute(self.context("submit", **ti)))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, storage: Storage, bucket: str, backend: ScriptedBackend) -> Any:
    """Creates runs called ``nightly`` in this bucket."""
    package = local_jobs.put(storage, bucket, local_jobs.sdist(""))

    def make(*args: str, **more: Any) -> Run:
        return Run(monkeypatch, bucket, package, **{"args": list(args), "backend": backend.name, **more})

    return make


def args_of(backend: ScriptedBackend) -> list[tuple[str, ...]]:
    return [job.submission.spec.args for job in backend.jobs]


def test_a_recreated_run_trains_with_its_own_arguments(
    storage: Storage, run: Any, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = run("--x", "1").submit()
    backend.end(first["name"], JobState.SUCCEEDED)
    claim = storage.read(JobDir(first["job_dir"]).claim)
    again = run("--x", "2").submit()
    assert again["decision"] == "fresh_submit"
    assert again["job_dir"] == f"{first['job_dir']}_2"
    assert args_of(backend) == [("--x", "1"), ("--x", "2")]
    assert storage.read(JobDir(first["job_dir"]).claim) == claim
    assert "belongs to an earlier run nightly of dag, which was deleted (args: --x 1 → --x 2)" in caplog.text


def test_a_recreated_run_after_a_failure_trains_with_corrected_arguments(run: Any, backend: ScriptedBackend) -> None:
    first = run("--x", "bad").submit()
    backend.end(first["name"], JobState.FAILED, FailureCause.TRAINER)
    assert run("--x", "good").submit()["decision"] == "fresh_submit"
    assert args_of(backend)[-1] == ("--x", "good")


def test_a_recreated_run_with_the_same_arguments_submits_a_new_job(run: Any, backend: ScriptedBackend) -> None:
    first = run("--x", "1").submit()
    backend.end(first["name"], JobState.SUCCEEDED)
    again = run("--x", "1").submit()
    assert again["decision"] == "fresh_submit"
    assert again["job_dir"] != first["job_dir"]


def test_retries_before_and_after_a_clear_reattach_to_their_jobs(run: Any, backend: ScriptedBackend) -> None:
    """This holds in a recreated run too, where the deleted run's job also exists."""
    deleted = run("--x", "1").submit()
    backend.end(deleted["name"], JobState.SUCCEEDED)
    this = run("--x", "2")
    first = this.submit()
    assert this.submit(try_number=2) == {**first, "decision": "reattached"}
    cleared = this.submit(try_number=3, max_tries=4)
    assert (cleared["decision"], cleared["job_dir"]) == ("fresh_submit", f"{deleted['job_dir']}_3")
    assert this.submit(try_number=4, max_tries=4) == {**cleared, "decision": "reattached"}
    assert [job.handle.name for job in backend.live] == [cleared["name"]]
    backend.end(cleared["name"], JobState.SUCCEEDED)
    assert this.submit(try_number=4, max_tries=4)["decision"] == "already_succeeded"


def test_an_active_job_of_a_deleted_run_is_cancelled(
    run: Any, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    deleted = run("--x", "1").submit()
    again = run("--x", "2").submit()
    assert [job.handle.name for job in backend.live] == [again["name"]]
    assert f"cancelling job {deleted['job_id']}: run nightly of dag was deleted and recreated" in caplog.text


def test_an_unrecorded_job_of_a_deleted_run_is_cancelled(run: Any, backend: ScriptedBackend) -> None:
    backend.lose_answers = 1
    with pytest.raises(BackendUnavailableError):
        run("--x", "1").submit()
    assert len(backend.live) == 1
    again = run("--x", "2").submit()
    assert [job.handle.name for job in backend.live] == [again["name"]]


def test_a_job_of_a_deleted_run_is_cancelled_if_the_new_run_reuses_another(
    storage: Storage, run: Any, backend: ScriptedBackend
) -> None:
    """Even if the new run's submission is ``reused``, it ends the deleted run's job."""
    old = run("--x", "1").submit()
    key = JobKey("dag", "nightly", "submit", -1, 2, "the new run")
    intent = Intent(key, "m", JobDir(old["job_dir"]), TrainingSpec("trainer.task"), installation="this", own_dir=True)
    accepted = JobHandle(backend.name, "accepted", "accepted", 1, f"{old['job_dir']}_of_another_run")
    submitted = Submitter(storage, backend).reuse(intent, accepted, {"dag_id": "dag", "run_id": "another"})
    assert submitted is not None
    assert submitted.decision == "reused"
    assert backend.live == []


def test_two_airflows_do_not_take_over_each_others_jobs(
    run: Any, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ours, theirs = run("--x", "1"), run("--x", "2", airflow="other")
    first, second = ours.submit(), theirs.submit()
    assert {job.handle.name for job in backend.live} == {first["name"], second["name"]}
    assert ours.submit(try_number=2) == {**first, "decision": "reattached"}
    assert theirs.submit(try_number=2) == {**second, "decision": "reattached"}
    cleared = theirs.submit(try_number=3, max_tries=4)
    assert {job.handle.name for job in backend.live} == {first["name"], cleared["name"]}
    assert f"leaving {first['job_dir']} unchanged: it belongs to run nightly of dag of another Airflow" in caplog.text
    assert "of another Airflow (args: --x 1 → --x 2)" in caplog.text
    assert "mlengine jobs reap --installation this" in caplog.text


def test_an_airflow_with_a_lost_database_leaves_old_jobs_alone(
    run: Any, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """An Airflow that lost its database looks like another one: the log names the old job and leaves it to the user."""
    first = run("--x", "1", airflow="lost").submit()
    again = run("--x", "2", airflow="new").submit()
    assert {job.handle.name for job in backend.live} == {first["name"], again["name"]}
    assert f"job {first['job_id']} of that run is " in caplog.text
    assert "mlengine jobs reap --installation lost" in caplog.text


def test_a_retry_with_other_inputs_cancels_the_job_and_names_the_differences(
    run: Any, backend: ScriptedBackend
) -> None:
    this = run("--x", "1", "--y", "3")
    this.submit()
    with pytest.raises(JobConflictError, match="args: --x 1 → --x 2") as caught:
        this.submit(try_number=2, args=["--x", "2", "--y", "3"])
    assert "clear the task" in caught.value.hint
    assert len(backend.jobs) == 1, "a retry must not submit a second job"
    assert backend.live == [], "the task fails without another try, so its job must be cancelled"
    assert this.submit(try_number=3, max_tries=4, args=["--x", "2", "--y", "3"])["decision"] == "fresh_submit"


def test_a_retry_with_other_inputs_is_an_error_even_if_its_job_succeeded(run: Any, backend: ScriptedBackend) -> None:
    this = run("--x", "1")
    backend.end(this.submit()["name"], JobState.SUCCEEDED)
    with pytest.raises(JobConflictError, match="args: --x 1 → --x 2"):
        this.submit(try_number=2, args=["--x", "2"])


def test_a_retry_whose_job_was_never_submitted_takes_its_new_inputs(
    storage: Storage, run: Any, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = run("--stamp", "first try")

    def refuse(_: Any) -> Any:
        raise BackendUnavailableError("come back later")

    with monkeypatch.context() as patched:
        patched.setattr(backend, "submit", refuse)
        with pytest.raises(BackendUnavailableError):
            this.submit()
    job = this.submit(try_number=2, args=["--stamp", "second try"])
    assert args_of(backend) == [("--stamp", "second try")]
    record = JobRecord.from_bytes(storage.read(JobDir(job["job_dir"]).claim))
    assert record.spec["args"] == ["--stamp", "second try"]


def test_changes_that_do_not_affect_the_model_are_allowed_in_a_retry(
    run: Any, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlengine.operators import submit as operator

    this = run("--x", "1")
    first = this.submit()
    monkeypatch.setattr(operator, "software", lambda: {"mlengine": "another version"})
    assert this.submit(try_number=2, labels={"team": "x"}) == {**first, "decision": "reattached"}


class Small(MemoryBackend):
    """Accepts only as many workers as its machine has room for."""

    room = 4

    def cap(self, spec: TrainingSpec) -> tuple[TrainingSpec, list[str]]:
        return spec.with_counts({Role.WORKER: min(self.room, spec.count(Role.WORKER))}), []


def test_a_differently_reduced_cluster_is_allowed_in_a_retry(run: Any) -> None:
    """Between two tries the machine or its settings have changed, but the requested cluster has not."""
    small = Small()
    backends.register("memory", lambda **_: small)
    this = run("--x", "1", backend="memory", replica_counts={"worker": 4})
    first = this.submit()
    small.room = 2
    assert this.submit(try_number=2) == {**first, "decision": "reattached"}
    with pytest.raises(JobConflictError, match=r"4 workers .* → .* 3 workers"):
        this.submit(try_number=2, replica_counts={"worker": 3})


def test_a_retry_on_another_backend_is_an_error_that_names_it(run: Any, backend: ScriptedBackend) -> None:
    this = run("--x", "1")
    this.submit()
    other = MemoryBackend(name="elsewhere")
    backends.register("elsewhere", lambda **_: other)
    with pytest.raises(JobConflictError, match=f"backend: {backend.name} → elsewhere"):
        this.submit(try_number=2, backend="elsewhere")
    assert other.jobs == []


def test_a_recreated_run_on_another_backend_logs_where_the_old_job_was(
    run: Any, backend: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    first = run("--x", "1").submit()
    other = MemoryBackend(name="elsewhere")
    backends.register("elsewhere", lambda **_: other)
    assert run("--x", "1").submit(backend="elsewhere")["decision"] == "fresh_submit"
    assert f"mlengine jobs cancel {first['job_id']} --backend {backend.name}" in caplog.text


def test_job_ids_of_recreated_runs_get_a_number(run: Any, backend: ScriptedBackend) -> None:
    names = []
    for _ in range(3):
        job = run("--x", "1").submit()
        backend.end(job["name"], JobState.SUCCEEDED)
        names.append(job["job_id"])
    first = names[0]
    assert first.startswith("m_h_")
    assert names == [first, f"{first}_2", f"{first}_3"]


def test_a_task_stores_how_its_job_is_accessed(run: Any, backend: ScriptedBackend) -> None:
    """The listener that cancels orphaned jobs needs this, because Airflow deletes the rendered fields of old runs."""
    made = run()
    submitted = made.submit()
    kept = made.store["mlengine_access"]
    assert (kept["backend"], kept["gcp_conn_id"], kept["region"]) == (backend.name, None, None)
    assert kept["job"]["job_dir"] == submitted["job_dir"]


@pytest.mark.usefixtures("backend")
def test_options_with_secrets_are_not_stored() -> None:
    store = StateStore()
    options = {"token": "secret", "env": {"KEY": "secret"}, "endpoint": "http://127.0.0.1:1", "path": Path("/x")}
    sensor = TrainingJobSensor(task_id="wait", job="", gcp_conn_id="training", backend_options=options)
    context: Any = {"task_state_store": store}
    sensor.keep_access(context, job={"job_dir": "gs://b/m/j"})
    assert "secret" not in json.dumps(store)
    kept = store["mlengine_access"]
    assert kept["backend_options"] == {"endpoint": "http://127.0.0.1:1", "path": "/x"}
    assert (kept["gcp_conn_id"], kept["job"]) == ("training", {"job_dir": "gs://b/m/j"})

"""Tests reuse of accepted jobs: which are reused, and when a new one is trained.

Uses a real bucket and simulated jobs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlengine import backends, connections
from mlengine.champions.history import current
from mlengine.core.errors import ModelError
from mlengine.core.job import JobRecord, JobState
from mlengine.core.layout import JobDir, validated
from mlengine.core.run_order import RunOrder
from mlengine.core.verdict import Check
from mlengine.core.xcoms import DatasetXCom, JobXCom, PackageXCom, PublicationXCom, ValidationXCom
from mlengine.job_index import shards
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.publish import PublishModelOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.operators.validate import ValidateModelOperator
from mlengine.sensors.training_job import TrainingJobSensor
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.validation import cache
from mlengine.validation.report import load_report
from tests.support.state_store import StateStore

pytestmark = pytest.mark.integration

PACKAGE = {"package_uris": ["gs://bkt/packages/t/p1/t.tar.gz"], "digest": "p1"}


@pytest.fixture(autouse=True)
def backend(storage: Storage) -> Iterator[MemoryBackend]:
    memory = MemoryBackend()
    backends.register("memory", lambda **_: memory)
    connections.forget_connections()
    assert storage
    yield memory
    connections.forget_connections()


class Run:
    """The tasks of one DAG run, called as Airflow calls them."""

    def __init__(
        self, bucket: str, run_id: str, *, version: str = "v1", max_tries: int = 2, uid: str = "", **submit: Any
    ) -> None:
        self.bucket, self.run_id, self.max_tries = bucket, run_id, max_tries
        # Airflow keeps this store until the run is deleted.
        self.store = StateStore({"mlengine_run_uid": uid}) if uid else None
        uri = f"{bucket}/datasets/digits/{version}"
        self.dataset = {"dataset": "digits", "version": version, "uri": uri, "digest": f"content of {version}"}
        self.submit_arguments = {"args": ["--dataset", uri], **submit}
        self.pushed: dict[str, Any] = {}
        self.dag_run: Any = None

    def context(self, task_id: str) -> Any:
        ti = SimpleNamespace(
            dag_id="dag",
            run_id=self.run_id,
            task_id=task_id,
            map_index=-1,
            try_number=self.max_tries - 1,
            max_tries=self.max_tries,
            xcom_push=lambda key, value: self.pushed.update({key: value}),
        )
        return {"ti": ti, "dag_run": self.dag_run, "task_state_store": self.store}

    def submit(self) -> JobXCom:
        prepare = PrepareJobDirOperator(
            task_id="prepare", model="m", job_id_hint="h", bucket=self.bucket, gcp_conn_id=None
        )
        context = self.context("prepare")
        context["ti"].max_tries = 2
        job = prepare.execute(context)
        operator = SubmitTrainingJobOperator(
            task_id="submit",
            job=job,
            job_file={"trainingInput": {"pythonModule": "trainer.task"}},
            package=cast(PackageXCom, PACKAGE),
            dataset=cast(DatasetXCom, self.dataset),
            backend="memory",
            gcp_conn_id=None,
            **{"force_retrain": "", **self.submit_arguments},
        )
        return operator.execute(self.context("submit"))

    def wait(self, job: JobXCom) -> JobXCom:
        result = TrainingJobSensor(task_id="wait", job=job, deferrable=True, gcp_conn_id=None).execute(
            self.context("wait")
        )
        return cast(JobXCom, result)

    def validate(self, job: JobXCom, **rules: Any) -> ValidationXCom:
        fields = {"validation_level": "files", "require_comparison": False, **rules}
        operator = ValidateModelOperator(task_id="validate", job=job, gcp_conn_id=None, **fields)
        return operator.execute(self.context("validate"))

    def publish(self, job: JobXCom | ValidationXCom) -> PublicationXCom:
        operator = PublishModelOperator(task_id="publish", job=job, published_by="test", gcp_conn_id=None)
        context = self.context("publish")
        context["outlet_events"] = {}
        return operator.execute(context)


Trained = Callable[..., JobXCom]


@pytest.fixture
def trained(storage: Storage, bucket: str, backend: MemoryBackend) -> Trained:
    """A run whose model was trained, validated and accepted."""

    def train(run_id: str = "first", *, validate: bool = True, **submit: Any) -> JobXCom:
        run = Run(bucket, run_id, **submit)
        job = run.submit()
        storage.write(JobDir(job["job_dir"]).model + "weights.json", run_id.encode())
        backend.end(job["name"], JobState.SUCCEEDED)
        if validate:
            assert run.validate(run.wait(job))["verdict"] in {"first", "accepted"}
        return job

    return train


def test_a_job_with_equal_inputs_is_reused_from_submit_to_publish(
    bucket: str, trained: Trained, backend: MemoryBackend
) -> None:
    first = trained()
    again = Run(bucket, "again")
    job = again.submit()
    assert job["decision"] == "reused"
    assert {**job, "decision": ""} == {**first, "decision": ""}, "the result must refer to the reused job"
    backend.calls.clear()
    waited = again.wait(job)
    validation = again.validate(waited)
    published = again.publish(validation)
    assert backend.calls == [], "the backend must not be called, as it may have forgotten the job"
    assert len(backend.jobs) == 1
    assert (waited["state"], validation["verdict"], published["decision"]) == ("SUCCEEDED", "first", "published")
    assert again.publish(validation)["decision"] == "already_champion"


def test_the_prepared_job_directory_is_deleted(storage: Storage, bucket: str, trained: Trained) -> None:
    first = trained()
    Run(bucket, "again").submit()
    dirs = {stat.uri.split("/")[4] for stat in storage.ls(f"{bucket}/m/") if stat.uri.count("/") > 4}
    assert dirs == {first["job_id"], "validated"}


def test_a_recreated_run_reuses_the_job_of_the_deleted_one(
    storage: Storage, bucket: str, trained: Trained, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_MLENGINE_INSTALLATION_ID", "this")
    first = trained("nightly", uid="deleted")
    before = storage.ls(first["job_dir"] + "/")
    assert Run(bucket, "nightly", uid="created again").submit() == {**first, "decision": "reused"}
    assert storage.ls(first["job_dir"] + "/") == before, "the dir of the reused job must not change"
    other = Run(bucket, "nightly", uid="once more", args=["--x", "2"]).submit()
    assert (other["decision"], other["job_dir"]) == ("fresh_submit", f"{first['job_dir']}_2")


def test_clearing_a_task_of_a_recreated_run_trains_again(
    bucket: str, trained: Trained, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_MLENGINE_INSTALLATION_ID", "this")
    trained("nightly", uid="this run")
    assert Run(bucket, "nightly", uid="this run", max_tries=4).submit()["decision"] == "fresh_submit"


@pytest.mark.parametrize("yes", [True, "True", "true"])
def test_force_retrain_submits_a_new_job(bucket: str, trained: Trained, backend: MemoryBackend, yes: Any) -> None:
    trained()
    assert Run(bucket, "again", force_retrain=yes).submit()["decision"] == "fresh_submit"
    assert len(backend.jobs) == 2


def test_the_last_accepted_job_is_reused(bucket: str, trained: Trained) -> None:
    trained()
    second = trained("second", force_retrain=True)
    assert Run(bucket, "third").submit()["job_id"] == second["job_id"]


@pytest.mark.parametrize("other", [{"args": ["--max_steps", "2"]}, {"version": "v2"}, {"scale_tier": "STANDARD_1"}])
def test_different_inputs_submit_a_new_job(bucket: str, trained: Trained, other: dict[str, Any]) -> None:
    trained()
    assert Run(bucket, "again", **other).submit()["decision"] == "fresh_submit"


def test_a_job_without_validation_is_not_reused(bucket: str, trained: Trained) -> None:
    trained(validate=False)
    assert Run(bucket, "again").submit()["decision"] == "fresh_submit"


def test_a_rejected_job_is_not_reused(bucket: str, trained: Trained) -> None:
    job = trained(validate=False)
    run = Run(bucket, "first")
    with pytest.raises(AirflowSkipException):
        run.validate(run.wait(job), thresholds={"size_bytes": 1})
    assert Run(bucket, "again").submit()["decision"] == "fresh_submit"


def test_a_job_that_new_rules_reject_is_not_reused_again(bucket: str, trained: Trained) -> None:
    """The job is reused, then validated again with other rules: the new verdict counts, and the next run trains."""
    trained()
    again = Run(bucket, "again")
    job = again.submit()
    assert job["decision"] == "reused"
    with pytest.raises(AirflowSkipException):
        again.validate(again.wait(job), thresholds={"size_bytes": 1})
    assert again.pushed["return_value"]["verdict"] == "rejected"
    assert Run(bucket, "third").submit()["decision"] == "fresh_submit"


def at_least(model: Path, figures: Any, size: int = 1) -> Check:
    found = (model / "weights.json").stat().st_size
    return Check("weights", found, f"≥ {size}", passed=found >= size, message=f"The weights have {found} bytes.")


def test_an_extra_check_with_other_arguments_is_run_again(storage: Storage, bucket: str, trained: Trained) -> None:
    run = Run(bucket, "first")
    run.validate(run.wait(trained(validate=False)), extra_checks=[partial(at_least, size=2)])
    again = Run(bucket, "again")
    job = again.submit()
    assert job["decision"] == "reused"
    created = load_report(storage, JobDir(job["job_dir"])).to_json()
    again.validate(again.wait(job), extra_checks=[partial(at_least, size=2)])
    assert load_report(storage, JobDir(job["job_dir"])).to_json() == created, "the report must not be replaced"
    with pytest.raises(AirflowSkipException, match="The weights have 5 bytes"):
        again.validate(again.wait(job), extra_checks=[partial(at_least, size=100)])


def test_a_report_with_more_checks_is_kept(storage: Storage, bucket: str, trained: Trained) -> None:
    run = Run(bucket, "first")
    run.validate(run.wait(trained(validate=False)), extra_checks=[at_least])
    again = Run(bucket, "again")
    job = again.submit()
    assert again.validate(again.wait(job))["verdict"] == "first"
    assert load_report(storage, JobDir(job["job_dir"])).extra_checks[0]["name"] == "at_least"
    # With fewer checks and another threshold, the new report would cover less: it must not replace the existing one.
    with pytest.raises(ModelError, match="extra check at_least"):
        again.validate(again.wait(job), thresholds={"size_bytes": 1000})


@pytest.mark.parametrize("change", ["changed", "vanished", "one more", "claim gone", "report gone", "entry damaged"])
def test_a_model_that_changed_after_validation_is_not_reused(
    storage: Storage, bucket: str, trained: Trained, change: str
) -> None:
    job_dir = JobDir(trained()["job_dir"])
    weights = job_dir.model + "weights.json"
    match change:
        case "changed":
            storage.write(weights, b"fresh")
        case "vanished":
            storage.delete(weights)
        case "one more":
            storage.write(job_dir.model + "more.json", b"{}")
        case "claim gone":
            storage.delete(job_dir.claim)
        case "report gone":
            storage.delete(job_dir.report)
        case "entry damaged":
            entry = next(stat.uri for stat in storage.ls(f"{bucket}/m/validated/"))
            storage.write(entry, b'{"format": 1}')
    assert Run(bucket, "again").submit()["decision"] == "fresh_submit"


def test_an_entry_with_wrong_inputs_is_ignored(storage: Storage, bucket: str, trained: Trained) -> None:
    trained()
    trained("other", version="v2")
    entries = [stat.uri for stat in storage.ls(f"{bucket}/m/validated/")]
    one, other = (json.loads(storage.read(uri)) for uri in entries)
    storage.write(entries[0], json.dumps({**other, "inputs": one["inputs"]}).encode())
    storage.write(entries[1], json.dumps({**one, "inputs": other["inputs"]}).encode())
    assert Run(bucket, "again").submit()["decision"] == "fresh_submit"
    assert Run(bucket, "again2", version="v2").submit()["decision"] == "fresh_submit"


def test_a_retry_keeps_its_job_even_if_another_was_accepted_meanwhile(bucket: str, trained: Trained) -> None:
    mine = Run(bucket, "mine")
    before = mine.submit()
    trained("other", force_retrain=True)
    assert (before["decision"], mine.submit()["decision"]) == ("fresh_submit", "reattached")


def test_clearing_the_task_that_trained_it_trains_again(bucket: str, trained: Trained, backend: MemoryBackend) -> None:
    first = trained()
    cleared = Run(bucket, "first", max_tries=3).submit()
    assert cleared["decision"] == "fresh_submit"
    assert cleared["job_dir"] != first["job_dir"]
    assert len(backend.jobs) == 2


def test_a_cleared_task_that_reuses_another_job_cancels_its_own(
    bucket: str, trained: Trained, backend: MemoryBackend
) -> None:
    mine = Run(bucket, "mine").submit()
    trained("other", force_retrain=True)
    assert [job.handle.name for job in backend.live] == [mine["name"]]
    assert Run(bucket, "mine", max_tries=3).submit()["decision"] == "reused"
    assert backend.live == []


def test_a_lookup_without_a_result_takes_one_read(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(Storage, "ls", lambda *_: pytest.fail("the bucket was listed"))
    read = Storage.read_with_generation

    def counted(self: Storage, uri: str) -> tuple[bytes, int]:
        calls.append(uri)
        return read(self, uri)

    monkeypatch.setattr(Storage, "read_with_generation", counted)
    assert cache.find(storage, bucket, "m", "0" * 40) is None
    assert calls == [validated(bucket, "m", "0" * 40)]


def test_an_older_version_that_is_reused_does_not_replace_the_newer_champion(
    storage: Storage, bucket: str, trained: Trained
) -> None:
    for version in ("v1", "v2"):
        run = Run(bucket, f"first {version}", version=version)
        run.publish(trained(run.run_id, version=version))
    again = Run(bucket, "again", version="v1")
    validation = again.validate(again.wait(again.submit()))
    with pytest.raises(AirflowSkipException, match="older_dataset"):
        again.publish(validation)
    champion = current(storage, bucket, "m")
    assert champion is not None
    assert champion.version == "v2"


def test_the_record_names_its_run(storage: Storage, bucket: str, trained: Trained) -> None:
    run = Run(bucket, "r")
    june = datetime(2026, 6, 1, tzinfo=UTC)
    run.dag_run = SimpleNamespace(partition_key="2026-06-01", partition_date=june, run_after=datetime.now(UTC))
    record = JobRecord.from_bytes(storage.read(JobDir(run.submit()["job_dir"]).claim))
    assert RunOrder.from_json(record.inputs["run"]) == RunOrder("2026-06-01", june)


def test_the_record_lists_the_inputs(storage: Storage, bucket: str, trained: Trained) -> None:
    job_dir = JobDir(trained()["job_dir"])
    record = JobRecord.from_bytes(storage.read(job_dir.claim))
    assert record.inputs["package"]["digest"] == "p1"
    assert record.inputs["dataset"]["digest"] == "content of v1"
    assert set(record.inputs["software"]) == {"airflow", "mlengine", "python"}
    assert record.spec["args"][0] == "--dataset"
    assert record.backend == "memory"
    assert "environment" not in record.inputs, "no environment was recorded"


def test_the_wait_records_the_installed_packages(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    run = Run(bucket, "r")
    job = run.submit()
    job_dir = JobDir(job["job_dir"])
    storage.write(job_dir.environment, b"tensorflow-cpu==2.21.0\n")
    backend.end(job["name"], JobState.SUCCEEDED)
    run.wait(job)
    noted = JobRecord.from_bytes(storage.read(job_dir.claim)).inputs["environment"]
    assert noted["uri"] == job_dir.environment
    assert len(noted["sha256"]) == 64


def test_wait_and_validation_write_the_job_index(
    storage: Storage, bucket: str, trained: Trained, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verdicts() -> dict[str, tuple[str, str]]:
        found = [shards.load(storage, bucket, number).rows for number in range(shards.SHARDS)]
        return {job_id: (row.state, row.verdict) for rows in found for (_, job_id), row in rows.items()}

    elsewhere = trained("elsewhere", args=["1"])
    assert verdicts() == {}, f"no bucket is configured, so no list shows {elsewhere['job_id']}"
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", bucket)
    accepted, unvalidated = trained("accepted", args=["2"]), Run(bucket, "unvalidated", args=["3"]).submit()
    backend.end(unvalidated["name"], JobState.SUCCEEDED)
    Run(bucket, "unvalidated").wait(unvalidated)
    failing = Run(bucket, "failing", args=["4"])
    failed = failing.submit()
    backend.end(failed["name"], JobState.FAILED)
    with pytest.raises(AirflowFailException):
        failing.wait(failed)
    assert verdicts() == {
        accepted["job_id"]: ("SUCCEEDED", "first"),
        unvalidated["job_id"]: ("SUCCEEDED", ""),
        failed["job_id"]: ("FAILED", ""),
    }

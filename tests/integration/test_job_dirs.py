"""Tests that no user's object in a job dir is deleted, whatever its name, and that a bucket is not a valid job dir."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine import backends, connections
from mlengine.cli import main
from mlengine.cli.exit_codes import ExitCode
from mlengine.core.errors import StorageError
from mlengine.core.job import JobKey, JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.job_dir import discard, prepare, prepare_clean
from mlengine.jobs.submission import Intent, Submitter
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration

JOB_FILE = {"trainingInput": {"pythonModule": "trainer.task"}}


@pytest.fixture(autouse=True)
def backend(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBackend]:
    memory = MemoryBackend()
    backends.register("memory", lambda **_: memory)
    monkeypatch.delenv("MLENGINE_BUCKET", raising=False)
    connections.forget_connections()
    assert storage
    yield memory
    connections.forget_connections()


@pytest.fixture
def files(storage: Storage, bucket: str) -> Callable[[str], dict[str, bytes]]:
    """Puts files that a user may keep there into a folder, some with names that trainers use, and returns them."""

    def put(folder: str) -> dict[str, bytes]:
        names = ("train/ckpt-9.index", "train/.keep", "model/saved_model.pb", "raw/part-0.csv", "README.md")
        made = {f"{folder}/{name}": name.encode() for name in names}
        for uri, data in made.items():
            storage.write(uri, data)
        return made

    return put


Files = Callable[[str], dict[str, bytes]]


def untouched(storage: Storage, files: dict[str, bytes]) -> bool:
    return {uri: storage.read(uri) for uri in files if storage.exists(uri)} == files


def train(folder: Path, bucket: str, *words: str, job_file: str = "") -> int:
    """Run ``mlengine jobs train`` with a job file to which ``job_file`` adds lines."""
    config = folder / "job.yaml"
    uri = local.put(Storage(), bucket, local.sdist(""))
    config.write_text(f"trainingInput:\n  pythonModule: tiny.task\n  packageUris: [{uri}]\n" + job_file)
    return main(["jobs", "train", "census_1", "--backend", "memory", "--config", str(config), *words])


def context(task_id: str, **more: Any) -> Any:
    fields = {"dag_id": "dag", "run_id": "r", "task_id": task_id, "map_index": -1, "try_number": 1, "max_tries": 2}
    return {"ti": SimpleNamespace(**{**fields, **more})}


def submit(job: Any, **ti: Any) -> dict[str, Any]:
    operator = SubmitTrainingJobOperator(
        task_id="submit", job=job, job_file=JOB_FILE, backend="memory", gcp_conn_id=None, force_retrain=""
    )
    return dict(operator.execute(context("submit", **ti)))


def prepare_task(bucket: str) -> dict[str, Any]:
    operator = PrepareJobDirOperator(task_id="prepare", model="m", job_id_hint="v1", bucket=bucket, gcp_conn_id=None)
    return dict(operator.execute(context("prepare")))


def test_jobs_train_keeps_existing_files_in_its_job_dir(
    storage: Storage, bucket: str, backend: MemoryBackend, files: Files, tmp_path: Path
) -> None:
    there = files(f"{bucket}/proj")
    assert train(tmp_path, bucket, "--job-dir", f"{bucket}/proj") == 0
    assert untouched(storage, there)
    assert [job.submission.job_dir for job in backend.jobs] == [f"{bucket}/proj"]
    record = JobRecord.from_bytes(storage.read(f"{bucket}/proj/job.json"))
    assert not record.found_empty, "prune must know that not all of it is the job's"


def test_a_job_dir_in_a_job_file_keeps_its_existing_files(
    storage: Storage, bucket: str, backend: MemoryBackend, files: Files, tmp_path: Path
) -> None:
    there = files(f"{bucket}/proj")
    assert train(tmp_path, bucket, job_file=f"  jobDir: {bucket}/proj\n") == 0
    assert untouched(storage, there)
    assert [job.submission.job_dir for job in backend.jobs] == [f"{bucket}/proj"]


def test_a_rerun_keeps_existing_files_in_its_job_dir(
    storage: Storage, bucket: str, backend: MemoryBackend, files: Files
) -> None:
    intent = Intent(JobKey("dag", "r", "submit"), "m", JobDir.of(bucket, "m", "old"), TrainingSpec("trainer.task"))
    submitted = Submitter(storage, backend).submit(intent)
    backend.end(submitted.handle.name, JobState.SUCCEEDED)
    there = files(f"{bucket}/m/new")
    assert main(["jobs", "rerun", f"{bucket}/m/old", "--as", "new"]) == 0
    assert untouched(storage, there)
    assert backend.jobs[1].submission.job_dir == f"{bucket}/m/new"


def test_a_task_with_a_given_dir_keeps_its_existing_files(
    storage: Storage, bucket: str, backend: MemoryBackend, files: Files
) -> None:
    there = files(f"{bucket}/proj")
    job = submit({"model": "m", "job_id": "proj", "job_dir": f"{bucket}/proj"})
    assert untouched(storage, there)
    assert job["job_dir"] == f"{bucket}/proj"


def test_prepare_skips_a_dir_that_already_has_files(
    storage: Storage, bucket: str, backend: MemoryBackend, files: Files
) -> None:
    name = JobDir(prepare_task(bucket)["job_dir"])
    for stat in storage.ls(name.uri + "/"):
        storage.delete(stat.uri)
    there = files(name.uri)
    job = prepare_task(bucket)
    assert job["job_dir"] == f"{name.uri}_2"
    assert prepare_task(bucket) == job, "a retry must get the same dir"
    submitted = submit(job)
    assert submitted["job_dir"] == job["job_dir"]
    assert untouched(storage, there)
    assert JobRecord.from_bytes(storage.read(f"{name.uri}_2/job.json")).found_empty


def test_submit_skips_a_prepared_dir_that_now_has_files(
    storage: Storage, bucket: str, backend: MemoryBackend, files: Files
) -> None:
    """For example, a trainer that still runs after its dir was pruned may write checkpoints of another job there."""
    job = prepare_task(bucket)
    storage.write(f"{job['job_dir']}/train/ckpt-9.index", b"not of this job")
    submitted = submit(job)
    assert submitted["job_dir"] == f"{job['job_dir']}_2"
    assert storage.exists(f"{job['job_dir']}/train/ckpt-9.index")
    assert submit(job, try_number=2) == {**submitted, "decision": "reattached"}


def test_a_cleared_task_skips_a_dir_that_has_files(
    storage: Storage, bucket: str, backend: MemoryBackend, files: Files
) -> None:
    job = prepare_task(bucket)
    first = submit(job)
    there = files(f"{job['job_dir']}_2")
    cleared = submit(job, try_number=2, max_tries=3)
    assert untouched(storage, there)
    assert cleared["job_dir"] == f"{job['job_dir']}_3"
    assert submit(job, try_number=3, max_tries=3) == {**cleared, "decision": "reattached"}
    assert [one.handle.name for one in backend.live] == [cleared["name"]]
    assert first["job_dir"] == job["job_dir"]


def test_prepare_writes_only_placeholders(storage: Storage, bucket: str) -> None:
    job_dir = JobDir(f"{bucket}/m/j")
    assert prepare(storage, job_dir)
    assert not prepare(storage, job_dir), "prepare must be idempotent"
    assert [stat.uri for stat in storage.ls(job_dir.uri + "/")] == [
        f"{job_dir.uri}/{d}/.keep" for d in ("model", "train")
    ]


KEY = JobKey("dag", "r", "prepare").digest


def test_discard_deletes_the_placeholders_of_an_unused_dir(storage: Storage, bucket: str) -> None:
    job_dir, made = prepare_clean(storage, JobDir(f"{bucket}/m/m_v1_{KEY[:8]}"))
    assert made
    assert discard(storage, job_dir, KEY)
    assert storage.ls(f"{bucket}/m/") == []


@pytest.mark.parametrize(
    ("folder", "key", "more"),
    [
        ("proj", KEY, {}),  # a name chosen by a user
        (f"m_v1_{KEY[:8]}", "", {}),
        (f"m_v1_{KEY[:8]}", "f" * 40, {}),
        (f"m_v1_{KEY[:8]}", KEY, {"job.json": b"{}"}),
        (f"m_v1_{KEY[:8]}", KEY, {"notes.txt": b"mine"}),
        (f"m_v1_{KEY[:8]}", KEY, {"train/.keep": b"not empty"}),
    ],
)
def test_discard_keeps_the_placeholders_of_other_dirs(
    storage: Storage, bucket: str, folder: str, key: str, more: dict[str, bytes]
) -> None:
    job_dir = JobDir(f"{bucket}/m/{folder}")
    prepare(storage, job_dir)
    for name, data in more.items():
        storage.write(f"{job_dir.uri}/{name}", data)
    before = storage.ls(job_dir.uri + "/")
    assert not discard(storage, job_dir, key)
    assert storage.ls(job_dir.uri + "/") == before


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_bucket_without_a_path_is_refused_as_job_dir(
    storage: Storage,
    bucket: str,
    backend: MemoryBackend,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    slash: str,
) -> None:
    storage.write(f"{bucket}/mine.txt", b"x")
    whole = f"{bucket}{slash}"
    assert train(tmp_path, bucket, job_file=f"  jobDir: {whole}\n") == ExitCode.USAGE
    assert "is a bucket without a path" in capsys.readouterr().err
    machine = "machineSpec: {machineType: n1-standard-4}, replicaCount: 1, containerSpec: {imageUri: example/t}"
    pools = f"workerPoolSpecs: [{{{machine}}}]"
    (tmp_path / "vertex.yaml").write_text(f"{pools}\nbaseOutputDirectory: {{outputUriPrefix: {whole}}}\n")
    assert main(["jobs", "train", "census_1", "--backend", "memory", "--config", str(tmp_path / "vertex.yaml")]) == 2
    assert "is a bucket without a path" in capsys.readouterr().err
    assert train(tmp_path, bucket, "--job-dir", whole) == ExitCode.USAGE
    assert "is a bucket without a path" in capsys.readouterr().err
    assert main(["jobs", "rerun", whole, "--as", "new"]) == 1
    assert "is a bucket without a path" in capsys.readouterr().err
    with pytest.raises(StorageError, match="is a bucket without a path"):
        submit({"model": "m", "job_id": "j", "job_dir": whole})
    assert backend.jobs == []
    packages = f"{bucket}/packages/"  # the job file refers to these
    found = [stat.uri for stat in storage.ls(f"{bucket}/") if not stat.uri.startswith(packages)]
    assert found == [f"{bucket}/mine.txt"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "x/", "1st"])
def test_an_invalid_rerun_name_is_refused(bucket: str, backend: MemoryBackend, storage: Storage, name: str) -> None:
    intent = Intent(JobKey("dag", "r", "submit"), "m", JobDir.of(bucket, "m", "old"), TrainingSpec("trainer.task"))
    Submitter(storage, backend).submit(intent)
    assert main(["jobs", "rerun", f"{bucket}/m/old", "--as", name]) == ExitCode.USAGE
    assert len(backend.jobs) == 1


def test_a_foreign_job_json_is_left_alone(
    storage: Storage, bucket: str, backend: MemoryBackend, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    storage.write(f"{bucket}/proj/job.json", b'{"mine": true}')
    assert train(tmp_path, bucket, "--job-dir", f"{bucket}/proj") == 1
    output = capsys.readouterr().err
    assert "not the record of a job" in output
    assert "remove" not in output, "no hint says to delete what may be the user's"
    assert storage.read(f"{bucket}/proj/job.json") == b'{"mine": true}'

"""Tests ``mlengine jobs rerun``: training again from a job's record, and what it refuses before submitting anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts import mnist

from mlengine import backends
from mlengine.cli import main
from mlengine.core.inputs import inputs_digest
from mlengine.core.job import JobKey, JobRecord, JobState
from mlengine.core.layout import JobDir, dataset_dir, join
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.jobs.submission import Intent, Submitter
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from tests.support.buckets import delete_below

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def backend() -> MemoryBackend:
    memory = MemoryBackend()
    backends.register("memory", lambda **_: memory)
    return memory


@pytest.fixture
def job(storage: Storage, bucket: str, digits: Path, backend: MemoryBackend) -> JobDir:
    """A job that was trained on a version of a dataset."""
    manifest = mnist.register(storage, bucket, digits, "v1", train=300, heldout=1000, name="digits")
    package = f"{bucket}/packages/t/d/t.tar.gz"
    storage.write(package, b"sdist")
    uri = dataset_dir(bucket, "digits", "v1")
    spec = TrainingSpec(
        module="trainer.task",
        package_uris=(package,),
        args=("--dataset", uri, "--max_steps", "5"),
        pools=(Pool(Role.CHIEF, 1), Pool(Role.WORKER, 2)),
        env={"A": "b"},
    )
    inputs: dict[str, Any] = {
        "package": {"digest": "d", "package_uris": [package]},
        "dataset": {"uri": uri, "digest": manifest.digest, "version": "v1"},
        "software": {"mlengine": "0.0.1"},
    }
    inputs["digest"] = inputs_digest(spec, inputs["package"], inputs["dataset"])
    intent = Intent(JobKey("dag", "run", "submit"), "m", JobDir.of(bucket, "m", "old"), spec, inputs)
    submitted = Submitter(storage, backend).submit(intent)
    backend.end(submitted.handle.name, JobState.SUCCEEDED)
    return JobDir(submitted.handle.job_dir)


def again(job: JobDir, *words: str) -> int:
    return main(["jobs", "rerun", job.uri, "--as", "new", *words])


def test_a_rerun_trains_with_the_same_inputs_in_a_new_dir(
    storage: Storage, job: JobDir, backend: MemoryBackend
) -> None:
    before = storage.read(job.claim)
    assert again(job) == 0
    old, new = (
        JobRecord.from_bytes(storage.read(join(job.uri.rsplit("/", 1)[0], n, "job.json"))) for n in ("old", "new")
    )
    assert [one.submission.job_id for one in backend.jobs] == ["old", "new"]
    assert backend.jobs[1].submission.spec == backend.jobs[0].submission.spec
    assert new.inputs["digest"] == old.inputs["digest"]
    assert new.inputs["rerun_of"] == job.uri
    assert new.inputs["software"] != old.inputs["software"]
    assert storage.read(job.claim) == before


def test_repeating_a_rerun_command_submits_one_job(job: JobDir, backend: MemoryBackend) -> None:
    assert again(job) == again(job) == 0
    assert len(backend.jobs) == 2


def test_a_job_can_be_rerun_by_model_and_id(job: JobDir, bucket: str, backend: MemoryBackend) -> None:
    assert main(["jobs", "rerun", "m/old", "--bucket", bucket]) == 0
    assert backend.jobs[1].submission.job_id.startswith("old_again_")


def _changed_data(storage: Storage, job: JobDir) -> None:
    uri = join(dataset_dir(job.uri.rsplit("/", 2)[0], "digits", "v1"), "manifest.json")
    storage.write(uri, storage.read(uri).replace(b'"rows": 300', b'"rows": 299').replace(b'"label_counts"', b'"x"'))


CHANGES: dict[str, tuple[Callable[[Storage, JobDir], Any], str]] = {
    "no record": (lambda storage, job: storage.delete(job.claim), "no job in"),
    "the package is missing": (
        lambda storage, job: delete_below(storage, job.uri.rsplit("/", 2)[0] + "/packages"),
        "no longer exists",
    ),
    "the dataset is missing": (
        lambda storage, job: delete_below(storage, job.uri.rsplit("/", 2)[0] + "/datasets"),
        "no longer exists",
    ),
    "the dataset has changed": (_changed_data, "restore the files of that version"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_rerun_that_cannot_have_the_same_inputs_is_refused(
    storage: Storage, job: JobDir, backend: MemoryBackend, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    do, words = CHANGES[change]
    do(storage, job)
    assert again(job) == 1
    assert words in capsys.readouterr().err
    assert len(backend.jobs) == 1


def test_a_rerun_does_not_take_the_dir_of_another_job(job: JobDir, backend: MemoryBackend) -> None:
    assert main(["jobs", "rerun", job.uri, "--as", "old"]) == 1
    assert len(backend.jobs) == 1

"""Tests whether a job has left any output in a real bucket."""

from __future__ import annotations

import logging

import pytest

from mlengine.backends.outputs import OutputCheck, warning, wrote_nothing
from mlengine.core.job import JobHandle
from mlengine.core.spec import TrainingSpec
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", ["model/saved_model.pb", "train/progress.json", "checkpoints/a/b", "model/.keeper"])
def test_only_objects_of_the_trainer_count_as_outputs(storage: Storage, bucket: str, name: str) -> None:
    job_dir = f"{bucket}/m/j"
    # Not written by the trainer: placeholders, mlengine's own records, another job whose name has the same beginning.
    for other in ("model/.keep", "train/.keep", "train/", "job.json", "logs/x.log", "../j_2/model/weights"):
        storage.write(f"{bucket}/m/j_2/model/weights" if other.startswith("..") else f"{job_dir}/{other}", b"")
    assert wrote_nothing(storage, job_dir)
    storage.write(f"{job_dir}/{name}", b"")
    assert not wrote_nothing(storage, job_dir)


def test_outputs_are_checked_once_and_an_unreadable_bucket_gives_no_warning(
    storage: Storage, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    check = OutputCheck(lambda: storage)
    handle = JobHandle("vertex", "projects/p/locations/r/customJobs/1", "j", 1, f"{bucket}/m/j")
    assert check.message(handle) == "", "there is no message before the check"
    with caplog.at_level(logging.WARNING):
        check.run([handle], 60.0)
        assert check.message(handle) == warning(None)
        storage.write(f"{bucket}/m/j/model/late", b"")
        check.run([handle], 60.0)
        assert check.message(handle) == warning(None)
    assert len(caplog.records) == 1, "the warning must be logged once"
    gone = JobHandle("vertex", "projects/p/locations/r/customJobs/2", "j", 1, "gs://no-such-bucket-here/m/j")
    foreign = JobHandle("vertex", "projects/p/locations/r/customJobs/3", "j", 1, "")
    check.run([gone, foreign], 60.0)
    assert (check.message(gone), check.message(foreign)) == ("", "")


def test_the_message_has_the_chiefs_name_in_tf_config() -> None:
    assert warning(TrainingSpec("t")) == "the chief ended with exit code 0, but wrote nothing below model/ or train/"
    master = TrainingSpec("t", primary_name="master", single_replica_tf_config=True)
    assert warning(master, 2.04) == (
        "the chief ended with exit code 0 after 2.0 s, but wrote nothing below model/ or train/; TF_CONFIG calls it "
        '"master": if the trainer expects the other name, set useChiefInTfConfig'
    )

"""A step that fails because of the machine is reported to the launcher, which retries it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mlengine.backends import Submission
from mlengine.backends.local import stage
from mlengine.backends.local.record import Job, Stored
from mlengine.backends.local.settings import Settings
from mlengine.core.spec import TrainingSpec
from mlengine.runtime import json_files


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free disk space"), (errno.EDQUOT, "free disk space"), (errno.EIO, "launcher.log")],
)
def test_an_os_error_is_returned_as_a_result(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    advice: str,
) -> None:
    job = Job(tmp_path)
    stored = Stored(Submission("key", "job", 1, "gs://bkt/m/job", TrainingSpec("trainer.task")), Settings.load(), 0.0)
    assert json_files.create_json(job.submission_file, stored.to_json())

    def fail(*_: object) -> dict[str, object]:
        raise OSError(number, os.strerror(number), str(tmp_path / "x"))

    monkeypatch.setitem(stage._STEPS, "prepare", fail)
    assert stage.main(["prepare", str(tmp_path)]) == 1
    result = json_files.read_json(job.step_file)
    assert result is not None
    assert (result["error"], result["retryable"]) == ("OSError", True)
    assert f"the step prepare failed on this machine: [Errno {number}] {os.strerror(number)}" in result["message"]
    assert advice in result["message"].partition("What to do: ")[2]
    assert "the step prepare failed" in capsys.readouterr().err


class Bucket:
    """A bucket that keeps the sizes of the objects by the last part of their URI."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    def write(self, uri: str, data: bytes, _type: str) -> None:
        self.sizes[uri.rpartition("/")[2]] = len(data)


@pytest.mark.parametrize(("size", "complete"), [(4 << 20, True), ((4 << 20) + 1, False)])
def test_logs_count_as_uploaded_only_if_all_were_uploaded_completely(tmp_path: Path, size: int, complete: bool) -> None:
    job, bucket = Job(tmp_path), Bucket()
    stored = Stored(Submission("key", "job", 1, "gs://bkt/m/job", TrainingSpec("trainer.task")), Settings.load(), 0.0)
    job.logs.mkdir()
    job.launcher_log.write_text("started\n")
    job.log("chief-0").write_bytes(b"x" * size)
    job.log("worker-0").write_text("one\n")
    stage.upload(job, stored, bucket)  # type: ignore[arg-type]
    assert set(bucket.sizes) == {"launcher.log", "chief-0.log", "worker-0.log"}
    assert job.uploaded_file.exists() == complete

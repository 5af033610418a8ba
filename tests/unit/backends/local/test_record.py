"""The files of a local job on disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mlengine.backends import Submission
from mlengine.backends.local import record
from mlengine.backends.local.record import Job, Stored
from mlengine.backends.local.settings import Settings
from mlengine.backends.local.statefile import StateFile
from mlengine.core.errors import BackendError
from mlengine.core.job import JobState
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.runtime import json_files


def test_a_submission_is_read_back_unchanged(tmp_path: Path) -> None:
    spec = TrainingSpec("t", ("gs://bkt/p",), ("--a", "ü"), (Pool(Role.CHIEF, 1), Pool(Role.PS, 2)), env={"A": "b"})
    submission = Submission("key", "job", 2, "gs://bkt/m/job", spec, {"team": "x"}, project="p", region="r")
    stored = Stored(submission, Settings.load(max_concurrent_jobs=3), 12.5)
    job = Job(tmp_path)
    assert job.submission() is None
    assert json_files.create_json(job.submission_file, stored.to_json())
    assert job.submission() == stored
    assert stored.handle.name == "key-2"


def test_concurrent_creates_have_one_winner(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda n: json_files.create_json(tmp_path / "x.json", {"n": n}), range(8)))
    assert sum(wins) == 1
    assert json_files.read_json(tmp_path / "x.json") == {"n": wins.index(True)}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_failed_write_keeps_the_previous_content(tmp_path: Path) -> None:
    json_files.write_json(tmp_path / "x.json", {"n": 1})
    theirs = tmp_path / ".x.json.swp"  # the swap file of an editor
    theirs.touch()
    with pytest.raises(TypeError):
        json_files.write_json(tmp_path / "x.json", {"n": object()})
    assert json_files.read_json(tmp_path / "x.json") == {"n": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.json.swp", "x.json"]


def test_reserved_disk_space_is_released_at_the_end(tmp_path: Path) -> None:
    state = StateFile(Job(tmp_path))
    assert state.write(JobState.RUNNING, "it runs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reserve", "state.json"]
    assert state.write(JobState.SUCCEEDED, "done")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(BackendError, match=r"x\.json is not readable"):
        json_files.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(BackendError, match="not a JSON object"):
        json_files.read_json(tmp_path / "x.json")
    (tmp_path / "submission.json").write_text('{"key": 1}')
    with pytest.raises(BackendError, match=r"submission\.json cannot be read"):
        Job(tmp_path).submission()


@given(some.text(max_size=80), some.text(max_size=80))
def test_job_names_are_safe_and_unique_for_each_key(one: str, other: str) -> None:
    name = record.job_name(one, 1)
    assert "/" not in name
    assert name.isascii()
    assert len(name) <= 70
    assert (name == record.job_name(other, 1)) == (one == other)

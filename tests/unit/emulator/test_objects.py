"""Paths below /gcs in a command: local copies of objects, and paths that are not changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlengine.core.errors import StorageForbiddenError, StorageUnavailableError
from mlengine.emulator import objects
from mlengine.emulator.adapter import Task
from mlengine.emulator.objects import ObjectCopies
from mlengine.storage.client import ObjectStat


class Bucket:
    """A bucket in memory, with the two storage methods that are used."""

    def __init__(self, **found: bytes) -> None:
        self.objects = {f"gs://bkt/{name}": data for name, data in found.items()}
        self.downloads: list[str] = []
        self.error: Exception | None = None

    def stat(self, uri: str) -> ObjectStat | None:
        if self.error is not None:
            raise self.error
        return ObjectStat(uri, len(self.objects[uri]), 1) if uri in self.objects else None

    def download(self, uri: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.objects[uri])
        self.downloads.append(uri)


def copies(bucket: Any, folder: Path) -> ObjectCopies:
    return ObjectCopies(bucket, folder)


def test_the_path_of_an_object_becomes_the_path_of_its_copy(tmp_path: Path) -> None:
    bucket = Bucket(a=b"1")
    made = copies(bucket, tmp_path)
    task = Task(["sh", "-c", "cat /gcs/bkt/a && cat '/gcs/bkt/a'"], [{"name": "A", "value": "--in=/gcs/bkt/a"}])
    copy = tmp_path / "bkt" / "a"
    changed = made.localized(task)
    assert changed == Task(["sh", "-c", f"cat {copy} && cat '{copy}'"], [{"name": "A", "value": f"--in={copy}"}])
    assert copy.read_bytes() == b"1"
    assert bucket.downloads == ["gs://bkt/a"]
    assert made.notes == ["/gcs/bkt/a is a copy of gs://bkt/a: buckets are not mounted here"]


def test_paths_in_a_list_are_replaced_one_by_one(tmp_path: Path) -> None:
    made = copies(Bucket(**{"at-10:20:30.gz": b"1", "b": b"2"}), tmp_path)
    command = made.localized(Task(["/gcs/bkt/at-10:20:30.gz:/gcs/bkt/b,/gcs/bkt/b"])).command
    assert command == [f"{tmp_path}/bkt/at-10:20:30.gz:{tmp_path}/bkt/b,{tmp_path}/bkt/b"]


@pytest.mark.parametrize("word", ["/data/gcs/bkt/a", "gs://bkt/a", "/gcs/", "/gcs/bkt", "file:///gcs/bkt/a"])
def test_other_arguments_are_not_changed(tmp_path: Path, word: str) -> None:
    made = copies(Bucket(a=b"1"), tmp_path)
    assert made.localized(Task([word])).command == [word]
    assert made.notes == []


@pytest.mark.parametrize("path", ["missing", "../bkt/a", "a/../../etc", "a//b", "folder/"])
def test_a_path_without_an_object_is_kept_and_logged(tmp_path: Path, path: str) -> None:
    made = copies(Bucket(a=b"1"), tmp_path)
    assert made.localized(Task([f"/gcs/bkt/{path}"])).command == [f"/gcs/bkt/{path}"]
    assert len(made.notes) == 1
    assert "stays as it is" in made.notes[0]


def test_large_objects_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_BYTES", 2)
    made = copies(Bucket(a=b"123"), tmp_path)
    assert made.localized(Task(["/gcs/bkt/a"])).command == ["/gcs/bkt/a"]
    assert "at most 2 are copied" in made.notes[0]


def test_no_copies_are_made_in_a_directory_that_a_shell_would_split(tmp_path: Path) -> None:
    made = copies(Bucket(a=b"1"), tmp_path / "two words")
    assert made.localized(Task(["/gcs/bkt/a"])).command == ["/gcs/bkt/a"]


def test_storage_errors_are_logged_or_raised(tmp_path: Path) -> None:
    bucket = Bucket(a=b"1")
    bucket.error = StorageForbiddenError("forbidden")
    made = copies(bucket, tmp_path)
    assert made.localized(Task(["/gcs/bkt/a"])).command == ["/gcs/bkt/a"]
    assert "forbidden" in made.notes[0]
    bucket.error = StorageUnavailableError("later")
    with pytest.raises(StorageUnavailableError):
        copies(bucket, tmp_path).localized(Task(["/gcs/bkt/a"]))

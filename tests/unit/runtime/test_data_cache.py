"""Data of the trainers is removed if no job has used it for long, as a whole, and only while no job trains."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mlengine.runtime.data_cache import data_cache, remove_unused, use

DAYS = 30


def age(path: Path, days: float, *, read_days: float | None = None) -> None:
    """Set the times of the last change and of the last read of a file or a directory."""
    now = time.time()
    read = days if read_days is None else read_days
    os.utime(path, (now - read * 86400, now - days * 86400))


def directory(parent: Path, name: str, *days: float) -> Path:
    """A directory with one file for each age, whose own age is 100 days."""
    folder = parent / name
    (folder / "part").mkdir(parents=True)
    for number, one in enumerate(days):
        (folder / "part" / str(number)).write_bytes(b"x" * (1 << 20))
        age(folder / "part" / str(number), one)
    for path in (folder / "part", folder):
        age(path, 100)
    return folder


def file(folder: Path, name: str, days: float, *, read_days: float | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(b"x" * (1 << 20))
    age(path, days, read_days=read_days)
    return path


def test_data_that_was_not_used_for_the_given_days_is_removed(tmp_path: Path) -> None:
    cache = data_cache(tmp_path)
    file(cache, "old-file", 31)
    directory(cache, "old-directory", 40, 31)
    kept = [
        file(cache, "read-yesterday", 90, read_days=1),
        directory(cache, "one-file-of-it-was-used", 40, 40, 29),
        directory(cache, "new", 0),
    ]
    messages: list[str] = []
    assert remove_unused(tmp_path, DAYS, messages.append) == ["old-directory", "old-file"]
    assert messages == [f"removed 2 items from {cache}, 3 MiB: not used for 30 days"]
    assert sorted(cache.iterdir()) == sorted(kept)
    assert len(list((cache / "one-file-of-it-was-used" / "part").iterdir())) == 3


def test_nothing_is_removed_while_a_job_trains(tmp_path: Path) -> None:
    old = file(data_cache(tmp_path), "old", 31)
    with use(tmp_path) or pytest.fail("the lock is taken"):
        age(tmp_path / "locks" / "data-cache.lock", 2)
        assert remove_unused(tmp_path, DAYS) == []
        assert old.exists()
    assert remove_unused(tmp_path, DAYS) == ["old"]


def test_all_data_is_kept_with_0_days(tmp_path: Path) -> None:
    old = file(data_cache(tmp_path), "old", 4000)
    assert remove_unused(tmp_path, 0) == []
    assert old.exists()


def test_links_are_kept_and_not_followed(tmp_path: Path) -> None:
    mine = directory(tmp_path, "mine", 100)
    cache = data_cache(tmp_path)
    cache.mkdir()
    (cache / "mine").symlink_to(mine)
    (directory(cache, "old", 100) / "mine").symlink_to(mine)
    age(cache / "old", 100)
    assert remove_unused(tmp_path, DAYS) == ["old"]
    assert (cache / "mine").is_symlink()
    assert (mine / "part" / "0").exists()


def test_a_removal_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    cache = data_cache(tmp_path)
    directory(cache, ".removed-0123abcd", 0)
    assert remove_unused(tmp_path, DAYS) == []
    assert list(cache.iterdir()) == []


def test_the_directory_is_searched_once_a_day(tmp_path: Path) -> None:
    cache = data_cache(tmp_path)
    file(cache, "old", 31)
    assert remove_unused(tmp_path, DAYS) == ["old"]
    file(cache, "old", 31)
    assert remove_unused(tmp_path, DAYS) == []
    for days in (1.1, -1.0):  # a day later; the clock was set back
        file(cache, "old", 31)
        age(tmp_path / "locks" / "data-cache.lock", days)
        assert remove_unused(tmp_path, DAYS) == ["old"]


def test_a_directory_that_cannot_be_read_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = file(data_cache(tmp_path), "old", 31)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert remove_unused(tmp_path, DAYS) == []
    assert old.exists()

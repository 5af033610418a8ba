"""Tests the storage client with a real Cloud Storage server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlengine.core.errors import BucketMissingError, ObjectMissingError, StorageConflictError, StorageError
from mlengine.storage.client import Storage
from tests.support.buckets import delete_below

pytestmark = pytest.mark.integration


def test_concurrent_creates_have_one_winner(storage: Storage, bucket: str) -> None:
    def claim(index: int) -> bool:
        try:
            storage.create(f"{bucket}/m/job.json", str(index).encode())
        except StorageConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_replace_requires_the_generation_that_was_read(storage: Storage, bucket: str) -> None:
    uri = f"{bucket}/pointer.json"
    storage.create(uri, b"one")
    data, generation = storage.read_with_generation(uri)
    assert data == b"one"
    newer = storage.replace(uri, b"two", generation)
    assert newer != generation
    with pytest.raises(StorageConflictError):
        storage.replace(uri, b"three", generation)
    assert storage.read_with_generation(uri) == (b"two", newer)


BIG = 9 << 20  # above 8 MiB the client library would open an upload session


def test_a_large_object_is_created_once(storage: Storage, bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/packages/big.tar.gz"
    generation = storage.create(uri, b"1" * BIG)
    with pytest.raises(StorageConflictError):
        storage.create(uri, b"2" * BIG)
    assert storage.read_with_generation(uri) == (b"1" * BIG, generation)


def test_replacing_a_large_object_requires_the_generation_that_was_read(storage: Storage, bucket: str) -> None:
    uri = f"{bucket}/big"
    first = storage.create(uri, b"1" * BIG)
    second = storage.replace(uri, b"2" * BIG, first)
    with pytest.raises(StorageConflictError):
        storage.replace(uri, b"3" * BIG, first)
    assert storage.read_with_generation(uri) == (b"2" * BIG, second)


def test_a_large_file_is_uploaded_once(
    storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers both saw no object: the second must not overwrite the first one's."""
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() * (BIG // 3))
    storage.upload_once(tmp_path / "one", f"{bucket}/big")
    checks: list[str] = []
    holds = Storage._holds

    def first_check_was_too_early(self: Storage, uri: str, source: Path) -> bool:
        checks.append(uri)
        return len(checks) > 1 and holds(self, uri, source)

    monkeypatch.setattr(Storage, "_holds", first_check_was_too_early)
    with pytest.raises(StorageConflictError):
        storage.upload_once(tmp_path / "two", f"{bucket}/big")
    assert storage.read(f"{bucket}/big") == b"one" * (BIG // 3)


def test_errors_name_missing_objects_and_buckets(storage: Storage, bucket: str) -> None:
    with pytest.raises(ObjectMissingError, match="no object gs://"):
        storage.read(f"{bucket}/nothing")
    with pytest.raises(BucketMissingError, match="create the bucket"):
        storage.ls("gs://there-is-no-such-bucket/x")
    assert storage.stat(f"{bucket}/nothing") is None
    storage.delete(f"{bucket}/nothing")


def test_deleting_an_object_leaves_its_neighbours(storage: Storage, bucket: str) -> None:
    for name in ("a", "a/b", "ab"):
        storage.write(f"{bucket}/{name}", b"x")
    storage.delete(f"{bucket}/a")
    storage.delete(f"{bucket}/a")  # repeating a deletion is safe
    assert [stat.uri for stat in storage.ls(f"{bucket}/")] == [f"{bucket}/a/b", f"{bucket}/ab"]
    with pytest.raises(StorageError, match="is a bucket, not an object"):
        storage.delete(bucket)


def test_files_are_uploaded_and_downloaded_and_a_tree_is_deleted(storage: Storage, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "a b ü.data").write_bytes(b"x" * 3_000_000)
    for path in (source / "saved_model.pb", source / "variables" / "a b ü.data"):
        storage.upload(path, f"{bucket}/job/model/{path.relative_to(source)}")
    assert storage.list_dirs(f"{bucket}/job/model") == ["variables"]
    storage.download(f"{bucket}/job/model/variables/a b ü.data", tmp_path / "copy" / "data")
    assert (tmp_path / "copy" / "data").read_bytes() == b"x" * 3_000_000
    assert delete_below(storage, f"{bucket}/job") == 2
    assert storage.ls(f"{bucket}/job") == []

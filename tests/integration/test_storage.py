"""The storage door against a real Cloud Storage server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlengine.core.errors import BucketMissingError, ObjectMissingError, StorageConflictError
from mlengine.storage import Storage

pytestmark = pytest.mark.integration


def test_create_has_one_winner(storage: Storage, bucket: str) -> None:
    def claim(index: int) -> bool:
        try:
            storage.create(f"{bucket}/m/job.json", str(index).encode())
        except StorageConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_replace_swaps_only_what_was_read(storage: Storage, bucket: str) -> None:
    uri = f"{bucket}/pointer.json"
    storage.create(uri, b"one")
    data, generation = storage.read_with_generation(uri)
    assert data == b"one"
    newer = storage.replace(uri, b"two", generation)
    assert newer != generation
    with pytest.raises(StorageConflictError):
        storage.replace(uri, b"three", generation)
    assert storage.read_with_generation(uri) == (b"two", newer)


def test_missing_things_are_named(storage: Storage, bucket: str) -> None:
    with pytest.raises(ObjectMissingError, match="no object gs://"):
        storage.read(f"{bucket}/nothing")
    with pytest.raises(BucketMissingError, match="create the bucket"):
        storage.check_bucket("gs://there-is-no-such-bucket")
    with pytest.raises(BucketMissingError):
        storage.ls("gs://there-is-no-such-bucket/x")
    assert storage.stat(f"{bucket}/nothing") is None
    storage.delete(f"{bucket}/nothing")
    storage.check_bucket(bucket)


def test_trees_travel_whole(storage: Storage, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "a b ü.data").write_bytes(b"x" * 3_000_000)
    uris = storage.upload_tree(source, f"{bucket}/job/model", last="saved_model.pb")
    assert len(uris) == 2
    assert storage.list_dirs(f"{bucket}/job/model") == ["variables"]
    storage.download_tree(f"{bucket}/job/model/", tmp_path / "copy")
    assert (tmp_path / "copy" / "variables" / "a b ü.data").read_bytes() == b"x" * 3_000_000
    assert storage.delete_tree(f"{bucket}/job") == 2
    assert storage.ls(f"{bucket}/job") == []

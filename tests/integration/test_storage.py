"""The storage door against a real Cloud Storage server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlengine.core.errors import BucketMissingError, ObjectMissingError, StorageConflictError
from mlengine.storage.client import Storage

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
        storage.ls("gs://there-is-no-such-bucket/x")
    assert storage.stat(f"{bucket}/nothing") is None
    storage.delete(f"{bucket}/nothing")


def test_files_travel_whole_and_a_tree_goes_at_once(storage: Storage, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "a b ü.data").write_bytes(b"x" * 3_000_000)
    for path in (source / "saved_model.pb", source / "variables" / "a b ü.data"):
        storage.upload(path, f"{bucket}/job/model/{path.relative_to(source)}")
    assert storage.list_dirs(f"{bucket}/job/model") == ["variables"]
    storage.download(f"{bucket}/job/model/variables/a b ü.data", tmp_path / "copy" / "data")
    assert (tmp_path / "copy" / "data").read_bytes() == b"x" * 3_000_000
    assert storage.delete_tree(f"{bucket}/job") == 2
    assert storage.ls(f"{bucket}/job") == []

"""The checkpoint from which a training continues."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.errors import StorageError, StorageForbiddenError
from trainer.files.checkpoint import Checkpoints
from trainer.files.storage import LocalStore

STEPS = (10, 20)
INDEX, DATA = "ckpt.index", "ckpt.data-00000-of-00001"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with two checkpoints."""
    store = LocalStore(str(tmp_path), patience=0.0)
    checkpoints = Checkpoints(store)
    for step in STEPS:
        checkpoints.save(step, {"global_step": np.array(step), "w": np.full(3, step, np.float32)})
    return store


def _newest(store: LocalStore) -> str:
    return Checkpoints(store).list()[-1].name


def _loaded(store: LocalStore) -> int | None:
    found = Checkpoints(store).load_newest()
    return None if found is None else found[0]


def test_the_newest_checkpoint_is_loaded(store: LocalStore) -> None:
    assert _loaded(store) == 20


def test_a_checkpoint_that_differs_from_its_manifest_is_skipped(store: LocalStore) -> None:
    data = f"{_newest(store)}/{DATA}"
    store.write(data, b"x" + store.read(data)[1:])
    assert _loaded(store) == 10


def test_a_checkpoint_with_a_missing_file_is_skipped(store: LocalStore) -> None:
    store.delete(f"{_newest(store)}/{INDEX}")
    assert _loaded(store) == 10


def test_a_checkpoint_without_a_manifest_is_ignored(store: LocalStore) -> None:
    """A crash during a write leaves a checkpoint without a manifest."""
    store.delete(f"{_newest(store)}/MANIFEST.json")
    assert [checkpoint.step for checkpoint in Checkpoints(store).list()] == [10]


@pytest.mark.parametrize(("name", "content"), [(INDEX, b"x" * 500), (INDEX, b""), (DATA, b"x"), (DATA, b"x" * 20)])
def test_a_checkpoint_that_tensorflow_cannot_read_is_skipped(store: LocalStore, name: str, content: bytes) -> None:
    """The manifest matches the files, but TensorFlow cannot read them."""
    newest = _newest(store)
    manifest = json.loads(store.read(f"{newest}/MANIFEST.json"))
    manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    store.write(f"{newest}/{name}", content)
    store.write(f"{newest}/MANIFEST.json", json.dumps(manifest).encode())
    assert _loaded(store) == 10


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "null",
        '{"step": 20}',
        '{"step": 20, "files": []}',
        '{"step": 20, "files": {"ckpt.index": {}}}',
        '{"step": 20, "files": {"ckpt.index": null}}',
        '{"step": 20, "files": {"ckpt.index": {"size": "1", "sha256": null}}}',
        '{"step": 20, "files": {"../../ckpt.index": {"size": 1, "sha256": ""}}}',
    ],
)
def test_a_checkpoint_with_an_invalid_manifest_is_skipped(store: LocalStore, content: str) -> None:
    store.write(f"{_newest(store)}/MANIFEST.json", content.encode())
    assert _loaded(store) == 10


class _Failing(LocalStore):
    """A store in which reads of the newest checkpoint fail."""

    def __init__(self, root: str, file: str, error: StorageError) -> None:
        super().__init__(root, patience=0.0)
        self._file, self._error = file, error

    def read(self, name: str) -> bytes:
        if name.startswith("checkpoints/00000020") and name.endswith(self._file):
            raise self._error
        return super().read(name)


@pytest.mark.parametrize("error", [StorageError("503"), StorageForbiddenError("403")])
@pytest.mark.parametrize("file", ["MANIFEST.json", DATA])
def test_a_storage_error_does_not_skip_a_checkpoint(store: LocalStore, file: str, error: StorageError) -> None:
    """The checkpoint may be undamaged, and using an older one would lose steps."""
    with pytest.raises(type(error), match=str(error)):
        Checkpoints(_Failing(store.root, file, error)).load_newest()


def test_a_directory_that_cannot_be_listed_is_an_error(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    newest, scandir = _newest(store), os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith(newest):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(StorageForbiddenError, match="not allowed to list"):
        Checkpoints(store).load_newest()


def test_leftover_files_of_killed_writers_are_deleted(store: LocalStore) -> None:
    def names() -> set[str]:
        return {name.removeprefix("checkpoints/") for name in store.ls("checkpoints/")}

    complete = names()
    left = {f"00000015-0123abcd/{INDEX}", f"00000015-0123abcd/.{DATA}.0123abcd.part"}
    # Directories of this step and of a later one, and directories with other names.
    others = {f"00000025-0123abcd/{INDEX}", f"00000030-0123abcd/{INDEX}", f"00000015-mine/{INDEX}", "notes/15"}
    for name in left | others:
        store.write(f"checkpoints/{name}", b"x")
    Checkpoints(store).save(25, {"global_step": np.array(25)})
    assert names() & left == set()
    assert names() >= complete | others
    assert [checkpoint.step for checkpoint in Checkpoints(store).list()] == [10, 20, 25]

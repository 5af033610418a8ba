"""Finding and downloading an exported model, with a real Cloud Storage server."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mlengine.core.errors import ModelError
from mlengine.storage.client import Storage
from mlengine.validation.export import download, resolve

pytestmark = pytest.mark.integration
FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00002": b"one",
    "variables/variables.data-00001-of-00002": b"two",
}


def manifest(files: dict[str, bytes], **changes: Any) -> bytes:
    entries = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return json.dumps({"format": 1, "files": entries, "step": 1000, "created": "now", **changes}).encode()


class Folder:
    def __init__(self, storage: Storage, bucket: str) -> None:
        self.storage, self.uri = storage, f"{bucket}/mnist/job/model"

    def put(self, files: dict[str, bytes], below: str = "") -> None:
        for name, data in files.items():
            self.storage.write(f"{self.uri}/{below}{name}", data)


@pytest.fixture
def folder(storage: Storage, bucket: str) -> Folder:
    found = Folder(storage, bucket)
    found.put({".keep": b""})
    return found


def test_a_model_with_a_manifest_is_resolved(folder: Folder, tmp_path: Path) -> None:
    folder.put({**FILES, "MANIFEST.json": manifest(FILES)})
    export = resolve(folder.storage, folder.uri + "/")
    assert export.manifest
    assert (export.uri, export.step, export.size) == (folder.uri, 1000, 16)
    digest = download(folder.storage, export, tmp_path)
    assert len(digest) == 64
    assert {
        path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    } == FILES


def test_a_model_without_a_manifest_is_resolved(folder: Folder) -> None:
    folder.put(FILES)
    export = resolve(folder.storage, folder.uri)
    assert not export.manifest
    assert set(export.files) == set(FILES)


def test_the_newest_of_numbered_folders_is_used(folder: Folder) -> None:
    for number in ("9", "10", "1"):
        folder.put(FILES, f"export/{number}/")
    assert resolve(folder.storage, folder.uri).uri == f"{folder.uri}/export/10"


def test_a_model_in_a_subfolder_is_found(folder: Folder) -> None:
    folder.put({**FILES, "MANIFEST.json": manifest(FILES)}, "serving/")
    export = resolve(folder.storage, folder.uri)
    assert (export.uri, export.manifest) == (f"{folder.uri}/serving", True)


def test_files_of_an_unknown_kind_are_accepted_on_request(folder: Folder) -> None:
    folder.put({"weights.bin": b"1", "meta/classes.txt": b"2"})
    export = resolve(folder.storage, folder.uri, known=False)
    assert set(export.files) == {"weights.bin", "meta/classes.txt"}
    with pytest.raises(ModelError, match=r"no model of a known kind; found meta/classes.txt, weights.bin"):
        resolve(folder.storage, folder.uri)


def test_a_missing_model_is_an_error(folder: Folder) -> None:
    for known in (True, False):
        with pytest.raises(ModelError, match="there is no model in"):
            resolve(folder.storage, folder.uri, known=known)


def test_two_models_are_refused(folder: Folder) -> None:
    folder.put(FILES, "a/")
    folder.put(FILES, "b/")
    with pytest.raises(ModelError, match="has 2 models"):
        resolve(folder.storage, folder.uri)


@pytest.mark.parametrize("missing", sorted(FILES))
def test_a_missing_file_of_the_manifest_is_refused(folder: Folder, missing: str) -> None:
    folder.put({name: data for name, data in FILES.items() if name != missing})
    folder.put({"MANIFEST.json": manifest(FILES)})
    with pytest.raises(ModelError, match=f"{missing} is in the manifest but not in the bucket"):
        resolve(folder.storage, folder.uri)


def test_a_missing_shard_is_refused_without_a_manifest(folder: Folder) -> None:
    folder.put({name: data for name, data in FILES.items() if "00001" not in name})
    with pytest.raises(ModelError, match=r"variables\.data-00001-of-00002 is missing"):
        resolve(folder.storage, folder.uri)


def test_a_truncated_or_changed_file_is_refused(folder: Folder, tmp_path: Path) -> None:
    folder.put({**FILES, "MANIFEST.json": manifest(FILES), "saved_model.pb": b"grap"})
    with pytest.raises(ModelError, match=r"saved_model.pb has 4 bytes, the manifest says 5"):
        resolve(folder.storage, folder.uri)
    folder.put({"saved_model.pb": b"Graph"})
    export = resolve(folder.storage, folder.uri)
    with pytest.raises(ModelError, match=r"saved_model.pb does not have the checksum"):
        download(folder.storage, export, tmp_path)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a//b", "a/../../b", "a\\b", ""])
def test_a_manifest_with_a_path_outside_the_model_is_refused(folder: Folder, name: str) -> None:
    folder.put({**FILES, "MANIFEST.json": manifest({**FILES, name: b"x"})})
    with pytest.raises(ModelError, match="lists a file outside the model"):
        resolve(folder.storage, folder.uri)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not {"),
        (b'{"format": 2, "files": {}}', "is not {"),
        (b'{"format": 1, "files": {}}', "lists no file"),
        (b'{"format": 1, "files": {"a": {"size": "x"}}}', "no size and sha256 for 'a'"),
        (b'{"format": 1, "files": {"a": 1}}', "no size and sha256 for 'a'"),
    ],
)
def test_an_invalid_manifest_is_refused(folder: Folder, content: bytes, words: str) -> None:
    folder.put({**FILES, "MANIFEST.json": content})
    with pytest.raises(ModelError, match=words):
        resolve(folder.storage, folder.uri)


def test_the_fingerprint_changes_if_and_only_if_a_file_of_the_model_changes(folder: Folder) -> None:
    folder.put({**FILES, "MANIFEST.json": manifest(FILES)})
    before = resolve(folder.storage, folder.uri).fingerprint
    folder.put({"saved_model.pb": FILES["saved_model.pb"], "notes.txt": b"not part of the model"})
    assert resolve(folder.storage, folder.uri).fingerprint == before
    folder.put({"variables/variables.index": b"INDEX"})
    assert resolve(folder.storage, folder.uri).fingerprint != before

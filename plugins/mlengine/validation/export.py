"""Finds the files of an exported model in the bucket, checks that they are complete, and downloads them.

mlengine's trainers write ``MANIFEST.json`` last, with the size and SHA-256 of each file. While such a model has no
manifest, its export is not finished. Other trainers write no manifest; then a model of a known kind must exist. A
SavedModel may be in ``model/`` or in one folder below it. If several folders have numeric names, as exporters for
TensorFlow Serving write them, the highest number is used.

The content of the files is not checked here, but by :mod:`mlengine.validation.signature` and the scoring process.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlengine.core.errors import ModelError, ObjectMissingError
from mlengine.core.layout import join
from mlengine.storage.client import ObjectStat, Storage
from mlengine.validation.model_kind import GRAPH, find_kind, no_kind

MANIFEST = "MANIFEST.json"
_KEEP = ".keep"
_MAX_FILES = 10_000
_MAX_MANIFEST = 16 * 1024 * 1024


@dataclass(frozen=True)
class ExportFile:
    """One file of the model, with its size in bytes. ``sha256`` is ``None`` if there is no manifest."""

    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Export:
    """A complete model in the bucket.

    :param uri: the folder, without a trailing slash.
    :param files: the files by path relative to ``uri``, without the manifest.
    :param fingerprint: a digest of names, sizes and checksums in the bucket's listing. It changes if a file changes.
    :param manifest: whether there is a manifest.
    :param step: the training step in the manifest.
    """

    uri: str
    files: Mapping[str, ExportFile] = field(default_factory=dict)
    fingerprint: str = ""
    manifest: bool = False
    step: int | None = None

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())


def resolve(storage: Storage, model_dir: str, *, known: bool = True) -> Export:
    """Find the model below ``model_dir`` and check that it is complete.

    :param known: whether the model must be of a known kind (:mod:`mlengine.validation.model_kind`). If not, any
        non-empty set of files is a model.
    :raises ModelError: there is no model, or a file is missing or has the wrong size.
    """
    root = model_dir.rstrip("/")
    found = {stat.uri[len(root) + 1 :]: stat for stat in storage.ls(root + "/")}
    found = {name: stat for name, stat in found.items() if posixpath.basename(name) != _KEEP and not name.endswith("/")}
    if len(found) > _MAX_FILES:
        raise ModelError(f"{root} has {len(found)} files, more than {_MAX_FILES}", hint="export fewer, larger files")
    if MANIFEST in found:
        return _by_manifest(storage, root, found, known=known)
    folder = _folder(root, found, known=known)
    if folder:
        root = join(root, folder)
        found = {name[len(folder) + 1 :]: stat for name, stat in found.items() if name.startswith(folder + "/")}
        if MANIFEST in found:
            return _by_manifest(storage, root, found, known=known)
    _check_variables(root, found)
    return Export(root, {name: ExportFile(stat.size) for name, stat in found.items()}, _fingerprint(found))


def download(storage: Storage, export: Export, target: Path) -> str:
    """Download the model to ``target`` and return the SHA-256 over all its files.

    :raises ModelError: a file differs from the manifest, or changed after it was listed.
    """

    def fetch(item: tuple[str, ExportFile]) -> str:
        name, expected = item
        path = target / name
        try:
            storage.download(join(export.uri, name), path)
        except ObjectMissingError as error:
            raise ModelError(f"{join(export.uri, name)} was deleted during the download") from error
        digest = _sha256(path)
        if path.stat().st_size != expected.size:
            raise _broken(export.uri, name, f"has {path.stat().st_size} bytes, not {expected.size}")
        if expected.sha256 is not None and digest != expected.sha256:
            raise _broken(export.uri, name, "does not have the checksum in the manifest")
        return f"{name}:{digest}"

    with ThreadPoolExecutor(8) as pool:
        lines = sorted(pool.map(fetch, export.files.items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _by_manifest(storage: Storage, root: str, found: Mapping[str, ObjectStat], *, known: bool) -> Export:
    manifest = _read_manifest(storage, root, found[MANIFEST])
    files = _manifest_files(root, manifest)
    for name, file in files.items():
        if name not in found:
            raise _broken(root, name, "is in the manifest but not in the bucket")
        if found[name].size != file.size:
            raise _broken(root, name, f"has {found[name].size} bytes, the manifest says {file.size}")
    if known and find_kind(files) is None:
        raise no_kind(root, files)
    _check_variables(root, files)
    step = manifest.get("step")
    listed = {name: found[name] for name in files}
    return Export(root, files, _fingerprint(listed), manifest=True, step=step if isinstance(step, int) else None)


def _read_manifest(storage: Storage, root: str, stat: ObjectStat) -> dict[str, Any]:
    if stat.size > _MAX_MANIFEST:
        raise _broken(root, MANIFEST, f"has {stat.size} bytes")
    try:
        manifest = json.loads(storage.read(join(root, MANIFEST)))
    except (ValueError, RecursionError) as error:
        raise _broken(root, MANIFEST, f"is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != 1 or not isinstance(manifest.get("files"), dict):
        raise _broken(root, MANIFEST, 'is not {"format": 1, "files": {…}}')
    return manifest


def _manifest_files(root: str, manifest: Mapping[str, Any]) -> dict[str, ExportFile]:
    files = {}
    for name, entry in manifest["files"].items():
        if not name or name.startswith("/") or "\\" in name or any(p in {"", ".", ".."} for p in name.split("/")):
            raise _broken(root, MANIFEST, f"lists a file outside the model: {name!r}")
        try:
            files[name] = ExportFile(int(entry["size"]), str(entry["sha256"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _broken(root, MANIFEST, f"has no size and sha256 for {name!r}") from error
    if not files:
        raise _broken(root, MANIFEST, "lists no file")
    return files


def _folder(root: str, found: Mapping[str, ObjectStat], *, known: bool) -> str:
    """The folder below ``root`` that contains the model; ``""`` for ``root`` itself."""
    if not found:
        raise ModelError(
            f"there is no model in {root}/",
            hint="let the trainer export to model/ in the job directory, by its gs:// URI (only Vertex AI has /gcs/); "
            "`mlengine jobs status` shows how it ended",
        )
    if not known or GRAPH in found:
        return ""
    marks = (GRAPH, MANIFEST)
    folders = sorted({posixpath.dirname(name) for name in found if posixpath.basename(name) in marks})
    numbered = [folder for folder in folders if posixpath.basename(folder).isdigit()]
    if numbered:
        return max(numbered, key=lambda folder: int(posixpath.basename(folder)))
    if len(folders) == 1:
        return folders[0]
    if not folders and find_kind(found) is not None:
        return ""
    if not folders:
        raise no_kind(root, found)
    raise ModelError(
        f"{root}/ has {len(folders)} models: {', '.join(folders[:5])}",
        hint="export one model there, or give the folders numbers: the highest is used",
    )


def _check_variables(root: str, names: Mapping[str, Any]) -> None:
    """Check that all shards of the variables exist. Each shard's name contains the number of shards."""
    for name in names:
        stem, _, count = name.rpartition("-of-")
        if not name.startswith("variables/variables.data-") or not count.isdigit():
            continue
        prefix = stem.rpartition("-")[0]
        for index in range(min(int(count), _MAX_FILES)):
            shard = f"{prefix}-{index:05d}-of-{count}"
            if shard not in names:
                raise _broken(root, shard, "is missing")
        if "variables/variables.index" not in names:
            raise _broken(root, "variables/variables.index", "is missing")


def _fingerprint(found: Mapping[str, ObjectStat]) -> str:
    lines = sorted(f"{name}:{stat.size}:{stat.crc32c}" for name, stat in found.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _broken(root: str, name: str, why: str) -> ModelError:
    return ModelError(f"{join(root, name)} {why}", hint="let the trainer export the model again")

"""Compares versions with their manifests, in the bucket and in the local copies that a machine keeps."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlengine.core import layout
from mlengine.core.dataset import DataFile, Manifest
from mlengine.core.errors import DatasetError, ObjectMissingError, StorageConflictError
from mlengine.datasets import croissant
from mlengine.datasets.catalog import MANIFEST, load_manifest, read_manifest
from mlengine.storage.client import ObjectStat, Storage, crc32c_of

_DAMAGED = "restore the object, or use another version"


@dataclass(frozen=True)
class Problem:
    """A problem that :func:`verify` found with one object."""

    uri: str
    reason: str


def verify(storage: Storage, bucket: str, name: str, version: str) -> list[Problem]:
    """Compare every object of a version with the manifest. Returns an empty list if there are no problems.

    Objects in the version's folder are read completely. Objects that were recorded by reference are not read: their
    generation, size and checksum from a list call are compared.

    :raises DatasetError: there is no such version, or its manifest cannot be read.
    """
    manifest = load_manifest(storage, bucket, name, version)
    root = layout.dataset_dir(bucket, name, version)
    referenced = [file for file in manifest.files if file.uri is not None]
    there = _listed(storage, manifest, referenced)
    problems = [
        Problem(str(file.uri), reason) for file in referenced if (reason := _changed(file, there.get(str(file.uri))))
    ]
    with tempfile.TemporaryDirectory(prefix="mlengine-dataset-") as scratch:
        for file in manifest.files:
            if file.uri is not None:
                continue
            uri, local = layout.join(root, file.path), Path(scratch) / "object"
            try:
                storage.download(uri, local)
            except ObjectMissingError:
                problems.append(Problem(uri, "is missing"))
                continue
            if reason := _mismatch(local, file):
                problems.append(Problem(uri, reason))
    return problems


def _listed(storage: Storage, manifest: Manifest, files: Sequence[DataFile]) -> dict[str, ObjectStat]:
    if not files:
        return {}
    if manifest.root is not None:
        return {stat.uri: stat for stat in storage.ls(manifest.root)}
    with ThreadPoolExecutor(16) as pool:
        stats = pool.map(lambda file: storage.stat(str(file.uri)), files)
        return {stat.uri: stat for stat in stats if stat is not None}


def _changed(file: DataFile, stat: ObjectStat | None) -> str:
    """How an object differs from the recorded one; empty if it does not."""
    if stat is None:
        return "is missing"
    if stat.generation != file.generation:
        return f"was replaced: generation {stat.generation}, {file.generation} in the manifest"
    if stat.size != file.size:
        return f"has {stat.size} bytes, {file.size} in the manifest"
    if stat.crc32c != file.crc32c:
        return f"has crc32c {stat.crc32c}, {file.crc32c} in the manifest"
    return ""


def fetch(storage: Storage, uri: str, cache_dir: Path) -> Path:
    """A local copy of the version at ``uri``, verified against its manifest. It is downloaded once per machine.

    Many processes may call this at the same time: one downloads the copy under a lock and makes it visible with one
    rename, and the others wait. A copy that was damaged later is downloaded again. The manifest is always read from the
    bucket.

    :returns: a directory with ``manifest.json``, ``croissant.json`` and the files that they name.
    :raises DatasetError: there is no such version; an object in the bucket does not match the manifest (the error names
        the file); or ``cache_dir`` is not writable.
    """
    try:
        manifest = read_manifest(storage, uri)
    except ObjectMissingError as error:
        raise DatasetError(
            f"no dataset version at {uri}: it has no {MANIFEST}",
            hint="see which there are: mlengine datasets list",
        ) from error
    with _writing(cache_dir):
        return _cached(storage, uri, manifest, manifest.files, _folder(manifest, cache_dir))


def fetch_split(storage: Storage, manifest: Manifest, uri: str, split: str, cache_dir: Path) -> Path:
    """A local copy of the files of one split; otherwise like :func:`fetch`."""
    files, whole = manifest.splits[split].files, _folder(manifest, cache_dir)
    if not any(_mismatch(whole / file.path, file) for file in files):
        return whole
    with _writing(cache_dir):
        return _cached(storage, uri, manifest, files, whole.with_name(f"{whole.name}-{split}"))


def _folder(manifest: Manifest, cache_dir: Path) -> Path:
    return cache_dir / manifest.name / f"{manifest.version}-{manifest.digest[:12]}"


def _cached(storage: Storage, uri: str, manifest: Manifest, files: Sequence[DataFile], target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f".{target.name}.lock")):
        if (target / MANIFEST).is_file() and not any(_mismatch(target / file.path, file) for file in files):
            return target
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            _download(storage, uri, manifest, files, partial)
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _download(storage: Storage, uri: str, manifest: Manifest, files: Sequence[DataFile], target: Path) -> None:
    def one(file: DataFile) -> None:
        where = file.uri or layout.join(uri.rstrip("/"), file.path)
        try:
            storage.download(where, target / file.path, generation=file.generation, stored=True)
        except ObjectMissingError as error:
            raise DatasetError(f"{where} is missing, and the manifest names it", hint=_DAMAGED) from error
        except StorageConflictError as error:
            reason = _changed(file, storage.stat(where)) or "was replaced"
            raise DatasetError(f"{where} {reason}", hint=_DAMAGED) from error
        if reason := _mismatch(target / file.path, file):
            raise DatasetError(f"{where} {reason}", hint=_DAMAGED)

    target.mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, files))
    (target / croissant.CROISSANT).write_bytes(croissant.to_bytes(manifest, uri.rstrip("/")))
    (target / MANIFEST).write_bytes(manifest.to_bytes())


def _mismatch(path: Path, file: DataFile) -> str:
    """How the file at ``path`` differs from ``file``; empty if it does not."""
    if not path.is_file():
        return "is missing"
    if (size := path.stat().st_size) != file.size:
        return f"has {size} bytes, {file.size} in the manifest"
    if file.sha256 is not None:
        digest = sha256_of(path)
        return "" if digest == file.sha256 else f"has sha256 {digest[:12]}…, {file.sha256[:12]}… in the manifest"
    checksum = crc32c_of(path)
    return "" if checksum == file.crc32c else f"has crc32c {checksum}, {file.crc32c} in the manifest"


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Convert write errors of the ``with`` body.

    :raises DatasetError: the body could not write a file.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"the dataset cannot be written to {folder}: {error}", hint="choose a directory with enough space"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that only one process has at a time. The kernel releases the lock of a process that dies."""
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

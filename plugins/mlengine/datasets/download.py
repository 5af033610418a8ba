"""Verified copies: every byte of a version compared with its manifest, here or in a cache that a machine shares."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlengine.core import layout
from mlengine.core.dataset import DataFile, Manifest
from mlengine.core.errors import DatasetError, ObjectMissingError
from mlengine.datasets.catalog import MANIFEST, load_manifest, read_manifest
from mlengine.storage.client import Storage

_DAMAGED = "this version is damaged in the bucket: restore the object, or train on another version"


@dataclass(frozen=True)
class Problem:
    """What :func:`verify` found wrong with one object."""

    uri: str
    reason: str


def verify(storage: Storage, bucket: str, name: str, version: str) -> list[Problem]:
    """Read every object of a version and compare size and checksum with the manifest. Empty: all is well.

    :raises DatasetError: no such version, or no readable manifest.
    """
    manifest = load_manifest(storage, bucket, name, version)
    root = layout.dataset_dir(bucket, name, version)
    problems: list[Problem] = []
    with tempfile.TemporaryDirectory(prefix="mlengine-dataset-") as scratch:
        for file in manifest.files:
            uri, local = layout.join(root, file.path), Path(scratch) / "object"
            try:
                storage.download(uri, local)
            except ObjectMissingError:
                problems.append(Problem(uri, "is missing"))
                continue
            if reason := _mismatch(local, file):
                problems.append(Problem(uri, reason))
    return problems


def fetch(storage: Storage, uri: str, cache_dir: Path) -> Path:
    """A local copy of the version at ``uri``, verified against its manifest; downloaded once a machine.

    Safe to call from many processes: the copy appears whole, by one rename, under a lock; others wait for it. A copy
    that was damaged since is made anew. The manifest is always read from the bucket.

    :returns: a directory with ``manifest.json`` and the files that it names.
    :raises DatasetError: no such version, or what the bucket holds is not what its manifest says; names the file.
    """
    try:
        manifest = read_manifest(storage, uri)
    except ObjectMissingError as error:
        raise DatasetError(
            f"no dataset version at {uri}: it has no {MANIFEST}",
            hint="see which there are: mlengine datasets list",
        ) from error
    target = cache_dir / manifest.name / f"{manifest.version}-{manifest.digest[:12]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f".{target.name}.lock")):
        if not _damaged(target, manifest):
            return target
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            _download(storage, uri, manifest, partial)
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _download(storage: Storage, uri: str, manifest: Manifest, target: Path) -> None:
    def one(file: DataFile) -> None:
        where = layout.join(uri.rstrip("/"), file.path)
        try:
            storage.download(where, target / file.path)
        except ObjectMissingError as error:
            raise DatasetError(f"{where} is missing, and the manifest names it", hint=_DAMAGED) from error
        if reason := _mismatch(target / file.path, file):
            raise DatasetError(f"{where} {reason}", hint=_DAMAGED)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, manifest.files))
    (target / MANIFEST).write_bytes(manifest.to_bytes())


def _damaged(folder: Path, manifest: Manifest) -> bool:
    return not (folder / MANIFEST).is_file() or any(_mismatch(folder / file.path, file) for file in manifest.files)


def _mismatch(path: Path, file: DataFile) -> str:
    """Why ``path`` is not ``file``; empty if it is."""
    if not path.is_file():
        return "is missing"
    if (size := path.stat().st_size) != file.size:
        return f"has {size} bytes, {file.size} in the manifest"
    if (digest := sha256_of(path)) != file.sha256:
        return f"has sha256 {digest[:12]}…, {file.sha256[:12]}… in the manifest"
    return ""


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel frees the lock of one that dies."""
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

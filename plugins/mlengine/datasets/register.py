"""Registering a dataset version: checks, then files, then the manifest, last and once.

Files are created, never overwritten: two people who register different data under one version cannot mix, and a
registration that died half-way is completed by the next one with the same data.

Does not: delete or change a version that is registered.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from mlengine.core import layout, versions
from mlengine.core.dataset import (
    Column,
    ColumnStatistics,
    DataFile,
    Manifest,
    Schema,
    Split,
    check_dataset_name,
    check_version_name,
)
from mlengine.core.errors import DatasetError, StorageConflictError
from mlengine.datasets import checks
from mlengine.datasets.catalog import MANIFEST, list_versions, load_manifest
from mlengine.datasets.download import sha256_of
from mlengine.datasets.formats import idx
from mlengine.datasets.sources import LocalFile
from mlengine.storage.client import Storage

_CHUNK = 1 << 20
# What a registration uploads before its manifest; nothing else in a version's folder is ever deleted.
_FILES = tuple(
    f"{split}-{kind}.gz" for split in ("train", "heldout") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
_PACKING = 6  # gzip level: 10 % smaller than level 1 on digits, for twice the time, which is paid once


def add(
    storage: Storage,
    bucket: str,
    name: str,
    version: str,
    source_dir: Path,
    *,
    license: str,  # noqa: A002 - the word of the manifest
    source: str,
    classes: int = 10,
    drift_bound: float = checks.DRIFT_BOUND,
    allow: Sequence[str] = (),
    reason: str = "",
    discard_partial: bool = False,
) -> Manifest:
    """Register the IDX files of ``source_dir`` as ``name/version``: all of it, or nothing that anybody can see.

    The same data again is no error. Whatever is wrong with the data is said at once, with figures, before any upload.

    :param drift_bound: how much a label's share of the training rows may change, in parts of one.
    :param allow: checks that may fail (:data:`~mlengine.datasets.checks.EXCEPTABLE`), and ``reason`` why that does no
        harm. Both are kept in the manifest, with what was found.
    :param discard_partial: remove the data files that another registration of this version left half-way; only if none
        is running.
    :raises DatasetError: a check failed, or the version exists with other content.
    """
    root = layout.dataset_dir(bucket, check_dataset_name(name), check_version_name(version))
    heldout = checks.read_split(
        checks.find_file(source_dir, checks.HELDOUT_IMAGES),
        checks.find_file(source_dir, checks.HELDOUT_LABELS),
        classes,
        keep_hashes=True,
    )
    train = checks.read_split(
        checks.find_file(source_dir, checks.TRAIN_IMAGES),
        checks.find_file(source_dir, checks.TRAIN_LABELS),
        classes,
        other=heldout,
    )
    there = list_versions(storage, bucket, name)
    if version in there:
        return _same_or_refuse(load_manifest(storage, bucket, name, version), train, heldout)
    neighbour = _neighbour(storage, bucket, name, version, there)
    exceptions = checks.refuse_failed(
        checks.run_checks(
            train,
            heldout,
            classes=classes,
            drift_bound=drift_bound,
            neighbour=neighbour,
            neighbour_counts=label_counts(storage, bucket, neighbour) if neighbour else (),
        ),
        f"{name}/{version}",
        allow=allow,
        reason=reason,
    )
    if discard_partial:
        for file in _FILES:
            storage.delete(layout.join(root, file))
    with tempfile.TemporaryDirectory(prefix="mlengine-dataset-") as scratch:
        manifest = Manifest(
            name=name,
            version=version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            license=license,
            source=source,
            format="idx",
            task="multiclass",
            schema=Schema(
                (Column("image", train.dtype, train.shape), Column("label", "uint8")),
                target="label",
                classes=tuple(range(classes)),
            ),
            splits={
                "train": _pack(train, "train", Path(scratch)),
                "heldout": _pack(heldout, "heldout", Path(scratch)),
            },
            exceptions=exceptions,
        )
        _upload(storage, root, Path(scratch), manifest)
    try:
        storage.create(layout.join(root, MANIFEST), manifest.to_bytes())
    except StorageConflictError:  # somebody registered this version between our look and now
        return _same_or_refuse(load_manifest(storage, bucket, name, version), train, heldout)
    return manifest


def label_counts(storage: Storage, bucket: str, manifest: Manifest) -> tuple[int, ...]:
    """How many training rows have each label: from the manifest, or counted if its writer did not."""
    statistics = manifest.train.statistics.get("label")
    if statistics is not None and statistics.top:
        return tuple(statistics.counts.get(label, 0) for label in range(len(manifest.schema.classes or ())))
    root = layout.dataset_dir(bucket, manifest.name, manifest.version)
    with tempfile.TemporaryDirectory(prefix="mlengine-dataset-") as scratch:
        path = Path(scratch) / "labels"
        storage.download(layout.join(root, manifest.train.file_of("label").path), path)
        counts = [0] * len(manifest.schema.classes or ())
        with idx.opened(LocalFile("labels", path)) as stream:
            for batch in idx.batches(stream, idx.read_header(stream, "labels"), "labels", 1 << 20):
                counts = [count + batch.count(label) for label, count in enumerate(counts)]
    return tuple(counts)


def _pack(split: checks.SplitContent, prefix: str, target: Path) -> Split:
    """Write both files of a split packed, the same bytes each time (gzip's time is 0)."""
    files = []
    for path, kind, content in (
        (split.images, "images-idx3-ubyte", split.images_sha256),
        (split.labels, "labels-idx1-ubyte", split.labels_sha256),
    ):
        packed = target / f"{prefix}-{kind}.gz"
        unpacked = hashlib.sha256()
        with (
            idx.opened(LocalFile(path.name, path)) as stream,
            packed.open("wb") as raw,
            gzip.GzipFile("", "wb", _PACKING, raw, mtime=0) as sink,
        ):
            while chunk := stream.read(_CHUNK):
                unpacked.update(chunk)
                sink.write(chunk)
        if unpacked.hexdigest() != content:
            raise DatasetError(f"{path} changed while it was read", hint="add it again when its writer has finished")
        files.append(
            DataFile(packed.name, packed.stat().st_size, sha256_of(packed), content, column=idx.column_of_file(kind))
        )
    counts = sorted(enumerate(split.label_counts), key=lambda item: -item[1])
    return Split(split.rows, tuple(files), {"label": ColumnStatistics(nulls=0, top=tuple(counts))})


def _upload(storage: Storage, root: str, folder: Path, manifest: Manifest) -> None:
    def one(file: DataFile) -> None:
        storage.upload_once(folder / file.path, layout.join(root, file.path))

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, manifest.files))
            # Once more, when all have arrived: not every server takes "only if it is not there" in an upload session.
            list(pool.map(one, manifest.files))
    except StorageConflictError as error:
        raise DatasetError(
            f"{root} holds files of other data and no manifest: another registration is under way, or died",
            hint="if none is running, discard what it left: mlengine datasets add --discard-partial",
        ) from error


def _neighbour(storage: Storage, bucket: str, name: str, version: str, there: list[str]) -> Manifest | None:
    """The version just before this one, else the one just after: what the new one is compared with."""
    order = versions.in_order([*there, version])
    at = order.index(version)
    others = order[at - 1 : at] if at else order[1:2]
    return load_manifest(storage, bucket, name, others[0]) if others else None


def _same_or_refuse(manifest: Manifest, train: checks.SplitContent, heldout: checks.SplitContent) -> Manifest:
    pairs = (
        ("train", manifest.train, train),
        ("heldout", manifest.heldout, heldout),
    )
    other = [
        f"{split}: {here.rows} rows of {here.files[0].identity[:12]}, {given.rows} of {given.images_sha256[:12]} given"
        for split, here, given in pairs
        if (here.file_of("image").identity, here.file_of("label").identity) != given.identity
    ]
    if other:
        raise DatasetError(
            f"{manifest.name}/{manifest.version} exists with other content ({'; '.join(other)})",
            hint="a version never changes: register the data under a new one",
        )
    return manifest

"""Registers a dataset version: first the checks, then the files, and last the manifest, which is written once.

Files are created and never overwritten. So if two people register different data as one version, their files cannot
mix, and an interrupted registration is completed by the next one with the same data.

A registered version is never deleted or changed here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlengine.core import layout, versions
from mlengine.core.dataset import DataFile, Manifest, Schema, Split, check_dataset_name, check_version_name
from mlengine.core.errors import DatasetError, StorageConflictError
from mlengine.core.plural import number_of
from mlengine.datasets import checks, croissant
from mlengine.datasets.catalog import MANIFEST, list_versions, load_manifest
from mlengine.datasets.contents import Contents
from mlengine.datasets.discovery import Found, find
from mlengine.datasets.formats.base import NarrowTypeError
from mlengine.datasets.own_checks import run_own_checks
from mlengine.datasets.roles import Roles, find_task, inherited_dtypes, read_schema
from mlengine.datasets.scan import Progress, Scan, SplitScan, no_progress, scan
from mlengine.datasets.share import can_split, split_share
from mlengine.datasets.split_names import NAMES
from mlengine.storage.client import Storage

ROWS = ("all", "sample", "none")


@dataclass(frozen=True)
class Options:
    """The properties of a new version. Where a field is ``None``, it is taken from the previous version or the data.

    :param license: the terms of use.
    :param source: the origin of the data.
    :param file_format: the format of the files; by default, it is derived from their suffixes.
    :param heldout: the location of the held-out rows, if they are not in ``path``; or the share of rows to hold out,
        such as ``0.1``.
    :param dtypes: types by column name, for columns whose type the format does not define.
    :param rows: which rows are read: ``all``, ``sample`` or ``none``; by default ``all`` of a directory, a
        ``sample`` of a prefix.
    :param limits: limits of checks, by name.
    :param allow: the names of checks that may fail; ``reason`` says why that is acceptable.
    :param own_checks: the user's checks, as ``module:name`` of functions or Pandera schemas.
    """

    license: str | None = None
    source: str | None = None
    file_format: str | None = None
    heldout: str | None = None
    roles: Roles = field(default_factory=Roles)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    rows: str | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    allow: Sequence[str] = ()
    reason: str = ""
    own_checks: Sequence[str | Callable[..., Any]] = ()
    discard_partial: bool = False


def add(
    storage: Storage,
    bucket: str,
    name: str,
    version: str,
    path: str | Path,
    *,
    options: Options | None = None,
    progress: Progress = no_progress,
    **fields: Any,
) -> Manifest:
    """Register the files under ``path`` as ``name/version``. Either all of them are registered, or none.

    Registering the same data again is not an error. All problems are reported at once, before any upload. Memory usage
    is bounded, whatever the size of the data.

    :param path: a directory or file, which is copied; or a ``gs://`` prefix, whose objects are recorded by reference.
    :param fields: fields of :class:`Options` and :class:`~mlengine.datasets.roles.Roles`, instead of ``options``.
    :raises DatasetError: a check failed, or the version exists with other content.
    """
    options = options or _options(fields)
    while True:
        try:
            return _add(storage, bucket, name, version, path, options=options, progress=progress)
        except NarrowTypeError as error:
            if error.column == options.roles.key:
                hint = f"correct the value; or read the keys as strings: --dtype {error.column}=string"
                raise DatasetError(error.message, hint=hint) from error
            if error.column in options.dtypes:
                raise
            progress(f"column {error.column!r} is read as {error.dtype}: {error.message}")
            options = replace(options, dtypes={**options.dtypes, error.column: error.dtype})


def _add(
    storage: Storage, bucket: str, name: str, version: str, path: str | Path, *, options: Options, progress: Progress
) -> Manifest:
    root = layout.dataset_dir(bucket, check_dataset_name(name), check_version_name(version))
    limits = checks.Limits.of(options.limits)
    there = list_versions(storage, bucket, name)
    previous = _previous(storage, bucket, name, version, there)
    with tempfile.TemporaryDirectory(prefix="mlengine-dataset-") as scratch:
        found, options = _found(storage, str(path), options, previous, scratch=Path(scratch), progress=progress)
        contents = Contents(found, Path(scratch))
        counts = {split: found.format.row_counts(files) for split, files in found.splits.items()}
        contents.read(counts, progress)
        if version in there:
            return _same_or_refuse(storage, root, load_manifest(storage, bucket, name, version), contents, counts)
        schema = read_schema(found, options.roles, options.dtypes, previous)
        draft, exceptions = _checked(
            found,
            name,
            version,
            schema=schema,
            options=options,
            previous=previous,
            contents=contents,
            limits=limits,
            progress=progress,
        )
        if options.discard_partial and not _discard(storage, root):
            return _same_or_refuse(storage, root, load_manifest(storage, bucket, name, version), contents, counts)
        contents.upload(storage, root, progress)
        manifest = replace(draft, exceptions=exceptions)
        try:
            storage.create(layout.join(root, MANIFEST), manifest.to_bytes())
        except StorageConflictError:  # another process has registered this version since the listing
            return _same_or_refuse(storage, root, load_manifest(storage, bucket, name, version), contents, counts)
        croissant.write(storage, root, manifest)
    return manifest


def _options(fields: Mapping[str, Any]) -> Options:
    roles = {name: value for name, value in fields.items() if name in Roles.__dataclass_fields__}
    others = {name: value for name, value in fields.items() if name not in roles}
    return Options(**others, roles=Roles(**roles)) if roles else Options(**others)


def _found(
    storage: Storage, path: str, options: Options, previous: Manifest | None, *, scratch: Path, progress: Progress
) -> tuple[Found, Options]:
    """Find the files. A share of the rows is held out if the user or the previous version requires it.

    :returns: the files, and the options with the types of columns of the previous version.
    """
    share = _share(options)
    found = find(storage, path, file_format=options.file_format, heldout=options.heldout if share is None else None)
    options = replace(options, dtypes=inherited_dtypes(found, options.dtypes, previous))
    if options.heldout is None and previous is not None and can_split(found):
        share = previous.heldout_share
    if share is None:
        return found, options
    key = options.roles.key or (previous.schema.key if previous else None)
    folder = scratch / "share"
    split_share(found, share, folder, key=key, dtypes=options.dtypes, progress=progress)
    roles = replace(options.roles, heldout_policy=options.roles.heldout_policy or "rolling")
    return find(storage, str(folder), file_format="parquet"), replace(options, roles=roles, heldout=str(share))


def _share(options: Options) -> float | None:
    """The share of rows to hold out; ``None`` if the held-out rows are in a separate location.

    :raises DatasetError: the share is given in percent.
    """
    try:
        return float(options.heldout) if options.heldout is not None else None
    except ValueError:
        percent = re.fullmatch(r"([\d.]+) ?%", options.heldout or "")
        if percent is None or Path(percent[0]).exists():
            return None
    raise DatasetError(
        f"--heldout {options.heldout} is neither a path nor a share of the rows",
        hint=f"write the share as a fraction: --heldout {float(percent[1]) / 100:g}",
    )


def _checked(
    found: Found,
    name: str,
    version: str,
    *,
    schema: Schema,
    options: Options,
    previous: Manifest | None,
    contents: Contents,
    limits: checks.Limits,
    progress: Progress,
) -> tuple[Manifest, tuple[Any, ...]]:
    """Run all checks and return the manifest with their results.

    :raises DatasetError: a check failed.
    """
    rows = _rows(options, found)
    scanned = scan(found, schema, rows, progress) if found.format.name != "files" else Scan()
    task, schema = find_task(found, schema, options.roles, previous, scanned) if scanned.splits else ("none", schema)
    if task != "none" and "heldout" not in found.splits:
        raise DatasetError(
            f"{found.root} has no held-out rows, which models are compared on",
            hint="put them into a folder heldout/, or give --heldout PATH"
            + (", or --heldout 0.1 for a tenth of the rows" if can_split(found) else ""),
        )
    draft = Manifest(
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        license=_inherited("license", options.license, previous),
        source=_inherited("source", options.source, previous),
        format=found.format.name,
        schema=schema,
        splits={split: _split(files, scanned.splits.get(split)) for split, files in contents.splits.items()},
        task=task,
        heldout_share=_share(options),
        heldout_policy=options.roles.heldout_policy or (previous.heldout_policy if previous else "fixed"),
        root=_root(found, contents),
    )
    results = checks.run_checks(draft, scanned, previous, limits) if scanned.splits else []
    results += run_own_checks(options.own_checks, draft, previous, found)
    exceptions = checks.refuse_failed(results, f"{name}/{version}", allow=options.allow, reason=options.reason)
    return replace(draft, checks=tuple(results)), exceptions


def _split(files: tuple[DataFile, ...], scanned: SplitScan | None) -> Split:
    if scanned is None:
        return Split(None, files)
    read = None if scanned.read == scanned.rows else scanned.read
    return Split(scanned.rows, files, scanned.statistics, read)


def _rows(options: Options, found: Found) -> str:
    rows = options.rows or ("sample" if found.by_reference else "all")
    if rows not in ROWS:
        raise DatasetError(f"not a choice of rows: {rows!r}", hint=f"use one of {', '.join(ROWS)}")
    return rows


def _inherited(field_name: str, value: str | None, previous: Manifest | None) -> str:
    """The value of a field, or that of the previous version.

    :raises DatasetError: there is neither; the first version of a dataset needs a value.
    """
    found = value or (getattr(previous, field_name) if previous is not None else None)
    if not found:
        raise DatasetError(f"the first version of a dataset needs a {field_name}", hint=f'write --{field_name} "…"')
    return str(found)


def _root(found: Found, contents: Contents) -> str | None:
    """The common prefix of all files that are recorded by reference."""
    prefix = found.root if found.root.endswith("/") else f"{found.root}/"
    uris = [str(file.uri) for files in contents.splits.values() for file in files]
    return prefix if found.by_reference and all(uri.startswith(prefix) for uri in uris) else None


def _previous(storage: Storage, bucket: str, name: str, version: str, there: list[str]) -> Manifest | None:
    """The version to compare the new one with: the one just before it, else the one just after it."""
    order = versions.in_order({*there, version})
    at = order.index(version)
    others = order[at - 1 : at] if at else order[1:2]
    return load_manifest(storage, bucket, name, others[0]) if others else None


def _discard(storage: Storage, root: str) -> bool:
    """Delete the data files of another registration of this version, and nothing else in its folder.

    The other registration may still be running: its files are listed before the check for its manifest, and deleted
    only if they have not been replaced since.

    :returns: ``False`` if the other registration has been completed; then nothing is deleted.
    """
    stats = storage.ls(f"{root}/")
    if storage.exists(layout.join(root, MANIFEST)):
        return False
    for stat in stats:
        path = stat.uri[len(root) + 1 :]
        if path.split("/")[0] in NAMES or path.endswith("-ubyte.gz"):
            with suppress(StorageConflictError):
                storage.delete(stat.uri, stat.generation)
    return True


def _same_or_refuse(
    storage: Storage, root: str, manifest: Manifest, contents: Contents, counts: Mapping[str, list[int] | None]
) -> Manifest:
    """Return the registered version if it has the same files.

    :raises DatasetError: its files are different.
    """
    given = {
        split: Split(rows[0] if (rows := counts[split]) and files[0].column else None, files)
        for split, files in contents.splits.items()
    }
    other = [
        f"{split}: {_described(manifest.splits.get(split))}, {_described(given.get(split))} given"
        for split in {**manifest.splits, **given}
        if split not in given
        or split not in manifest.splits
        or manifest.splits[split].identity != given[split].identity
    ]
    if other:
        raise DatasetError(
            f"{manifest.name}/{manifest.version} exists with other content ({'; '.join(other)})",
            hint="a version never changes: register the data under a new one",
        )
    croissant.write(storage, root, manifest)
    return manifest


def _described(split: Split | None) -> str:
    if split is None:
        return "no files"
    rows = number_of(split.rows, "row") if split.rows is not None else number_of(len(split.files), "file")
    return f"{rows} of {split.identity[:12]}"

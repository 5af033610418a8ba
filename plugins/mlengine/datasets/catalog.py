"""Lists dataset versions, and resolves which version to use.

A version is a folder whose manifest is written last. Without a manifest, the version does not exist. This module only
reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, tzinfo

from mlengine.core import layout, versions
from mlengine.core.dataset import Manifest, check_dataset_name, check_version_name
from mlengine.core.errors import DatasetError, ObjectMissingError
from mlengine.storage.client import Storage

MANIFEST = "manifest.json"


def list_datasets(storage: Storage, bucket: str) -> list[str]:
    """The names of the datasets that have a version, sorted."""
    prefix = layout.join(layout.bucket_uri(bucket), "datasets") + "/"
    found = (stat.uri[len(prefix) :].split("/") for stat in storage.ls(prefix))
    names = {parts[0] for parts in found if len(parts) == 3 and parts[2] == MANIFEST}
    return sorted(name for name in names if _valid(check_dataset_name, name))


def list_versions(storage: Storage, bucket: str, name: str) -> list[str]:
    """The versions of a dataset that have a manifest, oldest first. Costs one list call."""
    prefix = layout.datasets_prefix(bucket, check_dataset_name(name))
    found = (stat.uri[len(prefix) :].split("/") for stat in storage.ls(prefix))
    names = (parts[0] for parts in found if len(parts) == 2 and parts[1] == MANIFEST)
    return versions.in_order(name for name in names if _valid(check_version_name, name))


def _valid(check: Callable[[str], str], name: str) -> bool:
    """Whether a folder's name is valid for a dataset or version. The bucket may contain other folders."""
    try:
        return bool(check(name))
    except DatasetError:
        return False


def load_manifest(storage: Storage, bucket: str, name: str, version: str) -> Manifest:
    """Read the manifest of a version.

    :raises DatasetError: there is no such version (the error lists the existing ones), or its manifest is damaged.
    """
    uri = layout.dataset_dir(bucket, check_dataset_name(name), check_version_name(version))
    try:
        return read_manifest(storage, uri)
    except ObjectMissingError as error:
        there = list_versions(storage, bucket, name)
        raise _no_version(bucket, name, f"no version {version!r} of dataset {name!r}", there) from error


def load_manifests(storage: Storage, bucket: str, name: str, chosen: Sequence[str]) -> list[Manifest]:
    """Read the manifests of many versions concurrently, and return them in the given order."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda version: load_manifest(storage, bucket, name, version), chosen))


def read_manifest(storage: Storage, uri: str) -> Manifest:
    """The manifest of the version at ``uri``, a folder ``…/datasets/<name>/<version>``.

    :raises ObjectMissingError: there is no manifest, so there is no such version.
    :raises DatasetError: the manifest is damaged.
    """
    uri = uri.rstrip("/")
    where = layout.join(uri, MANIFEST)
    manifest = Manifest.from_bytes(storage.read(where), where)
    if uri.split("/")[-2:] != [manifest.name, manifest.version]:
        raise DatasetError(
            f"{where} is the manifest of {manifest.name}/{manifest.version}",
            hint="a version cannot be copied or renamed: register it with mlengine datasets add",
        )
    return manifest


def resolve(
    storage: Storage,
    bucket: str,
    name: str,
    *,
    version: str | None = None,
    at: date | datetime | str | None = None,
    zone: tzinfo = UTC,
) -> str:
    """The version to train on: the named one, else the newest at a date, else the newest.

    :param at: a day, which includes all of it, or a time (in ``zone`` unless it has a time zone), or either in ISO
        format. A version whose name is not a date is available from its registration.
    :param zone: the time zone of ``at`` and of the dates in version names.
    :raises DatasetError: no version matches; the error lists the existing ones.
    """
    there = list_versions(storage, bucket, name)
    if version is not None:
        if check_version_name(version) not in there:
            raise _no_version(bucket, name, f"no version {version!r} of dataset {name!r}", there)
        return version
    if at is None:
        chosen = versions.newest(there)
        if chosen is None:
            raise _no_version(bucket, name, f"dataset {name!r} has no version", there)
        return chosen
    undated = [one for one in there if versions.version_time(one) is None]
    registered = {
        manifest.version: datetime.fromisoformat(manifest.created)
        for manifest in load_manifests(storage, bucket, name, undated)
    }
    chosen = versions.newest_at(there, _moment(at), registered, zone)
    if chosen is None:
        raise _no_version(bucket, name, f"dataset {name!r} had no version yet at {at}", there)
    return chosen


def _no_version(bucket: str, name: str, what: str, there: list[str]) -> DatasetError:
    shown = ", ".join(there[-12:])
    shown = f"… {shown}" if len(there) > 12 else shown
    return DatasetError(
        f"{what} in {layout.datasets_prefix(bucket, name)}; versions: {shown or 'none'}",
        hint=f"choose one of them, or register it: mlengine datasets add {name} VERSION DIRECTORY",
    )


def _moment(at: date | datetime | str) -> date | datetime:
    if not isinstance(at, str):
        return at
    try:
        return date.fromisoformat(at) if len(at) <= 10 else datetime.fromisoformat(at)
    except ValueError as error:
        raise DatasetError(f"not a date: {at!r}", hint="write 2026-11-01 or 2026-11-01T06:00:00+00:00") from error

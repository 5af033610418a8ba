"""Resolves Croissant metadata to a directory or prefix of files that can be registered."""

from __future__ import annotations

import hashlib
import http.client
import json
import posixpath
import urllib.parse
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.scan import Progress

if TYPE_CHECKING:
    from mlengine.datasets.register import Options

_TIMEOUT = 60.0  # seconds without data


def read_croissant(file: str, options: Options, scratch: Path, progress: Progress) -> tuple[str, Options]:
    """The location of the files, and the options, completed by the metadata's licence, source, key and target.

    Files next to the metadata are used in place. Files on the web are downloaded into ``scratch`` and compared with
    their checksums. Files in Cloud Storage are recorded by reference.

    :param file: the local path of the metadata.
    :raises DatasetError: the file is not Croissant metadata, or lists no files, or files in several locations.
    """
    path = Path(file)
    try:
        data = json.loads(path.read_bytes())
        files = _listed(data["distribution"])
        objects = [item for item in files if str(item["@type"]).endswith("FileObject") and not item.get("containedIn")]
        sets = [item for item in files if str(item["@type"]).endswith("FileSet")]
        names = [str(item.get("name") or item["@id"]) for item in objects]
        options = _with_terms(options, data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file} is not Croissant metadata: {error!r}", hint="give a croissant.json") from error
    urls = [str(item.get("contentUrl", "")) for item in objects]
    kinds = {urllib.parse.urlsplit(url).scheme for url in urls}
    if kinds == {"gs"}:
        return _common_prefix(urls), options
    if kinds <= {"http", "https"} and kinds:
        for item, name in zip(objects, names, strict=True):
            _download(item, name, scratch)
            progress(f"downloaded {name}")
        return str(scratch), options
    if kinds <= {""} and (urls or sets):
        return str(path.parent), options
    raise DatasetError(
        f"{file} lists files of several places or none: {', '.join(sorted(kinds)) or 'none'}",
        hint="download the files, and give their directory instead",
    )


def _with_terms(options: Options, data: dict[str, Any]) -> Options:
    """The options, completed from the metadata where the user gave no value."""
    license_, source = data.get("license"), data.get("citeAs") or data.get("description") or data.get("url")
    roles = options.roles
    record_sets = _listed(data.get("recordSet"))
    fields = [field for records in record_sets for field in _listed(records.get("field"))]
    labels = {_name(field) for field in fields if "cr:Label" in _listed(field.get("dataType"))}
    keys = {
        str(key.get("@id", "")).rsplit("/", 1)[-1] for records in record_sets for key in _listed(records.get("key"))
    }
    if roles.target is None and len(labels) == 1:
        roles = replace(roles, target=labels.pop())
    if roles.key is None and len(keys) == 1:
        roles = replace(roles, key=keys.pop())
    first = _listed(license_)
    return replace(
        options,
        license=options.license or (_text(first[0]) if first else None),
        source=options.source or (_text(source) if source else None),
        roles=roles,
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    """A string of the metadata, which may also be given by language."""
    return str(next(iter(value.values()), "")) if isinstance(value, dict) else str(value)


def _name(field: dict[str, Any]) -> str:
    extract = field.get("source", {}).get("extract", {})
    return str(extract.get("column") or _text(field.get("name", "")))


def _common_prefix(urls: list[str]) -> str:
    """The common folder of all files. With one folder per split, it is the parent folder."""
    shared = posixpath.commonpath([posixpath.dirname(url.removeprefix("gs://")) for url in urls])
    if not shared:
        raise DatasetError("the files are in several buckets", hint="bring them into one")
    return f"gs://{shared}/"


def _download(item: dict[str, Any], name: str, scratch: Path) -> None:
    url = str(item.get("contentUrl", ""))
    target = (scratch / name.lstrip("/")).resolve()
    if not target.is_relative_to(scratch.resolve()):
        raise DatasetError(f"{name!r} leaves the directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, target.open("wb") as sink:  # noqa: S310
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                size += sink.write(chunk)
            length = answer.headers.get("Content-Length")
    except (OSError, http.client.HTTPException) as error:
        raise DatasetError(f"{url} cannot be downloaded: {error}") from error
    if length is not None and int(length) != size:  # the connection ended within the file, which urllib does not report
        raise DatasetError(f"{url} cannot be downloaded: {size} of {length} bytes were received", hint="try again")
    expected = item.get("sha256")
    if expected and digest.hexdigest() != expected:
        raise DatasetError(f"{url} has sha256 {digest.hexdigest()[:12]}…, {str(expected)[:12]}… in the metadata")

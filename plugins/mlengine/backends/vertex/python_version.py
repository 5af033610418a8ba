"""Whether the image's Python is one that the trainer's package takes; said before a machine is paid for.

Known are the Python of a plain ``python:3.11…`` image, by its tag, and what the package's own metadata requires. What
its dependencies require is known to the package index alone, and comes out when the container installs them.
"""

from __future__ import annotations

import io
import logging
import re
import tarfile
import zipfile
from collections.abc import Mapping
from email.parser import HeaderParser
from typing import Any, Protocol

from mlengine.core.errors import BackendError, ObjectMissingError, StorageError

log = logging.getLogger(__name__)

_IMAGE = re.compile(r"(?:.*/)?python:(?P<version>3\.\d+)(?:[.-].*)?")
_MOST_BYTES = 50 << 20


class Reads(Protocol):
    """As much of :class:`mlengine.storage.client.Storage` as this needs."""

    def read(self, uri: str) -> bytes:
        """The object's content."""


def check(job_id: str, body: Mapping[str, Any], package_uris: tuple[str, ...], storage: Reads) -> None:
    """:raises BackendError: naming image, package and what would do.

    A package that is not there is refused; one that cannot be read is left to the container, which says why in its log.
    """
    version = _image_python(body)
    if version is None:
        return
    for uri in package_uris:
        try:
            wanted = requires_python(storage.read(uri), uri)
        except ObjectMissingError as error:
            raise BackendError(
                f"job {job_id}: there is no package {uri}", remedy="package the trainer again, or correct packageUris"
            ) from error
        except (StorageError, tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, KeyError) as error:
            log.warning("job %s: what %s requires is not known: %s", job_id, uri, error)
            continue
        if wanted and not _takes(wanted, version):
            raise BackendError(
                f"job {job_id}: {uri.rsplit('/', 1)[1]} requires Python {wanted}, and the image has {version}",
                remedy="set pythonVersion in the job file or image_uri in the vertex settings to one that does, or "
                "widen requires-python",
            )


def requires_python(data: bytes, uri: str) -> str | None:
    """``Requires-Python`` of an sdist or a wheel; ``None`` if it has none."""
    if len(data) > _MOST_BYTES:
        return None
    if uri.endswith((".whl", ".zip")):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith((".dist-info/METADATA", "/PKG-INFO"))]
            text = archive.read(min(names, key=len)) if names else b""
    else:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            inside = [member for member in tar if member.isfile() and member.name.endswith("/PKG-INFO")]
            file = tar.extractfile(min(inside, key=lambda member: len(member.name))) if inside else None
            text = file.read() if file else b""
    found = HeaderParser().parsestr(text.decode("utf-8", "replace"))["Requires-Python"]
    return str(found) if found else None


def _image_python(body: Mapping[str, Any]) -> str | None:
    """The oldest Python among the plain images of the pools, ``None`` if there is no plain image."""
    found = []
    for pool in body["jobSpec"]["workerPoolSpecs"]:
        match = _IMAGE.fullmatch(pool.get("containerSpec", {}).get("imageUri", ""))
        if match is not None:
            found.append(match["version"])
    return min(found, key=lambda version: int(version.split(".")[1])) if found else None


def _takes(wanted: str, version: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        # Of 3.11 some patch release is meant, the newest rather than 3.11.0.
        return SpecifierSet(wanted).contains(f"{version}.99") or SpecifierSet(wanted).contains(f"{version}.0")
    except InvalidSpecifier:
        return True

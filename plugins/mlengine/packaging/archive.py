"""A ready-made package: what an sdist or a wheel holds, read without unpacking it, and refused if it cannot be trusted.

Looks at names, kinds and sizes only. Whether the package installs is the installer's business.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from mlengine.core.errors import PackageError

SUFFIXES = (".tar.gz", ".zip", ".whl")
MAX_MEMBERS = 50_000
MAX_UNPACKED = 2 << 30

_SDIST = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*?)-(?P<version>[0-9][A-Za-z0-9._+!-]*)")
_WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-[0-9][^-]*)?-[^-]+-[^-]+-[^-]+")


@dataclass(frozen=True)
class Archive:
    """What is in an sdist or a wheel. ``paths`` are its files; those of an sdist without its top directory."""

    filename: str
    name: str
    version: str
    paths: frozenset[str]


def name_and_version(filename: str) -> tuple[str, str]:
    """What a package's file name says, as installers read it.

    :raises PackageError: if it is none.
    """
    suffix = next((suffix for suffix in SUFFIXES if filename.endswith(suffix)), None)
    if suffix is None:
        raise PackageError(f"{filename} is no package", remedy=f"give an sdist or a wheel: {', '.join(SUFFIXES)}")
    match = (_WHEEL if suffix == ".whl" else _SDIST).fullmatch(filename.removesuffix(suffix))
    if match is None:
        pattern = "NAME-VERSION-py3-none-any.whl" if suffix == ".whl" else f"NAME-VERSION{suffix}"
        raise PackageError(
            f"{filename} is not named as a package is", remedy=f"installers need {pattern}: build it with uv build"
        )
    return match["name"], match["version"]


def read_archive(data: bytes, filename: str, where: str) -> Archive:
    """:param where: what errors call it.

    :raises PackageError: if it is not readable, not a package, or would write outside its own directory.
    """
    name, version = name_and_version(filename)
    try:
        members = list(_tar(data, where) if filename.endswith(".tar.gz") else _zip(data, where))
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise PackageError(f"{where} cannot be read: {error}", remedy="build it again, or upload it again") from error
    paths = frozenset(members)
    if filename.endswith(".whl"):
        if not any(path.endswith(".dist-info/METADATA") for path in paths):
            raise PackageError(f"{where} is not a wheel: no .dist-info/METADATA in it", remedy="uv build --wheel")
        return Archive(filename, name, version, paths)
    tops = {path.split("/", 1)[0] for path in paths}
    inner = frozenset(path.split("/", 1)[1] for path in paths if "/" in path)
    if len(tops) != 1 or inner.isdisjoint({"pyproject.toml", "setup.py"}):
        raise PackageError(
            f"{where} is not an sdist: no single directory with a pyproject.toml or setup.py",
            remedy="build it with uv build --sdist, or give the directory itself",
        )
    return Archive(filename, name, version, inner)


def _tar(data: bytes, where: str) -> Iterator[str]:
    left = MAX_UNPACKED
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as archive:
        for number, member in enumerate(archive):
            left -= member.size
            _check_size(number, left, where)
            path = _safe(member.name, where)
            if member.islnk():
                _safe(member.linkname, where)
            elif member.issym():
                _safe(member.linkname, where, path.rpartition("/")[0])
            elif not member.isfile() and not member.isdir():
                raise PackageError(f"{where} holds a device or a pipe: {member.name}", remedy="build it again without")
            if not member.isdir():
                yield path
        # What follows the last member is padding, and then the checksum of it all.
        while chunk := unzipped.read(1 << 20):
            left -= len(chunk)
            _check_size(0, left, where)


def _zip(data: bytes, where: str) -> Iterator[str]:
    left = MAX_UNPACKED
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for number, member in enumerate(archive.infolist()):
            left -= member.file_size
            _check_size(number, left, where)
            path = _safe(member.filename, where)
            if member.flag_bits & 1:
                raise PackageError(f"{where} is encrypted", remedy="build it again without a password")
            if not member.is_dir():
                yield path


def _check_size(number: int, left: int, where: str) -> None:
    if number >= MAX_MEMBERS or left < 0:
        raise PackageError(
            f"{where} holds more than {MAX_MEMBERS} files or {MAX_UNPACKED >> 30} GiB",
            remedy="keep data in the bucket, and give its gs:// path in args",
        )


def _safe(name: str, where: str, folder: str = "") -> str:
    """The normal form of a member's name, or of a link's target as seen from ``folder``."""
    parts = [part for part in folder.split("/") if part]
    leaves = name.startswith("/") or "\\" in name or "\0" in name
    for part in name.split("/"):
        if part == "..":
            leaves = leaves or not parts
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    if leaves:
        raise PackageError(
            f"{where} would write outside its directory: {name!r}", remedy="do not use it; build the package again"
        )
    return "/".join(parts)

"""Lists the content of an sdist or a wheel without unpacking it, and refuses unsafe archives.

This module reads the names, types and sizes of members, and the metadata. Except for the platform of a wheel, it does
not check that the package can be installed.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import IO

from mlengine.core.errors import PackageError

SUFFIXES = (".tar.gz", ".zip", ".whl")
MAX_MEMBERS = 50_000
MAX_UNPACKED = 2 << 30
MAX_METADATA = 4 << 20

_SDIST = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*?)-(?P<version>[0-9][A-Za-z0-9._+!-]*)")
_METADATA = re.compile(r"[^/]+/PKG-INFO|[^/]+\.dist-info/METADATA")
_WHEEL_DATA = re.compile(r"^[^/]+\.data/(purelib|platlib)/")
_WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-[0-9][^-]*)?-[^-]+-[^-]+-[^-]+")


@dataclass(frozen=True)
class Archive:
    """The content of an sdist or a wheel.

    :param paths: its files: relative to the top directory of an sdist; for a wheel, relative to ``site-packages``.
    :param requirements: ``Requires-Dist`` in its metadata; an sdist of an old build backend may not have it.
    """

    filename: str
    name: str
    version: str
    paths: frozenset[str]
    requirements: tuple[str, ...] = ()

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")


_Member = tuple[str, Callable[[], bytes]]  # path in the archive, and a function that reads the file


def name_and_version(filename: str) -> tuple[str, str]:
    """Parse the file name of a package, as installers do.

    :raises PackageError: ``filename`` is not the name of an sdist or a wheel.
    """
    suffix = next((suffix for suffix in SUFFIXES if filename.endswith(suffix)), None)
    if suffix is None:
        raise PackageError(f"{filename} is not a package", hint=f"give an sdist or a wheel: {', '.join(SUFFIXES)}")
    match = (_WHEEL if suffix == ".whl" else _SDIST).fullmatch(filename.removesuffix(suffix))
    if match is None:
        pattern = "NAME-VERSION-py3-none-any.whl" if suffix == ".whl" else f"NAME-VERSION{suffix}"
        raise PackageError(
            f"{filename} is not a valid name for a package", hint=f"installers need {pattern}: build it with uv build"
        )
    return match["name"], match["version"]


def read_archive(data: bytes, filename: str, where: str, *, any_name: bool = False) -> Archive:
    """Read the content of an archive.

    :param where: the archive's name in error messages.
    :param any_name: whether to accept a name without a version, such as ``trainer.tar.gz``, as installers do.
    :raises PackageError: the archive is not readable, is not a package, or would write outside its own directory.
    """
    name, version = ("", "") if any_name and filename.endswith(SUFFIXES) else name_and_version(filename)
    requirements: tuple[str, ...] = ()
    members = []
    with readable(where):
        for path, read in _tar(data, where) if filename.endswith(".tar.gz") else _zip(data, where):
            members.append(path)
            if _METADATA.fullmatch(path):
                requirements = _requirements(read())
    paths = frozenset(members)
    if filename.endswith(".whl"):
        if not any(path.endswith(".dist-info/METADATA") for path in paths):
            raise PackageError(f"{where} is not a wheel: no .dist-info/METADATA in it", hint="uv build --wheel")
        return Archive(filename, name, version, frozenset(_installed(path) for path in paths), requirements)
    tops = {path.split("/", 1)[0] for path in paths}
    inner = frozenset(path.split("/", 1)[1] for path in paths if "/" in path)
    if len(tops) != 1 or inner.isdisjoint({"pyproject.toml", "setup.py"}):
        raise PackageError(
            f"{where} is not an sdist: no single directory with a pyproject.toml or setup.py",
            hint="build it with uv build --sdist, or give the directory itself",
        )
    return Archive(filename, name, version, inner, requirements)


def check_tags(filename: str, where: str) -> None:
    """Check that a wheel is for Python 3 on Linux. Which version of Python 3 runs the job is not known here.

    :raises PackageError: no job can install the wheel.
    """
    if not filename.endswith(".whl") or _WHEEL.fullmatch(filename.removesuffix(".whl")) is None:
        return
    pythons, _, platforms = filename.removesuffix(".whl").rsplit("-", 3)[1:]
    if all(re.match(r"[a-z]+2", python) for python in pythons.split(".")):
        raise PackageError(f"{where} is a wheel for Python 2", hint="build it with Python 3, or give the sdist")
    if not any(platform == "any" or "linux" in platform for platform in platforms.split(".")):
        raise PackageError(
            f"{where} is a wheel for {platforms}, and jobs run on Linux", hint="build it on Linux, or give the sdist"
        )


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Convert errors while an archive is read.

    :raises PackageError: the archive could not be read.
    """
    try:
        yield
    except PackageError:
        raise
    except Exception as error:  # zipfile, tarfile and the decompressors raise various errors for invalid data
        raise PackageError(f"{where} cannot be read: {error}", hint="build it again, or upload it again") from error


def _requirements(metadata: bytes) -> tuple[str, ...]:
    """``Requires-Dist`` in the metadata. The metadata is UTF-8, which the parser for bytes does not decode."""
    return tuple(HeaderParser().parsestr(metadata.decode("utf-8", "replace")).get_all("Requires-Dist", []))


def _installed(path: str) -> str:
    """The path in ``site-packages`` of a file in a wheel."""
    return _WHEEL_DATA.sub("", path)


def _tar(data: bytes, where: str) -> Iterator[_Member]:
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
                raise PackageError(f"{where} contains a device or a pipe: {member.name}", hint="build it again without")
            if not member.isdir():
                yield path, lambda member=member: _read(archive.extractfile(member), member.size)  # type: ignore[misc]
        # Padding and the checksum of the whole file follow the last member; reading them verifies the checksum.
        while chunk := unzipped.read(1 << 20):
            left -= len(chunk)
            _check_size(0, left, where)


def _zip(data: bytes, where: str) -> Iterator[_Member]:
    left = MAX_UNPACKED
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for number, member in enumerate(archive.infolist()):
            left -= member.file_size
            _check_size(number, left, where)
            path = _safe(member.filename, where)
            if member.flag_bits & 1:
                raise PackageError(f"{where} is encrypted", hint="build it again without a password")
            if not member.is_dir():
                yield path, lambda member=member: _read(archive.open(member), member.file_size)  # type: ignore[misc]


def _read(stream: IO[bytes] | None, size: int) -> bytes:
    if stream is None or size > MAX_METADATA:
        return b""
    with stream:
        return stream.read(MAX_METADATA)


def _check_size(number: int, left: int, where: str) -> None:
    if number >= MAX_MEMBERS or left < 0:
        raise PackageError(
            f"{where} contains more than {MAX_MEMBERS} files or {MAX_UNPACKED >> 30} GiB",
            hint="keep data in the bucket, and give its gs:// path in args",
        )


def _safe(name: str, where: str, folder: str = "") -> str:
    """Normalize the name of a member, or the target of a link relative to ``folder``."""
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
            f"{where} would write outside its directory: {name!r}", hint="do not use it; build the package again"
        )
    return "/".join(parts)

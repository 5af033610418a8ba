"""``constraints.txt`` at the root of an sdist: the versions its author trained with, for all it depends on.

An sdist names what it needs loosely; without this, the same sdist makes another environment every month.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from mlengine.core.errors import EnvironmentBuildError

NAME = "constraints.txt"
_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")
_MOST_BYTES = 1 << 20


def write(packages: Sequence[Path], folder: Path) -> list[Path]:
    """Write the constraints of each package into ``folder``; returns the files."""
    written = []
    for number, package in enumerate(packages):
        content = read(package)
        if content is not None:
            target = folder / f"constraints-{number}.txt"
            target.write_bytes(content)
            written.append(target)
    return written


def read(package: Path) -> bytes | None:
    """The content of ``<name>-<version>/constraints.txt``; ``None`` if there is none, as in every wheel.

    :raises EnvironmentBuildError: if the archive is not readable.
    """
    try:
        if package.name.endswith(".zip"):
            return _from_zip(package)
        if package.name.endswith(_TARS):
            return _from_tar(package)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise EnvironmentBuildError(
            f"{package.name} is not a readable archive: {error}", remedy="package the trainer again"
        ) from error
    return None


def _from_zip(package: Path) -> bytes | None:
    with zipfile.ZipFile(package) as archive:
        for info in archive.infolist():
            if _is_constraints(info.filename) and info.file_size <= _MOST_BYTES:
                return archive.read(info)
    return None


def _from_tar(package: Path) -> bytes | None:
    with tarfile.open(package) as archive:
        for member in archive:
            if member.isfile() and _is_constraints(member.name) and member.size <= _MOST_BYTES:
                file = archive.extractfile(member)
                return None if file is None else file.read()
    return None


def _is_constraints(name: str) -> bool:
    parts = name.removeprefix("./").split("/")
    return len(parts) == 2 and parts[1] == NAME

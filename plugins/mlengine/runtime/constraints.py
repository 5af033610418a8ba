"""Reads ``constraints.txt`` at the root of an sdist: exact versions of all dependencies.

The metadata of an sdist allows ranges of versions; without this file, the same sdist gives a different environment
every month.

This module uses the standard library only, and nothing newer than Python 3.8, because the start command of a container
(:mod:`mlengine.backends.vertex.bootstrap`) includes this source, so that constraints have the same effect there.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

from mlengine.runtime.constraint_lines import FREEZE, ConstraintsError, File, Line, normal_name, parse

NAME = "constraints.txt"
MAX_BYTES = 4 << 20
_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")


class Constraints(NamedTuple):
    """The merged constraints of all packages.

    ``text`` is accepted by pip and uv, and empty if there are no constraints; ``notes`` list ignored lines.
    """

    text: str
    notes: list[str]


def of_packages(packages: Iterable[Path]) -> Constraints:
    """The constraints of packages that are installed together.

    :raises ConstraintsError: a file is not readable, has a line that cannot be used, or contradicts another.
    """
    files = []
    installed = set()
    for path in packages:
        installed.add(package_name(path.name))
        with path.open("rb") as stream:
            content = read(path.name, stream)
        if content is not None:
            files.append(File(f"{path.name}: {NAME}", content))
    return merge(files, installed)


def merge(files: Iterable[File], installed: set[str]) -> Constraints:
    """Merge several files into one set of constraints.

    :param installed: names of the packages that are installed themselves; lines about them are ignored.
    :raises ConstraintsError: a line cannot be used, or contradicts another; the message names file and line.
    """
    notes: list[str] = []
    seen: dict[tuple[str, str], Line] = {}
    texts: list[str] = []
    for file in files:
        for line in parse(file, installed, notes):
            key = (line.subject, "" if line.value else line.text)
            first = seen.setdefault(key, line)
            if first.value != line.value:
                raise ConstraintsError(
                    f"{line.where} has {line.text}, and {first.where} has {first.text}",
                    "packages that are installed together need one version of it: change one of the files",
                )
            if line.text not in texts:
                texts.append(line.text)
    return Constraints("".join(f"{text}\n" for text in texts), notes)


def package_name(filename: str) -> str:
    """The normalized project name from the file name of an sdist or a wheel."""
    if filename.endswith(".whl"):
        return normal_name(filename.split("-", maxsplit=1)[0])
    for suffix in (*_TAR_SUFFIXES, ".zip"):
        if filename.endswith(suffix):
            filename = filename[: -len(suffix)]
            break
    return normal_name(filename.rpartition("-")[0] or filename)


def read(filename: str, file: IO[bytes], where: str = "") -> bytes | None:
    """The content of ``<name>-<version>/constraints.txt``; ``None`` if there is none, as in every wheel.

    :param filename: the file name of the sdist or wheel.
    :param file: the sdist or wheel.
    :param where: the name of the sdist or wheel in error messages; by default ``filename``.
    :raises ConstraintsError: the archive is not readable, or the file in it is too large.
    """
    try:
        if filename.endswith(".zip"):
            return _from_zip(where or filename, file)
        if filename.endswith(_TAR_SUFFIXES):
            return _from_tar(where or filename, file)
    except ConstraintsError:
        raise
    except Exception as error:  # zipfile, tarfile and the decompressors raise various errors for invalid data
        raise ConstraintsError(
            f"{where or filename} is not a readable archive: {error}", "package the trainer again"
        ) from error
    return None


def _from_zip(where: str, file: IO[bytes]) -> bytes | None:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if _is_constraints(info.filename):
                _check_size(where, info.file_size)
                return archive.read(info)
    return None


def _from_tar(where: str, file: IO[bytes]) -> bytes | None:
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            if member.isfile() and _is_constraints(member.name):
                _check_size(where, member.size)
                content = archive.extractfile(member)
                return None if content is None else content.read()
    return None


def _is_constraints(name: str) -> bool:
    parts = (name[2:] if name.startswith("./") else name).split("/")
    return len(parts) == 2 and parts[1] == NAME


def _check_size(where: str, size: int) -> None:
    if size > MAX_BYTES:
        raise ConstraintsError(f"{where}: {NAME} has {size} bytes, {MAX_BYTES} at most", FREEZE)

"""Checks ``Requires-Python`` of packages, and the tags of wheels.

uv checks only the lower bound, and pip checks both. A package that is refused in the cloud must not be installed here.
``Requires-Python`` of dependencies is checked once they are installed.
"""

from __future__ import annotations

import re
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path
from typing import IO, Any


class UnreadableArchiveError(Exception):
    """A file is not an archive, or is damaged."""


def required(filename: str, file: IO[bytes]) -> str | None:
    """The ``Requires-Python`` of an sdist or a wheel, such as ``>=3.8,<3.12``; ``None`` if it has none.

    An archive without metadata, such as the download of a repository, has it in ``pyproject.toml``.

    :raises UnreadableArchiveError: the file is not an archive, or is damaged.
    """
    found = dict(metadata_files(filename, file))
    if not found:
        return None
    # This is the metadata of the package itself, not of a package that it contains.
    name = min(found, key=lambda name: (name.count("/"), name.endswith("pyproject.toml")))
    text = found[name].decode("utf-8", "replace")
    value = _of_pyproject(text) if name.endswith("pyproject.toml") else HeaderParser().parsestr(text)["Requires-Python"]
    return str(value) if value else None


def accepts(wanted: str, *versions: str) -> bool:
    """Whether one of ``versions`` is accepted. An invalid specifier accepts all."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        specifiers = SpecifierSet(wanted)
    except InvalidSpecifier:
        return True
    return any(specifiers.contains(version, prereleases=True) for version in versions)


def wheel_accepts(filename: str, version: str) -> bool:
    """Whether a wheel is for this version of CPython, such as ``3.11``, by its file name.

    An sdist is for all, and so is a file whose name is not that of a wheel: the installer refuses it.
    """
    tags = filename.rsplit("-", 3)
    if not filename.endswith(".whl") or len(tags) < 4:
        return True
    pythons, abis = tags[1:3]
    minor = int(version.split(".")[1])
    for tag in pythons.split("."):
        found = re.fullmatch(r"(py|cp)3(\d*)", tag)
        if found is None:
            continue
        least = int(found[2] or 0)
        if least == minor or (least < minor and (found[1] == "py" or "abi3" in abis.split("."))):
            return True
    return False


def excluded(folder: Path, version: str) -> list[str]:
    """The distributions in ``folder`` that do not accept this Python version, as ``name version (<3.11)``."""
    found = []
    for distribution in distributions(path=[str(folder)]):
        metadata = distribution.metadata
        # If importlib_metadata is imported, as by Airflow, a missing key raises KeyError.
        if "Requires-Python" in metadata and not accepts(wanted := metadata["Requires-Python"], version):
            found.append(f"{distribution.name} {distribution.version} ({wanted})")
    return sorted(found)


def metadata_files(filename: str, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """The metadata of an sdist or a wheel, and its ``pyproject.toml``: their paths and contents.

    :raises UnreadableArchiveError: the file is not an archive, or is damaged.
    """
    try:
        yield from _metadata_files(filename, file)
    except Exception as error:  # zipfile, tarfile and the decompressors raise various errors for invalid data
        raise UnreadableArchiveError(str(error) or type(error).__name__) from error


def _metadata_files(filename: str, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    if filename.endswith((".whl", ".zip")):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if _is_metadata(name):
                    yield name, archive.read(name)
        return
    with tarfile.open(fileobj=file) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and _is_metadata(member.name) else None
            if content is not None:
                yield member.name, content.read()


def _is_metadata(name: str) -> bool:
    return name.endswith((".dist-info/METADATA", "/PKG-INFO")) or (
        name.endswith("/pyproject.toml") and name.removeprefix("./").count("/") == 1
    )


def _of_pyproject(text: str) -> Any:
    try:
        return tomllib.loads(text).get("project", {}).get("requires-python")
    except (ValueError, AttributeError):
        return None

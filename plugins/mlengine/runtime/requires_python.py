"""Which versions of Python a package accepts, by its own metadata.

uv heeds the lower bound only, and pip both: what is refused in the cloud must not be installed here. What a package's
dependencies accept is known to the index alone; it shows when they are installed.
"""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path
from typing import IO, Any

# What reading an archive raises when it is none.
UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError)


def required(filename: str, file: IO[bytes]) -> str | None:
    """``Requires-Python`` of an sdist or a wheel, such as ``>=3.8,<3.12``; ``None`` if it has none.

    An archive without metadata of its own, as a repository's download is one, has it in ``pyproject.toml``.
    """
    found = dict(metadata_files(filename, file))
    if not found:
        return None
    # That of the package, not of one that lies within it.
    name = min(found, key=lambda name: (name.count("/"), name.endswith("pyproject.toml")))
    text = found[name].decode("utf-8", "replace")
    value = _of_pyproject(text) if name.endswith("pyproject.toml") else HeaderParser().parsestr(text)["Requires-Python"]
    return str(value) if value else None


def accepts(wanted: str, *versions: str) -> bool:
    """Whether one of ``versions`` will do. A requirement that is not readable is no reason to refuse."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        specifiers = SpecifierSet(wanted)
    except InvalidSpecifier:
        return True
    return any(specifiers.contains(version, prereleases=True) for version in versions)


def excluded(folder: Path, version: str) -> list[str]:
    """What is installed in ``folder`` although it does not accept this version of Python: ``name version (<3.11)``."""
    found = []
    for distribution in distributions(path=[str(folder)]):
        metadata = distribution.metadata
        # Where the importlib_metadata package is imported, as with Airflow, a missing key is a KeyError.
        if "Requires-Python" in metadata and not accepts(wanted := metadata["Requires-Python"], version):
            found.append(f"{distribution.name} {distribution.version} ({wanted})")
    return sorted(found)


def metadata_files(filename: str, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """The metadata of an sdist or a wheel, and its ``pyproject.toml``: their paths and contents."""
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

"""Determines the packages to build for the sources that a user names.

* A package dir in a project whose build packs it is packaged by that build, with its requirements, as gcloud did.
* A project's local requirements are packaged with it; see :mod:`mlengine.packaging.local_sources`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlengine.core.errors import PackageError
from mlengine.packaging.archive import name_and_version
from mlengine.packaging.local_sources import local_requirements
from mlengine.packaging.pyproject import build_backend, normalized, project_name, read_pyproject, table
from mlengine.packaging.source_tree import SourceKind, kind_of, unreadable

# Build backends that pack only configured packages, or the one with the project's name. Others search the directory.
_EXPLICIT = {"hatchling": "hatch", "uv_build": "uv", "flit_core": "flit", "poetry": "poetry"}


@dataclass(frozen=True)
class Source:
    """One source.

    :param location: a directory, an archive, or the URI of an archive in a bucket.
    :param parent: the project that contains a package dir, and whose build may pack it; ``None`` if there is none.
    """

    kind: SourceKind
    location: Path | str
    parent: Path | None = None


@dataclass(frozen=True)
class Sources:
    """All sources to package, the trainer first.

    :param notes: messages for the user.
    """

    items: tuple[Source, ...]
    notes: tuple[str, ...] = ()


def find_sources(named: Sequence[Path | str], requirements: Sequence[str]) -> Sources:
    """Find the sources to package for the user's list.

    :param requirements: the requirements of a package dir. If given, a project that contains it is ignored.
    :raises PackageError: the list is empty, a source cannot be read, or a local requirement cannot be packaged.
    """
    if not named:
        raise PackageError("no source to package", hint="give a package dir, a project dir, an sdist or a wheel")
    items = [_source(item, requirements) for item in named]
    names = {name for item in items for name in _names(item)}
    notes: list[str] = []
    for item in tuple(items):
        project = item.parent or item.location
        if item.kind is SourceKind.ARCHIVE or not isinstance(project, Path):
            continue
        local = local_requirements(project, names)
        there = {other.location for other in items}
        new = [_source(path, ()) for path in local.paths if path not in there]
        notes += local.notes
        notes += [f"{project} requires {other.location}, which is packaged too" for other in new]
        items += new
    return Sources(tuple(items), tuple(dict.fromkeys(notes)))


def _source(named: Path | str, requirements: Sequence[str]) -> Source:
    if isinstance(named, str) and named.startswith("gs://"):
        return Source(SourceKind.ARCHIVE, named)
    path = Path(named)
    try:
        kind = kind_of(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if requirements and kind is not SourceKind.PACKAGE:
        raise PackageError(
            f"requirements are given, but {path} is a project with its own requirements",
            hint="write them in its pyproject.toml, or give the package dir alone",
        )
    if kind is SourceKind.ARCHIVE:
        return Source(kind, path)
    path = path.resolve()
    parent = None if requirements or kind is SourceKind.PROJECT else _project_around(path)
    return Source(kind, path, parent)


def _project_around(package: Path) -> Path | None:
    """The project that contains a package dir, at its root or in ``src``, unless its build cannot pack it."""
    folders = [package.parent, package.parent.parent] if package.parent.name == "src" else [package.parent]
    for folder in folders:
        if (folder / "setup.py").is_file() or _is_built(folder):
            return folder if _may_pack(folder, package) else None
    return None


def folder_around(package: Path) -> Path:
    """The directory whose ``pyproject.toml`` describes a package dir, whether that file configures a build or not."""
    above = package.parent
    return above.parent if above.name == "src" and not (above / "pyproject.toml").is_file() else above


def _is_built(folder: Path) -> bool:
    """Whether a ``pyproject.toml`` configures a build. Many only list the requirements of an application."""
    data = read_pyproject(folder)
    return "build-system" in data or table(data, "tool", "uv").get("package") is True


def _may_pack(project: Path, package: Path) -> bool:
    data = read_pyproject(project)
    section = _EXPLICIT.get(build_backend(data))
    if section is None or (project / "setup.py").is_file():
        return True
    settings = json.dumps(table(data, "tool", section))
    named = re.search(rf"(?<![\w.-]){re.escape(package.name)}(?![\w.-])", settings)
    return bool(named) or normalized(project_name(data) or "") == normalized(package.name)


def _names(source: Source) -> Iterator[str]:
    """The normalized name of the distribution that is built from a source, if known."""
    location = source.parent or source.location
    if source.kind is SourceKind.ARCHIVE:
        yield normalized(name_and_version(str(location).rsplit("/", 1)[-1])[0])
    elif isinstance(location, Path):
        yield normalized(project_name(read_pyproject(location)) or location.name)

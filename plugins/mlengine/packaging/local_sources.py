"""Local sources of a project's requirements: ``[tool.uv.sources]`` and poetry's path dependencies.

An sdist does not contain these tables: its metadata has only the requirement's name, which an installer looks up in an
index. So a workspace member or a project at a path is packaged too, and installed with the trainer. A source that
cannot be packaged is refused; otherwise the installer would fetch a package of that name from an index, where anybody
may have registered it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from mlengine.core.errors import PackageError
from mlengine.packaging.pyproject import normalized, project_name, read_pyproject, strings, table

# Keys that name a source other than the default index. ``source`` is poetry's name of an index.
_ELSEWHERE = frozenset({"path", "workspace", "git", "url", "index", "source"})


@dataclass(frozen=True)
class LocalRequirements:
    """Requirements of a project that no index provides.

    :param paths: local projects and archives to package too, direct requirements first.
    :param notes: messages for the user.
    """

    paths: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Search:
    given: Collection[str]
    paths: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: set[tuple[Path, frozenset[str]]] = field(default_factory=set)


@dataclass(frozen=True)
class _Source:
    """An entry of a table with sources, and the directory of its file."""

    entry: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class _Requirement:
    """A requirement that has a source."""

    project: Path
    workspace: Path | None
    name: str
    source: _Source


def local_requirements(project: Path, given: Collection[str] = ()) -> LocalRequirements:
    """Find the local requirements of a project, and recursively those of the requirements.

    :param given: normalized names of distributions that are packaged anyway because the user listed them.
    :raises PackageError: a requirement is from git or a URL and cannot be packaged, or a build requirement is not in an
        index.
    """
    project = project.resolve()
    search = _Search({*given, normalized(project_name(read_pyproject(project)) or "")})
    _visit(project, frozenset(), search)
    return LocalRequirements(tuple(search.paths), tuple(search.notes))


def _visit(project: Path, extras: frozenset[str], search: _Search) -> None:
    pyproject = read_pyproject(project)
    workspace = _workspace(project)
    sources = {**(_sources(workspace) if workspace else {}), **_sources(project)}
    if not sources:
        return
    for name in _build_requirements(pyproject):
        if name in sources and not all(_index(source) for source in sources[name]):
            raise PackageError(
                f"{project}: its build requires {name} from {_where(sources[name][0])}, which the job's machine "
                "does not have",
                hint=f"publish {name} to an index, or package a wheel of {project.name}: uv build --wheel {project}",
            )
    for name, more in _requirements(pyproject, extras, sources):
        for source in sources.get(name, ()) if name not in search.given else ():
            path = _add(_Requirement(project, workspace, name, source), search)
            if path is not None and path.is_dir() and (path, more) not in search.seen:
                search.seen.add((path, more))
                _visit(path, more, search)


def _add(requirement: _Requirement, search: _Search) -> Path | None:
    """Record the path to package for one requirement, and return it if there is one."""
    project, name, source = requirement.project, requirement.name, requirement.source
    if _index(source):
        note = (
            f"{project} takes {name} from the index {_index(source)!r}; where the job runs, uv and pip look it "
            "up in the indexes of their own settings (UV_INDEX, PIP_EXTRA_INDEX_URL)"
        )
        if note not in search.notes:
            search.notes.append(note)
        return None
    path = _path(requirement)
    if path is None:
        raise PackageError(
            f"{project} takes {name} from {_where(source)}, but its sdist has only the name: it would "
            "come from an index",
            hint=f"{_as_reference(source, name)}; or package a copy of it too: a list of sources, the trainer first",
        )
    if path not in search.paths:
        search.paths.append(path)
    return path


def _path(requirement: _Requirement) -> Path | None:
    """The directory or archive that a source names; ``None`` if the source is not local.

    :raises PackageError: the path does not exist.
    """
    source, name, workspace = requirement.source, requirement.name, requirement.workspace
    entry = source.entry
    if isinstance(entry.get("path"), str):
        path: Path = (source.folder / entry["path"]).resolve()
        if not path.exists():
            raise PackageError(
                f"{source.folder}: pyproject.toml has {name} at {path}, which does not exist",
                hint="correct the path",
            )
        return path
    if entry.get("workspace") is not True:
        return None
    for member in _members(workspace) if workspace else ():
        if normalized(project_name(read_pyproject(member)) or "") == name:
            return member
    raise PackageError(
        f"{source.folder}: {name} is not a member of the workspace {workspace or '(there is none)'}",
        hint="correct 'members' of [tool.uv.workspace], or [tool.uv.sources]",
    )


def _workspace(project: Path) -> Path | None:
    """The root of the uv workspace that a project is a member of.

    As in uv, it is the project itself, or the nearest directory above it with a ``pyproject.toml``; no others are read.
    """
    above = next((folder for folder in project.parents if (folder / "pyproject.toml").is_file()), project)
    for folder in (project, above):
        if "workspace" in table(read_pyproject(folder), "tool", "uv") and project in _members(folder):
            return folder
    return None


def _members(workspace: Path) -> list[Path]:
    excluded = set(_matching(workspace, "exclude"))
    found = [workspace, *(path for path in _matching(workspace, "members") if path not in excluded)]
    return [path.resolve() for path in found if (path / "pyproject.toml").is_file()]


def _matching(workspace: Path, key: str) -> Iterator[Path]:
    """The paths that match the patterns of ``[tool.uv.workspace]`` under a key.

    :raises PackageError: a pattern cannot be used.
    """
    for pattern in strings(table(read_pyproject(workspace), "tool", "uv", "workspace").get(key)):
        try:
            found = _glob(workspace, PurePath(pattern))
        except (OSError, ValueError) as error:
            raise PackageError(
                f"{workspace / 'pyproject.toml'}: {key!r} of [tool.uv.workspace] has an invalid pattern {pattern!r}: "
                f"{error}",
                hint="correct the pattern",
            ) from error
        yield from found


def _glob(folder: Path, pattern: PurePath) -> list[Path]:
    """Like ``folder.glob()``, but accepts ``.`` and absolute patterns, as uv does.

    :raises ValueError: ``**`` is part of a name. uv refuses this; whether ``glob`` does depends on Python's version.
    """
    if any("**" in part and part != "**" for part in pattern.parts):
        raise ValueError("'**' can only be an entire path component")
    start, rest = folder / pattern.anchor, pattern.relative_to(pattern.anchor)
    return sorted(start.glob(str(rest))) if rest.parts else [start]


def _sources(folder: Path) -> dict[str, list[_Source]]:
    """The entries with sources, by normalized name. A name may have several entries, for different platforms."""
    pyproject = read_pyproject(folder)
    named = dict(table(pyproject, "tool", "uv", "sources"))
    if table(pyproject, "project"):  # without it poetry writes paths and URLs into the metadata
        named |= table(pyproject, "tool", "poetry", "dependencies")
    found = {}
    for name, value in named.items():
        entries = [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, Mapping)]
        sources = [_Source(entry, folder) for entry in entries if not _ELSEWHERE.isdisjoint(entry)]
        if sources:
            found[normalized(name)] = sources
    return found


def _requirements(
    pyproject: Mapping[str, Any], extras: frozenset[str], sources: Mapping[str, Any]
) -> Iterator[tuple[str, frozenset[str]]]:
    """The required names with their extras. If the requirements are dynamic, these are all names with a source."""
    project = table(pyproject, "project")
    if not project or "dependencies" in strings(project.get("dynamic")):
        yield from ((name, frozenset[str]()) for name in sources)
    own = normalized(project_name(pyproject) or "")
    pending = list(strings(project.get("dependencies")))
    groups = {normalized(name): strings(value) for name, value in table(project, "optional-dependencies").items()}
    for extra in extras:
        pending += groups.pop(extra, [])
    while pending:
        requirement = _parsed(pending.pop(0))
        if requirement is None or requirement.url:
            continue
        more = frozenset(map(normalized, requirement.extras))
        if normalized(requirement.name) != own:
            yield normalized(requirement.name), more
        for extra in more if normalized(requirement.name) == own else ():
            pending += groups.pop(extra, [])


def _build_requirements(pyproject: Mapping[str, Any]) -> list[str]:
    requirements = map(_parsed, strings(table(pyproject, "build-system").get("requires")))
    return [normalized(requirement.name) for requirement in requirements if requirement]


def _parsed(text: str) -> Requirement | None:
    """The parsed requirement; ``None`` if it is not valid, which the build reports."""
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def _index(source: _Source) -> str:
    return str(source.entry.get("index") or source.entry.get("source") or "")


def _where(source: _Source) -> str:
    kinds = ("git", "url", "path")
    return next((f"{kind} {source.entry[kind]}" for kind in kinds if kind in source.entry), "the workspace")


def _as_reference(source: _Source, name: str) -> str:
    """The equivalent requirement for the metadata of an sdist."""
    entry = source.entry
    if "git" in entry:
        revision = next((f"@{entry[key]}" for key in ("rev", "tag", "branch") if isinstance(entry.get(key), str)), "")
        url = re.sub(r"^(?!git\+)", "git+", str(entry["git"])) + revision
    else:
        url = str(entry.get("url", "URL"))
    if isinstance(entry.get("subdirectory"), str):
        url += f"#subdirectory={entry['subdirectory']}"
    return f"write \"{name} @ {url}\" in 'dependencies'"

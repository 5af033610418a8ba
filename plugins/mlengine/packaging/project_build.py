"""Builds a project with its own build backend: an sdist from a copy of its directory, and a wheel from that sdist.

The wheel is only a test and is not kept. The job's machine will build the same wheel, so problems are found here first:
a ``setup.py`` that reads a file which is not in the sdist, a version that needs git, a module that is not installed.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from mlengine.core.errors import PackageError
from mlengine.packaging import build as builder
from mlengine.packaging.archive import Archive, read_archive
from mlengine.packaging.build_failure import NO_GIT, fails_anywhere, failure, sdist_failure
from mlengine.packaging.git_repository import GitError, NoRepository, Repository, find_repository
from mlengine.packaging.project_copy import copy_project
from mlengine.packaging.project_inputs import uses_git, version_variable
from mlengine.packaging.source_tree import SourceTree
from mlengine.runtime.constraints import NAME


@dataclass(frozen=True)
class BuiltProject:
    """The sdist of a project, and the content of its wheel.

    :param wheel: the content of the wheel; ``None`` if this machine cannot build it.
    :param notes: messages for the user.
    """

    sdist: Path
    wheel: Archive | None
    notes: tuple[str, ...] = ()


def build_project(tree: SourceTree, work: Path) -> BuiltProject:
    """Build a project below the empty directory ``work``.

    :raises PackageError: the build failed; the error has the builder's output and a hint.
    """
    repository = find_repository(tree.root)
    without_git = _without_git(tree.root, repository)
    source = _copy(tree, work, repository, required=uses_git(tree.root))
    built = builder.build("sdist", source, work / "out", _shown(tree, repository, source))
    if built.archive is None:
        raise failure(built, tree.root, tree=tree, without_git=without_git)
    add_constraints(source, built.archive)
    wheel, notes = _build_wheel(tree, built.archive, source, work)
    if without_git:
        notes = (f"{tree.root}: {without_git}. Its version, and files that only git lists, may be wrong", *notes)
    return BuiltProject(built.archive, wheel, notes)


def _copy(tree: SourceTree, work: Path, repository: Repository | NoRepository, *, required: bool) -> Path:
    """Copy the project, with a ``.git`` directory if git can read the repository.

    :raises GitError: git cannot read the repository, and the build requires it (``required``).
    """
    (work / "tree").mkdir()
    try:
        return copy_project(tree, work / "tree", repository)
    except GitError as error:
        if required:
            raise
        (work / "plain").mkdir()
        return copy_project(tree, work / "plain", NoRepository(error.words))


def add_constraints(source: Path, sdist: Path) -> None:
    """Add the project's ``constraints.txt`` to the root of the sdist if the build left it out, as most builds do."""
    constraints = source / NAME
    whole = sdist.with_name(f"{sdist.name}.whole")
    with tarfile.open(sdist) as old:
        members = old.getmembers()
        top = members[0].name.split("/")[0]
        if not constraints.is_file() or f"{top}/{NAME}" in {member.name for member in members}:
            return
        with tarfile.open(whole, "w:gz") as new:
            for member in members:
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
            info = tarfile.TarInfo(f"{top}/{NAME}")
            info.size, info.mode = constraints.stat().st_size, 0o644
            new.addfile(info, io.BytesIO(constraints.read_bytes()))
    whole.replace(sdist)


def _build_wheel(tree: SourceTree, sdist: Path, source: Path, work: Path) -> tuple[Archive | None, tuple[str, ...]]:
    """Build the wheel of an sdist, and return its content.

    The content is ``None`` if an extension module needs a compiler or headers that this machine does not have; the
    job's machine may have them. Such a build fails in its last step, and also fails from the directory.
    """
    built = builder.build("wheel", sdist, work / "wheel", {sdist: sdist.name})
    if built.archive is not None:
        filename = built.archive.name
        return read_archive(built.archive.read_bytes(), filename, filename), ()
    packed = read_archive(sdist.read_bytes(), sdist.name, sdist.name).paths
    if built.failed_hook == "build_wheel" and not fails_anywhere(built.output):
        again = builder.build("wheel", source, work / "again", {})
        if again.archive is None:
            note = f"{sdist.name}: this machine could not build a wheel of it; the job's machine has to: "
            return None, (note + _last_line(built.output),)
    raise _versions_differ(built, tree) or sdist_failure(built, tree, sdist.name, packed)


def _versions_differ(built: builder.Build, tree: SourceTree) -> PackageError | None:
    line = next((line for line in built.output.splitlines() if "but the wheel declares version" in line), None)
    if line is None:
        return None
    return PackageError(
        f"{tree.root}: {line.partition('cause:')[2].strip()}, so it cannot be installed",
        hint=NO_GIT,
    )


def _without_git(root: Path, repository: Repository | NoRepository) -> str:
    """The error text for a build that needs git if there is no repository; empty if there is no problem."""
    if not isinstance(repository, NoRepository) or not uses_git(root):
        return ""
    variable = version_variable(root)
    instead = f", or set {variable} in the environment of this process" if variable else ""
    return f"the build needs git, but {repository.reason}: package from a clone of the repository{instead}"


def _shown(tree: SourceTree, repository: Repository | NoRepository, source: Path) -> dict[Path, Path | str]:
    shown: dict[Path, Path | str] = {source: tree.root}
    if isinstance(repository, Repository) and repository.prefix.parts:
        shown[source.parents[len(repository.prefix.parts) - 1]] = repository.top
    return shown


def _last_line(output: str) -> str:
    """The last line of the build itself; the lines after it are uv's."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("hint:")]
    end = next((number for number, line in enumerate(lines) if line.startswith("error: Failed to build")), None)
    lines = lines[:end] or lines
    return lines[-1] if lines else "no output"

"""Copies a project for its build, together with the files around it that affect the build.

The copy has the same path within its repository as the project. The directories above it contain the ignore files that
apply to the project (hatchling and git read them), but none that belong to the temporary directory.
:mod:`mlengine.packaging.git_repository` adds the ``.git`` directory.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mlengine.core.errors import PackageError
from mlengine.packaging.git_repository import NoRepository, Repository
from mlengine.packaging.source_tree import SourceTree, scan

# Ignore files, and the markers of a repository's root, where hatchling stops its search for ignore files.
_IGNORE_FILES = {".gitignore": ".git", ".hgignore": ".hg"}
_GIT_FILES = (".gitignore", ".gitattributes")


def copy_tree(tree: SourceTree, target: Path) -> None:
    """Copy the files of the tree.

    :raises PackageError: the tree has changed since its digest was computed.
    """
    for file in tree.files:
        copy = target / file.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(tree.root / file.path, copy)
        except OSError as error:
            raise _changed(tree.root, file.path) from error
        copy.chmod(0o755 if file.executable else 0o644)
    copied = {file.path: file for file in scan(target).files}
    for file in tree.files:
        if copied.get(file.path) != file:
            raise _changed(tree.root, file.path)


def copy_project(tree: SourceTree, base: Path, repository: Repository | NoRepository) -> Path:
    """Copy a project into the empty directory ``base``, and return the copy's directory.

    :raises PackageError: the tree has changed since its digest was computed.
    """
    project = base / (tree.root.name or "project")
    if isinstance(repository, Repository):
        top = base / (repository.top.name or "repository")
        project = top / repository.prefix
        copy_tree(tree, project)
        _copy_git_files(repository, top)
        repository.link(top)
    else:
        copy_tree(tree, project)
    for name, marker in _IGNORE_FILES.items():
        if not _find(project, name, base):
            found = ignore_file_above(tree.root, name)
            if found is not None:
                shutil.copyfile(found, base / name)
            else:
                (base / marker).mkdir()  # hatchling stops here; git ignores an empty .git directory
    return project


def ignore_file_above(project: Path, name: str) -> Path | None:
    """The ignore file in a directory above ``project`` that hatchling applies to it, if any.

    hatchling uses the nearest one. It stops at the root of a repository; without a repository, it searches up to ``/``.
    """
    for folder in (project, *project.parents):
        if (folder / name).is_file():
            return None if folder == project else folder / name
        if (folder / _IGNORE_FILES[name]).exists():
            return None
    return None


def _find(project: Path, name: str, base: Path) -> bool:
    """Whether there is an ignore file or a repository's root between ``project`` and ``base``, ``base`` excluded."""
    folders = (project, *project.parents)
    below = folders[: folders.index(base)]
    return any((folder / name).is_file() or (folder / _IGNORE_FILES[name]).exists() for folder in below)


def _copy_git_files(repository: Repository, top: Path) -> None:
    """Copy git's ignore files from the directories between the root and the project."""
    for above in repository.prefix.parents:
        for name in _GIT_FILES:
            source = repository.top / above / name
            if source.is_file() and not (top / above / name).exists():
                shutil.copyfile(source, top / above / name)


def _changed(root: Path, path: str) -> PackageError:
    return PackageError(
        f"{root / path} changed while it was packaged", hint="run again when the directory is not being written to"
    )

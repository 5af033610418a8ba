"""Checks on the wheel of a project before a job is submitted; the job's machine installs the same wheel."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

from mlengine.core.errors import PackageError
from mlengine.packaging.archive import Archive
from mlengine.packaging.modules import check_module
from mlengine.packaging.source_tree import LeftOut, SourceTree

NOT_INSTALLED = "in the project, but not in its wheel"


def check_wheel(wheel: Archive, tree: SourceTree, module: str | None) -> None:
    """Check that the job's module is in the wheel, and that no requirement is a local path.

    :raises PackageError: with the module or the requirement.
    """
    for requirement in wheel.requirements:
        name, _, url = requirement.partition("@")
        if url.strip().lower().startswith("file:"):
            raise PackageError(
                f"{tree.root} requires {name.strip()} at a local path, which the job's machine does not have",
                hint=f"require {name.strip()} by name, and package both: a list of sources, the trainer first",
            )
    if module is not None:
        where = f"{wheel.filename}, which {tree.root} builds"
        check_module(module, wheel.paths, where, wheel.requirements, installed=True)


def holds_package(wheel: Archive, package: str) -> bool:
    """Whether a wheel contains the package dir ``package``."""
    return any(path.startswith(f"{package}/") for path in wheel.paths)


def left_out_by_build(wheel: Archive, tree: SourceTree) -> tuple[LeftOut, ...]:
    """Files of the wheel's packages that are in the project but not in the wheel, such as data files."""
    return tuple(LeftOut(path, NOT_INSTALLED) for path in sorted(_not_installed(wheel.paths, tree.paths)))


def _not_installed(installed: Collection[str], paths: Collection[str]) -> Iterator[str]:
    folders = {folder for path in installed if path.endswith(".py") for folder in _package_roots(path, paths)}
    for prefix, package in folders:
        for path in paths:
            if path.startswith(f"{prefix}{package}/") and path.removeprefix(prefix) not in installed:
                yield path


def _package_roots(module: str, paths: Collection[str]) -> Iterator[tuple[str, str]]:
    """The location in the project of an installed module's top package, such as ``("src/", "trainer")``."""
    package = PurePosixPath(module).parts[0]
    for path in paths:
        if path == module or path.endswith(f"/{module}"):
            yield path.removesuffix(module), package

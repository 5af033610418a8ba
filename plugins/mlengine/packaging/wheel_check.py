"""What the wheel of a project shows before a job is submitted: the job's machine installs the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

from mlengine.core.errors import PackageError
from mlengine.packaging.archive import Archive
from mlengine.packaging.modules import check_module
from mlengine.packaging.source_tree import LeftOut, SourceTree

NOT_INSTALLED = "in the project, and not in the wheel that it builds"


def check_wheel(wheel: Archive, tree: SourceTree, module: str | None) -> None:
    """Check that the module to run is installed, and that nothing is required from a directory of this machine.

    :raises PackageError: naming the module or the requirement.
    """
    for requirement in wheel.requirements:
        name, _, url = requirement.partition("@")
        if url.strip().lower().startswith("file:"):
            raise PackageError(
                f"{tree.root} requires {name.strip()} at a path of this machine, which the job's machine lacks",
                hint=f"require {name.strip()} by its name, and package both: a list of sources, the trainer first",
            )
    if module is not None:
        where = f"{wheel.filename}, which {tree.root} builds"
        check_module(module, wheel.paths, where, wheel.requirements, installed=True)


def holds_package(wheel: Archive, package: str) -> bool:
    """Whether a wheel installs the package dir ``package``."""
    return any(path.startswith(f"{package}/") for path in wheel.paths)


def left_out_by_build(wheel: Archive, tree: SourceTree) -> tuple[LeftOut, ...]:
    """The files within the wheel's packages that are in the project and not in the wheel, such as data files."""
    return tuple(LeftOut(path, NOT_INSTALLED) for path in sorted(_not_installed(wheel.paths, tree.paths)))


def _not_installed(installed: Collection[str], paths: Collection[str]) -> Iterator[str]:
    folders = {folder for path in installed if path.endswith(".py") for folder in _package_roots(path, paths)}
    for prefix, package in folders:
        for path in paths:
            if path.startswith(f"{prefix}{package}/") and path.removeprefix(prefix) not in installed:
                yield path


def _package_roots(module: str, paths: Collection[str]) -> Iterator[tuple[str, str]]:
    """Where the top package of an installed module is in the project: ``("src/", "trainer")``."""
    package = PurePosixPath(module).parts[0]
    for path in paths:
        if path == module or path.endswith(f"/{module}"):
            yield path.removesuffix(module), package

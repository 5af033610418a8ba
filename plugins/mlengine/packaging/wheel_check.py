"""Checks the wheel of a project before a job is submitted. The job's machine will install the same wheel."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from mlengine.core.errors import PackageError
from mlengine.packaging.archive import Archive
from mlengine.packaging.modules import check_module
from mlengine.packaging.source_tree import Exclusion, SourceTree

NOT_INSTALLED = "in the project, but not in its wheel"


def check_wheel(wheel: Archive, tree: SourceTree, module: str | None) -> None:
    """Check that the job's module is in the wheel, and that no requirement is a local path.

    :raises PackageError: the module is missing, or a requirement is a local path; the message names it.
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


def left_out_by_build(wheel: Archive, tree: SourceTree) -> tuple[Exclusion, ...]:
    """Files of the wheel's packages that are in the project but not in the wheel, such as data files."""
    return tuple(Exclusion(path, NOT_INSTALLED) for path in sorted(_not_installed(wheel.paths, tree.paths)))


def _not_installed(installed: Collection[str], paths: Collection[str]) -> Iterator[str]:
    modules = [path for path in paths if path.endswith(".py")]
    roots = {root for path in modules for root, inner in _splits(path) if inner in installed}
    for path in paths:
        yield from (path for root, inner in _splits(path) if root in roots and inner not in installed)


def _splits(path: str) -> Iterator[tuple[str, str]]:
    """The directories above a file that may be top packages, each with the file's path beginning at that package.

    ``src/trainer/task.py`` gives ``("src", "src/trainer/task.py")`` and ``("src/trainer", "trainer/task.py")``.
    """
    start = 0
    for slash in re.finditer("/", path):
        yield path[: slash.start()], path[start:]
        start = slash.end()

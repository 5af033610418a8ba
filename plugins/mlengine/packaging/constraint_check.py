"""``constraints.txt`` of the packages of a trainer, checked when they are packaged.

Nothing is rewritten: where the packages are installed, here or in a container, the same source
(:mod:`mlengine.runtime.constraints`) reads the files. What it would refuse there is refused here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

from mlengine.core.errors import PackageError
from mlengine.packaging.source_tree import SourceTree
from mlengine.runtime.constraint_lines import ConstraintsError, File, normal_name
from mlengine.runtime.constraints import NAME, merge, read


def of_project(tree: SourceTree) -> File | None:
    """The file that goes into a project's sdist."""
    path = tree.root / NAME
    return File(str(path), path.read_bytes()) if NAME in tree.paths else None


def of_archive(filename: str, where: str, data: bytes) -> File | None:
    """The file in an archive.

    :param where: what errors call the archive.
    :raises PackageError: it is too large.
    """
    try:
        content = read(filename, io.BytesIO(data))
    except ConstraintsError as error:
        raise PackageError(str(error), hint=error.hint) from error
    return None if content is None else File(f"{where}: {NAME}", content)


def check(names: Iterable[str], files: Iterable[File]) -> list[str]:
    """Check the files of packages that are installed together; returns notes on lines that do not count.

    :param names: of all the packages; lines about them do not count, as they are installed themselves.
    :raises PackageError: naming file and line.
    """
    try:
        return merge(files, {normal_name(name) for name in names}).notes
    except ConstraintsError as error:
        raise PackageError(str(error), hint=error.hint) from error

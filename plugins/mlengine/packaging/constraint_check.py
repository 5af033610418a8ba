"""Checks the ``constraints.txt`` files of a trainer's packages at packaging time.

The files are not rewritten. The same module (:mod:`mlengine.runtime.constraints`) reads them where the packages are
installed, here or in a container, and would refuse the same lines there.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

from mlengine.core.errors import PackageError
from mlengine.packaging.source_tree import SourceTree
from mlengine.runtime.constraint_lines import ConstraintsError, File, normal_name
from mlengine.runtime.constraints import NAME, merge, read


def of_project(tree: SourceTree) -> File | None:
    """The ``constraints.txt`` in a project's directory."""
    path = tree.root / NAME
    return File(str(path), path.read_bytes()) if NAME in tree.paths else None


def of_archive(filename: str, where: str, data: bytes) -> File | None:
    """The ``constraints.txt`` in an archive.

    :param where: the archive's name in error messages.
    :raises PackageError: the file is too large, or cannot be read.
    """
    try:
        content = read(filename, io.BytesIO(data), where)
    except ConstraintsError as error:
        raise PackageError(str(error), hint=error.hint) from error
    return None if content is None else File(f"{where}: {NAME}", content)


def check(names: Iterable[str], files: Iterable[File]) -> list[str]:
    """Check the files of packages that are installed together, and return notes on ignored lines.

    :param names: the packages; lines about them are ignored, as the packages themselves are installed.
    :raises PackageError: a line cannot be used; the message names file and line.
    """
    try:
        return merge(files, {normal_name(name) for name in names}).notes
    except ConstraintsError as error:
        raise PackageError(str(error), hint=error.hint) from error

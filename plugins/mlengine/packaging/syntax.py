"""Checks the syntax of the module that a job runs, and of the modules of the package that it always imports.

Without this check, a syntax error would be found only in the replicas. Files that are not imported, such as templates,
are not read, and imports in functions, in ``if`` or in ``try`` are not followed. Nothing is executed.
"""

from __future__ import annotations

import ast
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.version import Version

from mlengine.core import python_source
from mlengine.core.errors import PackageError
from mlengine.runtime.requires_python import accepts


def check_syntax(
    module: str, files: Mapping[str, Path], requires_python: str | None, python: str | None = None
) -> tuple[str, ...]:
    """Parse the modules with the Python version of this process.

    :param files: the files of the package, relative to its parent directory or to a directory above that.
    :param requires_python: ``Requires-Python`` of the package. If it accepts this Python, a syntax error found here is
        one on every Python that the package supports.
    :param python: the version on which the trainer runs. If it is not newer than this Python, a syntax error found here
        is also one there. If it is not known, it may be newer, and support the syntax.
    :returns: notes for the user.
    :raises PackageError: a module has a syntax error; the message names file and line.
    """
    version = platform.python_version()
    notes = []
    for path, error in _wrong(module, files):
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        message = f"{path}{line}: not valid for Python {version}: {reason}"
        if requires_python and accepts(requires_python, version):
            raise PackageError(
                message,
                hint=f"correct that line, or requires-python ({requires_python}) if it needs a newer Python",
            ) from error
        if python and Version(python).release[:2] <= Version(version).release[:2]:
            raise PackageError(message, hint=f"correct that line; the trainer runs on Python {python}") from error
        notes.append(f"{message}; the job fails unless the trainer's Python accepts it")
    return tuple(notes)


def _wrong(module: str, files: Mapping[str, Path]) -> Iterator[tuple[Path, SyntaxError | ValueError]]:
    """The files with errors, among the module's file and those of the package that it always imports."""
    root, main = _found(module, files)
    if not main:
        return
    todo, seen = [main, *_parents(module, root)], set[str]()
    while todo:
        path = todo.pop(0)
        if path in seen or path not in files:
            continue
        seen.add(path)
        try:
            tree = python_source.parse(files[path].read_bytes(), str(files[path]))
        except (SyntaxError, ValueError) as error:
            yield files[path], error
            continue
        except (RecursionError, MemoryError):  # too deeply nested for this Python
            continue
        name = path.removeprefix(root).removesuffix(".py").replace("/", ".")
        package = name.rpartition(".")[0]
        for target in _targets(tree, package):
            if target.partition(".")[0] in sys.stdlib_module_names:
                continue  # even if the package has a module of this name: it comes later on Python's path
            place = f"{root}{target.replace('.', '/')}"
            todo += [f"{place}.py", f"{place}/__init__.py", *_parents(target, root)]


def _found(module: str, files: Mapping[str, Path]) -> tuple[str, str]:
    """The directory from which the module is imported, and the module's file in it.

    Both are empty if there is no such file, or if there are several: only the build determines which one is used.
    """
    stem = module.replace(".", "/")
    places = [
        (path.removesuffix(ending), path)
        for ending in (f"{stem}.py", f"{stem}/__main__.py")
        for path in files
        if path == ending or path.endswith(f"/{ending}")
    ]
    likely = [place for place in places if place[0] in {"", "src/"}] or places
    return likely[0] if len(likely) == 1 else ("", "")


def _parents(module: str, root: str) -> list[str]:
    parts = module.split(".")
    return [f"{root}{'/'.join(parts[:count])}/__init__.py" for count in range(1, len(parts))]


def _targets(tree: ast.Module, package: str) -> Iterator[str]:
    """The absolute names that top-level statements import. A name may be an attribute of a module."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")

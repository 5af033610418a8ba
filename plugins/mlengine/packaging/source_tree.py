"""A source tree: the files to package, the files left out, and a digest of the input.

The digest covers the sorted relative paths, executable bits, contents, and the build settings. A digest of the built
archive would not work, because builds are often not reproducible (time stamps, compression).

This module only reads the tree: it does not build, access a bucket, or start a process.
"""

from __future__ import annotations

import hashlib
import json
import keyword
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from mlengine.core.errors import PackageError
from mlengine.packaging import excludes
from mlengine.packaging.pyproject import read_pyproject

MAX_FILES = 20_000
MAX_BYTES = 256 << 20
_SHOWN = 8


class SourceKind(StrEnum):
    """The kind of a source, which determines how it is built."""

    PACKAGE = "package"  # a directory with __init__.py: its build is generated
    PROJECT = "project"  # a directory with pyproject.toml or setup.py: it has its own build
    ARCHIVE = "archive"  # an sdist or a wheel


@dataclass(frozen=True)
class SourceFile:
    """A file to package. ``path`` is relative, with slashes; ``size`` in bytes."""

    path: str
    size: int
    executable: bool
    sha256: str


@dataclass(frozen=True)
class Exclusion:
    """A file or directory that is left out, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class SourceTree:
    """The files below ``root``, sorted by path."""

    root: Path
    files: tuple[SourceFile, ...]
    left_out: tuple[Exclusion, ...]

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(file.path for file in self.files)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def digest(self, settings: Mapping[str, Any]) -> str:
        """The digest of the tree, 40 hex digits. It does not depend on the tree's location or on file times.

        :param settings: further inputs of the build, as JSON data.
        """
        entries = [[file.path, file.executable, file.sha256] for file in self.files]
        text = json.dumps([settings, entries], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:40]


def kind_of(source: Path) -> SourceKind:
    """The kind of ``source``.

    :raises PackageError: the source does not exist, or cannot be packaged.
    """
    if source.is_file():
        return SourceKind.ARCHIVE
    if not source.is_dir():
        raise PackageError(f"{source} does not exist", hint="give a package dir, a project dir, an sdist or a wheel")
    if (source / "setup.py").is_file() or _has_build(source):
        return SourceKind.PROJECT
    if (source / "__init__.py").is_file():
        return SourceKind.PACKAGE
    inside = sorted(path.parent.name for path in source.glob("*/__init__.py"))
    if inside:
        hint = f"give the package itself: {', '.join(str(source / name) for name in inside[:_SHOWN])}"
    elif any(source.glob("*.py")):
        hint = f"make it a package: create an empty {source / '__init__.py'}"
    else:
        hint = "give a package (with __init__.py) or a project (with pyproject.toml or setup.py)"
    raise PackageError(f"{source} has neither __init__.py nor pyproject.toml nor setup.py", hint=hint)


def scan(root: Path, *, project: bool = False) -> SourceTree:
    """Read the tree below ``root``.

    A symbolic link is replaced by its target if that is in the tree too.

    :param project: whether ``root`` is a project, so that ``build`` and ``dist`` in it are build output.
    :raises PackageError: the tree has a link out of the tree, a broken link, a private key in code, or an unreadable
        file, or is too large for code.
    """
    root = root.resolve()
    files: list[SourceFile] = []
    left: list[Exclusion] = []
    size = 0
    try:
        for file in _walk(root, root, left, project=project):
            files.append(file)
            size += file.size
            if len(files) > MAX_FILES or size > MAX_BYTES:
                raise _too_large(root, files)
    except OSError as error:
        raise unreadable(root, error) from error
    return SourceTree(root, tuple(sorted(files, key=lambda file: file.path)), tuple(left))


def unreadable(path: Path, error: OSError) -> PackageError:
    """The error for a source that cannot be read.

    :param path: the source, which the message names if ``error`` has no path.
    """
    return PackageError(
        f"{error.filename or path} cannot be read: {error.strerror}", hint="make it readable, or move it"
    )


def package_name(root: Path) -> str:
    """The import name of a package dir.

    :raises PackageError: the name is not a valid identifier.
    """
    name = root.resolve().name
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name):
        raise PackageError(f"{root}: {name!r} cannot be imported", hint="rename the directory: letters, digits and _")
    return name


def check_inits(tree: SourceTree) -> None:
    """Check that every directory between the package and a ``.py`` file has an ``__init__.py``.

    :raises PackageError: a directory has none; the message names the first one, and a file that could not be imported.
    """
    paths = tree.paths
    for path in sorted(paths):
        if not path.endswith(".py"):
            continue
        for folder in reversed(PurePosixPath(path).parents):
            init = (folder / "__init__.py").as_posix()
            if init not in paths:
                raise PackageError(
                    f"{tree.root / folder} has no __init__.py, so {path} in it could not be imported",
                    hint=f"create an empty {tree.root / init}",
                )


def _has_build(folder: Path) -> bool:
    """Whether a ``pyproject.toml`` describes a project, rather than only settings of tools."""
    data = read_pyproject(folder)
    return "project" in data or "build-system" in data


def _walk(
    root: Path, folder: Path, left: list[Exclusion], *, project: bool, above: frozenset[Path] = frozenset()
) -> Iterator[SourceFile]:
    """The files below a directory; those that are left out are added to ``left``.

    :param above: the directories being read, to detect link cycles.
    """
    real = folder.resolve()
    if real in above:
        raise PackageError(f"{folder} is a link to a directory that contains it", hint="remove it")
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(root).as_posix()
        reason = _reason(path, at_root=project and folder == root)
        if reason is None and path.is_symlink():
            reason = _link_reason(root, _inside(root, path))
        if reason is not None:
            left.append(Exclusion(f"{relative}/" if path.is_dir() else relative, reason))
        elif path.is_dir():
            yield from _walk(root, path, left, project=project, above=above | {real})
        elif not path.is_file():
            left.append(Exclusion(relative, "not a regular file"))
        else:
            file = _file(path, relative, left)
            if file is not None:
                yield file


def _reason(path: Path, *, at_root: bool) -> str | None:
    return excludes.dir_reason(path, at_root=at_root) if path.is_dir() else excludes.file_reason(path)


def _link_reason(root: Path, target: Path) -> str | None:
    """Apply the rules to the link's target too, so that a link cannot include an excluded file."""
    above = [folder for folder in target.parents if folder.is_relative_to(root) and folder != root]
    reasons = (_reason(path, at_root=False) for path in (target, *above))
    return next((reason for reason in reasons if reason), None)


def _file(path: Path, relative: str, left: list[Exclusion]) -> SourceFile | None:
    status = path.stat()
    if not relative.isprintable():
        raise PackageError(f"a file name cannot be packaged: {relative!r}", hint="rename it with printable characters")
    secret = excludes.content_reason(status.st_size, path.read_bytes)
    if secret is not None and path.suffix in {".py", ".pyi"}:
        raise PackageError(f"{path} {secret}", hint="remove it from the code; read it from a secret store at run time")
    if secret is not None:
        left.append(Exclusion(relative, secret))
        return None
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return SourceFile(relative, status.st_size, bool(status.st_mode & 0o100), sha256)


def _too_large(root: Path, files: Collection[SourceFile]) -> PackageError:
    largest = sorted(files, key=lambda file: -file.size)[:3]
    return PackageError(
        f"{root} is too large for a package, over {MAX_FILES} files or {MAX_BYTES >> 20} MiB; the largest so far: "
        + ", ".join(f"{file.path} ({file.size >> 20} MiB)" for file in largest),
        hint="keep data in the bucket and give its gs:// path in args; or correct the directory",
    )


def _inside(root: Path, link: Path) -> Path:
    """The target of a link.

    :raises PackageError: the link is broken, or its target is not in the tree.
    """
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise PackageError(f"{link} is a broken link", hint="remove or correct it") from error
    if not target.is_relative_to(root):
        raise PackageError(
            f"{link} is a link to {target}, outside of the tree", hint="copy the file into the tree instead"
        )
    return target

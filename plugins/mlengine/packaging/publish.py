"""From a trainer's source to a package in the bucket, content-addressed: what has not changed is not built again.

Three kinds of source, see :mod:`mlengine.packaging.source_tree`. The object's name holds the digest of the inputs, so
one read of ``packages/<name>/<digest>/`` tells whether there is anything to do; the object is created once, whoever
builds.

Does not: write into the user's tree (a copy is built), or install what it built; that is the backend's.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlengine.core.errors import PackageError, StorageConflictError
from mlengine.core.layout import package_uri
from mlengine.core.xcoms import PackageXCom
from mlengine.packaging import build as builder
from mlengine.packaging.archive import Archive, name_and_version, read_archive
from mlengine.packaging.source_tree import (
    LeftOut,
    SourceKind,
    SourceTree,
    check_inits,
    check_module,
    kind_of,
    package_name,
    scan,
)
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

# Counted up when the same inputs come to be built differently.
_FORMAT = 1


@dataclass(frozen=True)
class PackagedTrainer:
    """Packages in the bucket, the trainer's first.

    :param digest: of the inputs: 40 hex digits; equal inputs, equal digest.
    :param reused: whether all of it was in the bucket already.
    :param left_out: what stayed out of the packages, and why.
    """

    name: str
    version: str
    digest: str
    uris: tuple[str, ...]
    reused: bool
    files: int = 0
    size: int = 0
    left_out: tuple[LeftOut, ...] = ()

    def to_json(self) -> PackageXCom:
        """What the task that packages it returns."""
        return {
            "package_uris": list(self.uris),
            "digest": self.digest,
            "name": self.name,
            "version": self.version,
            "reused": self.reused,
        }


@dataclass(frozen=True)
class _Build:
    """How one source is built, and what its sdist must pass."""

    name: str
    digest: str
    make: Callable[[Path], Path]  # in a work dir, gives the sdist
    check: Callable[[Archive], None]


def package_trainer(
    source: Path | str | Sequence[Path | str],
    *,
    storage: Storage,
    staging: str,
    module: str | None = None,
    requirements: Sequence[str] = (),
) -> PackagedTrainer:
    """Package ``source`` and see that the bucket has it.

    :param source: a package dir, a project dir, an sdist or wheel (a path, or a ``gs://`` URI, which is checked and
        stays where it is), or a list of them, the trainer first.
    :param staging: the bucket, ``gs://NAME[/prefix]``.
    :param module: what will be run; it must be in the first package.
    :param requirements: for a package dir, which has no place to write them: PEP 508 strings, ``numpy>=2``.
    :raises PackageError: names the file and the remedy, or has the builder's own words.
    :raises StorageError: the bucket is missing, forbidden, or does not answer.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise PackageError("no source to package", remedy="give a package dir, a project dir, an sdist or a wheel")
    packaged = [
        _package(item, storage, staging, module=module if index == 0 else None, requirements=tuple(requirements))
        for index, item in enumerate(sources)
    ]
    uris = [uri for item in packaged for uri in item.uris]
    names = [uri.rsplit("/", 1)[1] for uri in uris]
    if len(set(names)) != len(names):
        raise PackageError(
            f"two packages have the same file name: {', '.join(sorted(names))}",
            remedy="give one another name or version",
        )
    first = packaged[0]
    if len(packaged) == 1:
        return first
    return PackagedTrainer(
        first.name,
        first.version,
        hashlib.sha256("".join(item.digest for item in packaged).encode()).hexdigest()[:40],
        tuple(uris),
        all(item.reused for item in packaged),
        sum(item.files for item in packaged),
        sum(item.size for item in packaged),
        tuple(left for item in packaged for left in item.left_out),
    )


def _package(
    source: Path | str, storage: Storage, staging: str, *, module: str | None, requirements: tuple[str, ...]
) -> PackagedTrainer:
    if isinstance(source, str) and source.startswith("gs://"):
        kind = SourceKind.ARCHIVE
    else:
        source = Path(source)
        kind = kind_of(source)
    if requirements and kind is not SourceKind.PACKAGE:
        raise PackageError(
            f"requirements are given, and {source} has its own: it is no package dir",
            remedy="write them in its pyproject.toml, or give the package dir alone",
        )
    if kind is SourceKind.ARCHIVE:
        return _stage_archive(source, storage, staging, module)
    root = Path(source).resolve()
    tree = scan(root, project=kind is SourceKind.PROJECT)
    build = _package_dir(tree, module, requirements) if kind is SourceKind.PACKAGE else _project_dir(tree, module)
    return _find_or_build(tree, build, storage, staging)


def _package_dir(tree: SourceTree, module: str | None, requirements: tuple[str, ...]) -> _Build:
    """The build is ours: every file of the tree goes in, and so the tree tells which modules there are."""
    name = package_name(tree.root)
    check_inits(tree)
    paths = frozenset(f"{name}/{path}" for path in tree.paths)
    if module is not None:
        check_module(module, paths, str(tree.root))

    def make(work: Path) -> Path:
        builder.copy_tree(tree, work / "source" / name)
        builder.write_pyproject(work / "source", name, requirements)
        return builder.build_sdist(work / "source", work / "out", tree.root)

    def check(archive: Archive) -> None:
        lost = sorted(paths - archive.paths)
        if lost:
            raise PackageError(f"the build of {tree.root} left out {', '.join(lost[:5])}", remedy="rename these files")

    digest = tree.digest({"format": _FORMAT, "package": name, "requirements": requirements})
    return _Build(name.lower(), digest, make, check)


def _project_dir(tree: SourceTree, module: str | None) -> _Build:
    """The build is the project's own. What is in is known from its sdist, and checked when it is built; so the module
    is part of the digest: a package that is there has passed the check.
    """

    def make(work: Path) -> Path:
        builder.copy_tree(tree, work / "source")
        sdist = builder.build_sdist(work / "source", work / "out", tree.root)
        builder.add_constraints(work / "source", sdist)
        return sdist

    def check(archive: Archive) -> None:
        if module is not None:
            check_module(module, archive.paths, f"{archive.filename}, which {tree.root} builds")

    digest = tree.digest({"format": _FORMAT, "project": True, "module": module})
    return _Build(_project_name(tree.root), digest, make, check)


def _find_or_build(tree: SourceTree, build: _Build, storage: Storage, staging: str) -> PackagedTrainer:
    """One listing on a hit. On a miss: build aside, check, create once; who comes second takes the first one's."""
    prefix = package_uri(staging, build.name, build.digest, "")
    uri = _find(storage, prefix)
    reused = uri is not None
    if uri is None:
        with tempfile.TemporaryDirectory(prefix="mlengine-package-") as work:
            sdist = build.make(Path(work))
            data = sdist.read_bytes()
        build.check(read_archive(data, sdist.name, sdist.name))
        uri = prefix + sdist.name
        try:
            storage.create(uri, data, "application/gzip")
        except StorageConflictError:
            log.info("%s was built by somebody else meanwhile; theirs is used", uri)
        # Builders whose file names differ (a version made of the date) agree on the first by name.
        uri = _find(storage, prefix) or uri
    name, version = name_and_version(uri.rsplit("/", 1)[1])
    return PackagedTrainer(name, version, build.digest, (uri,), reused, len(tree.files), tree.size, tree.left_out)


def _find(storage: Storage, prefix: str) -> str | None:
    return next((stat.uri for stat in storage.ls(prefix) if stat.uri.endswith(".tar.gz")), None)


def _stage_archive(source: Path | str, storage: Storage, staging: str, module: str | None) -> PackagedTrainer:
    """A ready-made package: checked every time, as nobody knows who made it; uploaded if it is not there."""
    where = str(source)
    filename = where.rsplit("/", 1)[1]
    name, version = name_and_version(filename)
    data = storage.read(source) if isinstance(source, str) else source.read_bytes()
    archive = read_archive(data, filename, where)
    if module is not None:
        check_module(module, archive.paths, where)
    digest = hashlib.sha256(data).hexdigest()[:40]
    uri = where if isinstance(source, str) else package_uri(staging, _normal(name), digest, filename)
    reused = isinstance(source, str) or storage.exists(uri)
    if not reused:
        try:
            storage.create(uri, data)
        except StorageConflictError:
            log.info("%s was uploaded by somebody else meanwhile", uri)
    return PackagedTrainer(name, version, digest, (uri,), reused, len(archive.paths), len(data))


def _project_name(root: Path) -> str:
    """For the path in the bucket only: the project's name where it stands in pyproject.toml, else the directory's."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError):
        project = None
    name = project.get("name") if isinstance(project, dict) else None
    return _normal(name if isinstance(name, str) else root.name)


def _normal(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "trainer"

"""Packages a trainer's source into the bucket, content-addressed: unchanged source is not built again.

The object's name contains the digest of the inputs, so listing ``packages/<name>/<digest>/`` shows whether the package
exists. The object is created once, even if several processes build it.

A copy is built, and nothing is written into the user's directory. Backends install the package.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlengine.core.errors import (
    PackageError,
    StorageConflictError,
    StorageForbiddenError,
    StorageUnavailableError,
)
from mlengine.core.layout import package_uri
from mlengine.core.xcoms import PackageXCom
from mlengine.packaging import constraint_check, package_build, project_build
from mlengine.packaging.archive import check_tags, name_and_version, read_archive
from mlengine.packaging.modules import check_module
from mlengine.packaging.project_inputs import digest_settings
from mlengine.packaging.pyproject import normalized, project_name, read_pyproject, scorer_of, table
from mlengine.packaging.source_tree import (
    Exclusion,
    SourceKind,
    SourceTree,
    check_inits,
    package_name,
    scan,
    unreadable,
)
from mlengine.packaging.sources import Source, find_sources, folder_around
from mlengine.packaging.syntax import check_syntax
from mlengine.packaging.wheel_check import check_wheel, holds_package, left_out_by_build
from mlengine.runtime.constraint_lines import File
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

# Increase this number when the same inputs are to give another package.
_FORMAT = 2


@dataclass(frozen=True)
class PackagedTrainer:
    """The packages in the bucket, the trainer's first.

    :param digest: the digest of the inputs, 40 hex digits.
    :param reused: whether all packages were in the bucket already.
    :param left_out: files that are not in the packages, with reasons. Files that the project's own build left out are
        known only if the project was built.
    :param notes: other messages for the user.
    :param constraints: the ``constraints.txt`` of a package.
    :param scorer: the ``package.module:function`` in ``[tool.mlengine]`` of the trainer's ``pyproject.toml``.
    """

    name: str
    version: str
    digest: str
    uris: tuple[str, ...]
    reused: bool
    files: int = 0
    size: int = 0
    left_out: tuple[Exclusion, ...] = ()
    notes: tuple[str, ...] = ()
    constraints: File | None = None
    scorer: str = ""

    def to_json(self) -> PackageXCom:
        """The return value of the packaging task."""
        result: PackageXCom = {
            "package_uris": list(self.uris),
            "digest": self.digest,
            "name": self.name,
            "version": self.version,
            "reused": self.reused,
        }
        return {**result, "scorer": self.scorer} if self.scorer else result


@dataclass(frozen=True)
class _Built:
    """A package that was built and checked."""

    filename: str
    data: bytes
    left_out: tuple[Exclusion, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Recipe:
    """One way to build a directory.

    :param name: the name of its directory in the bucket.
    :param make: builds below an empty directory; returns ``None`` if the next recipe applies instead.
    :param check: checks for mistakes without a build.
    :param constraints: the ``constraints.txt`` for the sdist.
    """

    tree: SourceTree
    name: str
    digest: str
    make: Callable[[Path], _Built | None]
    notes: tuple[str, ...] = ()
    check: Callable[[], None] = lambda: None
    constraints: File | None = None


def package_trainer(
    source: Path | str | Sequence[Path | str],
    *,
    storage: Storage,
    staging: str,
    module: str | None = None,
    requirements: Sequence[str] = (),
    dry_run: bool = False,
    python: str | None = None,
) -> PackagedTrainer:
    """Package ``source``, and upload the packages that are not in the bucket.

    :param source: a package dir, a project dir, an sdist or wheel (a path, or a ``gs://`` URI, which is checked and
        used in place), or a list of them, the trainer first.
    :param staging: the bucket, ``gs://NAME[/prefix]``.
    :param module: the job's module; it must be in the first package.
    :param requirements: the requirements of a package dir, as PEP 508 strings such as ``numpy>=2``.
    :param dry_run: build and check, but upload nothing. Only ``gs://`` sources are read from a bucket.
    :param python: the version of Python on which the trainer runs, if it is known.
    :raises PackageError: the source cannot be packaged; the error has the file and a hint, or the builder's output.
    :raises StorageError: the bucket is missing, forbidden, or does not answer.
    """
    named = [source] if isinstance(source, str | Path) else list(source)
    sources = find_sources(named, requirements)
    publisher = _Publisher(storage, staging, tuple(requirements), dry_run, python)
    packaged = [publisher.publish(item, module if index == 0 else None) for index, item in enumerate(sources.items)]
    uris = [uri for item in packaged for uri in item.uris]
    names = [uri.rsplit("/", 1)[1] for uri in uris]
    if len(set(names)) != len(names):
        raise PackageError(
            f"two packages have the same file name: {', '.join(sorted(names))}",
            hint="change the name or version of one of them",
        )
    first = packaged[0]
    files = [item.constraints for item in packaged if item.constraints is not None]
    ignored = constraint_check.check([item.name for item in packaged], files)
    notes = (*sources.notes, *(note for item in packaged for note in item.notes), *ignored)
    if len(packaged) == 1:
        return replace(first, notes=notes)
    return PackagedTrainer(
        first.name,
        first.version,
        hashlib.sha256("".join(item.digest for item in packaged).encode()).hexdigest()[:40],
        tuple(uris),
        all(item.reused for item in packaged),
        sum(item.files for item in packaged),
        sum(item.size for item in packaged),
        tuple(left for item in packaged for left in item.left_out),
        notes,
        scorer=first.scorer,
    )


@dataclass(frozen=True)
class _Publisher:
    """Publishes sources into one bucket, one at a time."""

    storage: Storage
    staging: str
    requirements: tuple[str, ...]
    dry_run: bool
    python: str | None

    def publish(self, source: Source, module: str | None) -> PackagedTrainer:
        if source.kind is SourceKind.ARCHIVE:
            return self._archive(source.location, module)
        scorer = scorer_of(source.parent or Path(source.location))
        tree = scan(Path(source.location), project=source.kind is SourceKind.PROJECT)
        notes = _check_syntax(source, tree, module, self.python) if module is not None else ()
        packaged = self._source(source, tree, module)
        return replace(packaged, scorer=scorer, notes=(*packaged.notes, *notes))

    def _source(self, source: Source, tree: SourceTree, module: str | None) -> PackagedTrainer:
        if source.kind is SourceKind.PROJECT:
            return self._directory([_project_recipe(tree, module)])
        if source.parent is None:
            note = "" if self.requirements else _unread_requirements(tree.root)
            return self._directory([_package_recipe(tree, module, self.requirements, note=note)])
        with _part_of(source.parent, tree):
            project = scan(source.parent, project=True)
        return self._directory(_recipes_in_project(tree, project, module))

    def _directory(self, recipes: Sequence[_Recipe]) -> PackagedTrainer:
        """The package that the bucket has for one of the recipes; else it is built by the first recipe that applies."""
        for recipe in () if self.dry_run else recipes:
            uri = self._find(recipe)
            if uri is not None:
                recipe.check()
                return _packaged(recipe, uri, reused=True)
        for recipe in recipes:
            recipe.check()
            with tempfile.TemporaryDirectory(prefix="mlengine-package-") as work:
                built = recipe.make(Path(work))
            if built is not None:
                return self._upload(recipe, built)
        raise PackageError(f"{recipes[0].tree.root} was not packaged", hint="give the project's directory itself")

    def _upload(self, recipe: _Recipe, built: _Built) -> PackagedTrainer:
        """Create the object. If another process has created it already, use the existing object."""
        uri = package_uri(self.staging, recipe.name, recipe.digest, built.filename)
        if not self.dry_run:
            try:
                self.storage.create(uri, built.data, "application/gzip")
            except StorageConflictError:
                log.info("another process has created %s; using that object", uri)
            # File names can differ, if a version contains the date. All builders use the first one in order of name.
            uri = self._find(recipe) or uri
        packaged = _packaged(recipe, uri, reused=False)
        return replace(packaged, left_out=(*packaged.left_out, *built.left_out), notes=(*packaged.notes, *built.notes))

    def _find(self, recipe: _Recipe) -> str | None:
        prefix = package_uri(self.staging, recipe.name, recipe.digest, "")
        return next((stat.uri for stat in self.storage.ls(prefix) if stat.uri.endswith(".tar.gz")), None)

    def _archive(self, source: Path | str, module: str | None) -> PackagedTrainer:
        """Check an sdist or wheel that was built elsewhere, and upload it unless the bucket has it."""
        where = str(source)
        filename = where.rsplit("/", 1)[-1]
        name, version = name_and_version(filename)
        if isinstance(source, Path):
            try:
                data = source.read_bytes()
            except OSError as error:
                raise unreadable(source, error) from error
        else:
            try:
                data = self.storage.read(source)
            except (StorageForbiddenError, StorageUnavailableError) as error:
                if not self.dry_run:
                    raise
                return PackagedTrainer(name, version, "", (where,), True, notes=(f"not checked: {error.message}",))
        archive = read_archive(data, filename, where)
        check_tags(filename, where)
        if module is not None:
            check_module(module, archive.paths, where, archive.requirements, installed=archive.is_wheel)
        digest = hashlib.sha256(data).hexdigest()[:40]
        uri = package_uri(self.staging, normalized(name), digest, filename) if isinstance(source, Path) else where
        reused = not isinstance(source, Path) or (not self.dry_run and self.storage.exists(uri))
        if not reused and not self.dry_run:
            try:
                self.storage.create(uri, data)
            except StorageConflictError:
                log.info("another process has uploaded %s", uri)
        packaged = PackagedTrainer(name, version, digest, (uri,), reused, len(archive.paths), len(data))
        return replace(packaged, constraints=constraint_check.of_archive(filename, where, data))


def _package_recipe(
    tree: SourceTree, module: str | None, requirements: Sequence[str], *, settings: object = None, note: str = ""
) -> _Recipe:
    """The recipe for a package dir, with a generated build. All files are packed, so the tree shows the modules.

    :param settings: further inputs of the digest.
    """
    name = package_name(tree.root)

    def check() -> None:
        check_inits(tree)
        if module is not None:
            paths = {f"{name}/{path}" for path in tree.paths}
            check_module(module, paths, str(tree.root), requirements, installed=True)

    def make(work: Path) -> _Built:
        sdist = package_build.build_package(tree, name, requirements, work)
        data = sdist.read_bytes()
        package_build.check_complete(tree, name, read_archive(data, sdist.name, sdist.name).paths)
        return _Built(sdist.name, data)

    inputs = {"format": _FORMAT, "package": name, "requirements": list(requirements), "settings": settings}
    return _Recipe(tree, name.lower(), tree.digest(inputs), make, (note,) if note else (), check)


def _unread_requirements(package: Path) -> str:
    """A note that a package dir has no requirements, although a ``requirements.txt`` is in it or next to it."""
    for folder in (package, package.parent):
        if (file := folder / "requirements.txt").is_file():
            return f"{file} is not read: name the requirements in a pyproject.toml, or give requirements=[…]"
    return ""


def _project_recipe(tree: SourceTree, module: str | None, *, package: str = "", note: str = "") -> _Recipe:
    """The recipe for a project, with its own build backend.

    The module is checked in the wheel when the project is built, and is part of the digest: a package that the bucket
    has was checked with this module.

    :param package: the recipe applies only if the wheel contains this package.
    """

    def make(work: Path) -> _Built | None:
        built = project_build.build_project(tree, work)
        data = built.sdist.read_bytes()
        archive = read_archive(data, built.sdist.name, built.sdist.name)
        if built.wheel is None:
            if module is not None:
                check_module(module, archive.paths, f"{archive.filename}, which {tree.root} builds")
            return _Built(archive.filename, data, notes=built.notes)
        if package and not holds_package(built.wheel, package):
            return None
        check_wheel(built.wheel, tree, module)
        return _Built(archive.filename, data, left_out_by_build(built.wheel, tree), built.notes)

    inputs = {"format": _FORMAT, "project": True, "module": module, "package": package, **digest_settings(tree)}
    name = normalized(project_name(read_pyproject(tree.root)) or tree.root.name) or "trainer"
    constraints = constraint_check.of_project(tree)
    return _Recipe(tree, name, tree.digest(inputs), make, (note,) if note else (), constraints=constraints)


def _recipes_in_project(tree: SourceTree, project: SourceTree, module: str | None) -> list[_Recipe]:
    """The recipes for a package dir in a project.

    They are the project's build, and a generated build if the project does not pack the package. The project has to be
    built to find out. If the bucket has a package by the generated build, the project was built with the same build
    files before, and did not pack the package.
    """
    name = package_name(tree.root)
    build_files = ("pyproject.toml", "setup.py", "setup.cfg", "MANIFEST.in")
    settings = [[file.path, file.sha256] for file in project.files if file.path in build_files]
    note = f"{tree.root} is part of the project {project.root}"
    whole = _project_recipe(project, module, package=name, note=f"{note}, whose build and requirements are used")

    def make(work: Path) -> _Built | None:
        with _part_of(project.root, tree):
            return whole.make(work)

    alone = f"{note}, whose build does not include it: it is packaged alone, without requirements"
    return [replace(whole, make=make), _package_recipe(tree, module, (), settings=settings, note=alone)]


@contextmanager
def _part_of(project: Path, tree: SourceTree) -> Iterator[None]:
    """Add to a project's errors the package dir that the user gave, and how to package that dir alone."""
    try:
        yield
    except PackageError as error:
        raise PackageError(
            f"{tree.root} is part of the project {project}, which cannot be packaged: {error.message}",
            hint=f"{error.hint}; to package {tree.root.name} alone, give requirements, or move it elsewhere",
        ) from error


def _check_syntax(source: Source, tree: SourceTree, module: str, python: str | None) -> tuple[str, ...]:
    """See :func:`mlengine.packaging.syntax.check_syntax`."""
    project = source.kind is SourceKind.PROJECT
    prefix = "" if project else f"{package_name(tree.root)}/"
    files = {f"{prefix}{path}": tree.root / path for path in tree.paths}
    folder = source.parent or (tree.root if project else folder_around(tree.root))
    required = table(read_pyproject(folder), "project").get("requires-python")
    return check_syntax(module, files, required if isinstance(required, str) else None, python)


def _packaged(recipe: _Recipe, uri: str, *, reused: bool) -> PackagedTrainer:
    name, version = name_and_version(uri.rsplit("/", 1)[1])
    tree = recipe.tree
    return PackagedTrainer(
        name,
        version,
        recipe.digest,
        (uri,),
        reused,
        len(tree.files),
        tree.size,
        tree.left_out,
        recipe.notes,
        recipe.constraints,
    )

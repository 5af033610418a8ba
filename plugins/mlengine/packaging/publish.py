"""From a trainer's source to a package in the bucket, content-addressed: what has not changed is not built again.

The object's name holds the digest of the inputs, so one listing of ``packages/<name>/<digest>/`` shows whether there is
anything to do. The object is created once, however many processes build it.

Does not: write into the user's tree (a copy is built), or install what it built; that is the backend's.
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
from mlengine.packaging.archive import name_and_version, read_archive
from mlengine.packaging.modules import check_module
from mlengine.packaging.project_inputs import digest_settings
from mlengine.packaging.pyproject import normalized, project_name, read_pyproject, scorer_of
from mlengine.packaging.source_tree import LeftOut, SourceKind, SourceTree, check_inits, package_name, scan
from mlengine.packaging.sources import Source, find_sources
from mlengine.packaging.wheel_check import check_wheel, holds_package, left_out_by_build
from mlengine.runtime.constraint_lines import File
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

# Counted up when the same inputs come to be built differently.
_FORMAT = 2


@dataclass(frozen=True)
class PackagedTrainer:
    """Packages in the bucket, the trainer's first.

    :param digest: of the inputs: 40 hex digits; equal inputs, equal digest.
    :param reused: whether all of it was in the bucket already.
    :param left_out: what stayed out of the packages, and why. What the project's own build left out is known only
        when it was built.
    :param notes: what else the user should know.
    :param constraints: the ``constraints.txt`` of a package.
    :param scorer: ``package.module:function`` in ``[tool.mlengine]`` of the trainer's ``pyproject.toml``.
    """

    name: str
    version: str
    digest: str
    uris: tuple[str, ...]
    reused: bool
    files: int = 0
    size: int = 0
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    constraints: File | None = None
    scorer: str = ""

    def to_json(self) -> PackageXCom:
        """What the task that packages it returns."""
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
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Recipe:
    """How one directory is built.

    :param name: of its folder in the bucket.
    :param make: builds it below an empty directory; ``None`` if it turns out that another recipe is right.
    :param check: finds mistakes that show without a build.
    :param constraints: the ``constraints.txt`` that goes into the sdist.
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
) -> PackagedTrainer:
    """Package ``source`` and see that the bucket has it.

    :param source: a package dir, a project dir, an sdist or wheel (a path, or a ``gs://`` URI, which is checked and
        stays where it is), or a list of them, the trainer first.
    :param staging: the bucket, ``gs://NAME[/prefix]``.
    :param module: what will be run; it must be in the first package.
    :param requirements: for a package dir, which has no place to write them: PEP 508 strings, ``numpy>=2``.
    :param dry_run: build and check, and upload nothing. The bucket is read only for packages that are in one.
    :raises PackageError: with the file and a hint, or the builder's output.
    :raises StorageError: the bucket is missing, forbidden, or does not answer.
    """
    named = [source] if isinstance(source, str | Path) else list(source)
    sources = find_sources(named, requirements)
    publisher = _Publisher(storage, staging, tuple(requirements), dry_run)
    packaged = [publisher.publish(item, module if index == 0 else None) for index, item in enumerate(sources.items)]
    uris = [uri for item in packaged for uri in item.uris]
    names = [uri.rsplit("/", 1)[1] for uri in uris]
    if len(set(names)) != len(names):
        raise PackageError(
            f"two packages have the same file name: {', '.join(sorted(names))}",
            hint="give one another name or version",
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
    """Publishes one source after the other into one bucket."""

    storage: Storage
    staging: str
    requirements: tuple[str, ...]
    dry_run: bool

    def publish(self, source: Source, module: str | None) -> PackagedTrainer:
        if source.kind is SourceKind.ARCHIVE:
            return self._archive(source.location, module)
        scorer = scorer_of(source.parent or Path(source.location))
        return replace(self._source(source, module), scorer=scorer)

    def _source(self, source: Source, module: str | None) -> PackagedTrainer:
        tree = scan(Path(source.location), project=source.kind is SourceKind.PROJECT)
        if source.kind is SourceKind.PROJECT:
            return self._directory([_project_recipe(tree, module)])
        if source.parent is None:
            return self._directory([_package_recipe(tree, module, self.requirements)])
        with _part_of(source.parent, tree):
            project = scan(source.parent, project=True)
        return self._directory(_recipes_in_project(tree, project, module))

    def _directory(self, recipes: Sequence[_Recipe]) -> PackagedTrainer:
        """What the bucket has by any of the recipes, else what the first one makes that is right."""
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
        """Create the object once; the second writer uses the first one's."""
        uri = package_uri(self.staging, recipe.name, recipe.digest, built.filename)
        if not self.dry_run:
            try:
                self.storage.create(uri, built.data, "application/gzip")
            except StorageConflictError:
                log.info("%s was created by another process meanwhile; that object is used", uri)
            # Builders whose file names differ (a version with the date in it) agree on the first by name.
            uri = self._find(recipe) or uri
        packaged = _packaged(recipe, uri, reused=False)
        return replace(packaged, left_out=(*packaged.left_out, *built.left_out), notes=(*packaged.notes, *built.notes))

    def _find(self, recipe: _Recipe) -> str | None:
        prefix = package_uri(self.staging, recipe.name, recipe.digest, "")
        return next((stat.uri for stat in self.storage.ls(prefix) if stat.uri.endswith(".tar.gz")), None)

    def _archive(self, source: Path | str, module: str | None) -> PackagedTrainer:
        """A ready-made package: its origin is unknown, so it is checked every time; uploaded if it is not there."""
        where = str(source)
        filename = where.rsplit("/", 1)[-1]
        name, version = name_and_version(filename)
        if isinstance(source, Path):
            data = source.read_bytes()
        else:
            try:
                data = self.storage.read(source)
            except (StorageForbiddenError, StorageUnavailableError) as error:
                if not self.dry_run:
                    raise
                return PackagedTrainer(name, version, "", (where,), True, notes=(f"not checked: {error.message}",))
        archive = read_archive(data, filename, where)
        if module is not None:
            check_module(module, archive.paths, where, archive.requirements, installed=archive.is_wheel)
        digest = hashlib.sha256(data).hexdigest()[:40]
        uri = package_uri(self.staging, normalized(name), digest, filename) if isinstance(source, Path) else where
        reused = not isinstance(source, Path) or (not self.dry_run and self.storage.exists(uri))
        if not reused and not self.dry_run:
            try:
                self.storage.create(uri, data)
            except StorageConflictError:
                log.info("%s was uploaded by another process meanwhile", uri)
        packaged = PackagedTrainer(name, version, digest, (uri,), reused, len(archive.paths), len(data))
        return replace(packaged, constraints=constraint_check.of_archive(filename, where, data))


def _package_recipe(
    tree: SourceTree, module: str | None, requirements: Sequence[str], *, settings: object = None, note: str = ""
) -> _Recipe:
    """The build is ours: every file of the tree goes in, so the tree shows which modules there are.

    :param settings: what else the digest is of.
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


def _project_recipe(tree: SourceTree, module: str | None, *, package: str = "", note: str = "") -> _Recipe:
    """The build is the project's own. What is installed is known from its wheel, and checked when it is built; so the
    module is part of the digest: a package that is there has passed the check.

    :param package: what the wheel must hold for this to be the right recipe.
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
    """For a package dir in a project: the project's build, or if that does not pack the package, ours.

    Which of them is right shows when the project is built. A package of ours in the bucket says that it was built once
    with the same build files, and did not pack the package.
    """
    name = package_name(tree.root)
    build_files = ("pyproject.toml", "setup.py", "setup.cfg", "MANIFEST.in")
    settings = [[file.path, file.sha256] for file in project.files if file.path in build_files]
    note = f"{tree.root} is part of the project {project.root}"
    whole = _project_recipe(project, module, package=name, note=f"{note}, whose build and requirements are used")

    def make(work: Path) -> _Built | None:
        with _part_of(project.root, tree):
            return whole.make(work)

    alone = f"{note}, whose build does not pack it: it is packaged alone, without requirements"
    return [replace(whole, make=make), _package_recipe(tree, module, (), settings=settings, note=alone)]


@contextmanager
def _part_of(project: Path, tree: SourceTree) -> Iterator[None]:
    """Errors of a project say which package dir is meant, and how to package that alone."""
    try:
        yield
    except PackageError as error:
        raise PackageError(
            f"{tree.root} is part of the project {project}, which cannot be packaged: {error.message}",
            hint=f"{error.hint}; to package {tree.root.name} alone, give requirements, or move it elsewhere",
        ) from error


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

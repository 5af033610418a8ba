"""Checks that the module of a job is in its packages.

Without this check, a typing error would be found only in the replicas, after the machines have started.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath

from mlengine.core.errors import ObjectMissingError, PackageError
from mlengine.packaging.archive import SUFFIXES, check_tags, read_archive
from mlengine.packaging.pyproject import normalized
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

_MOST_BYTES = 256 << 20
_SHOWN = 8
_DISTRIBUTION = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def check_module_in_packages(module: str, uris: Sequence[str], storage: Storage) -> None:
    """Check, without an installation, that ``python -m module`` will work once the packages are installed.

    A module whose top package has the name of a requirement counts as found (``torch.distributed.run`` with ``torch``).

    :param uris: the job's packages in the bucket, sdists or wheels.
    :raises PackageError: no package contains the module; the message lists the modules that exist.
    :raises ObjectMissingError: a package is not in the bucket.
    """
    paths: set[str] = set()
    requirements: list[str] = []
    for uri in uris:
        stat = storage.stat(uri)
        if stat is None:
            raise ObjectMissingError(f"no object {uri}", hint="package the trainer again, or correct the URI")
        if stat.size > _MOST_BYTES or not uri.endswith(SUFFIXES):
            log.warning("%s is too large or of an unsupported type: module %s is not checked", uri, module)
            return
        filename = uri.rsplit("/", 1)[1]
        archive = read_archive(storage.read(uri), filename, uri, any_name=True)
        check_tags(filename, uri)
        paths |= archive.paths
        requirements += archive.requirements
    if uris:
        check_module(module, paths, ", ".join(uris), requirements)


def check_module(
    module: str, paths: Collection[str], where: str, requirements: Sequence[str] = (), *, installed: bool = False
) -> None:
    """Check that ``python -m module`` works.

    :param paths: the files of the package, relative to its parent directory or to a directory above that.
    :param where: the package's name in error messages.
    :param requirements: the package's requirements, as in a requirements file; they may provide the module.
    :param installed: whether ``paths`` are relative to ``site-packages``, as in a wheel: modules in a source directory
        such as ``src`` are then not importable.
    :raises PackageError: the module does not exist; the message lists the modules that do, the most similar first.
    """
    stem = module.replace(".", "/")

    def has(wanted: str) -> bool:
        return wanted in paths or (not installed and _in_source_folder(wanted, paths))

    if has(f"{stem}.py") or has(f"{stem}/__main__.py"):
        return
    if has(f"{stem}/__init__.py"):
        raise PackageError(
            f"{where}: {module} is a package without a __main__.py to run",
            hint=f"name a module in it, for example {module}.task, or write {stem}/__main__.py",
        )
    if _required(module.partition(".")[0], requirements):
        return
    modules = sorted(set(modules_in(paths)))
    near = difflib.get_close_matches(module, modules, _SHOWN, 0.5) or modules[:_SHOWN]
    there = ", ".join(near) if near else "no Python module at all"
    raise PackageError(f"no module {module} in {where}", hint=f"it contains {there}")


def modules_in(paths: Collection[str]) -> Iterator[str]:
    """The dotted names of the modules, each starting at its top package."""
    for path in paths:
        file = PurePosixPath(path)
        if file.suffix != ".py" or file.name in {"__init__.py", "setup.py"}:
            continue
        parts = [file.stem] if file.stem != "__main__" else []
        folder = file.parent
        while (folder / "__init__.py").as_posix() in paths:
            parts.insert(0, folder.name)
            folder = folder.parent
        if parts:
            yield ".".join(parts)


def _in_source_folder(wanted: str, paths: Collection[str]) -> bool:
    """Whether ``wanted`` is in a directory such as ``src``, which is not a package itself."""
    folders = (path[: -len(wanted) - 1] for path in paths if path.endswith(f"/{wanted}"))
    return any(f"{folder}/__init__.py" not in paths for folder in folders)


def _required(package: str, requirements: Sequence[str]) -> bool:
    names = (_DISTRIBUTION.match(requirement) for requirement in requirements)
    return normalized(package) in {normalized(match[1]) for match in names if match}

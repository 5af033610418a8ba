"""What the packages of a job say about themselves, checked before submission.

* ``Requires-Python``, where the image's Python is known: that of a plain ``python:3.11…`` image, by its tag. What a
  package's dependencies require is known to the package index alone, and comes out when the container installs them.
* ``constraints.txt``: a line that the start command would refuse is refused here.
* requirements, where the machine has accelerators: see :mod:`mlengine.backends.vertex.framework_checks`.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mlengine.backends.vertex import framework_checks
from mlengine.backends.vertex.accelerated_pools import PLAIN_IMAGE, Package
from mlengine.core.errors import BackendError, ObjectMissingError, StorageError
from mlengine.runtime import constraints
from mlengine.runtime.constraint_lines import ConstraintsError, File
from mlengine.runtime.dependencies import declared
from mlengine.runtime.requires_python import UnreadableArchiveError, accepts, required

log = logging.getLogger(__name__)


class Reads(Protocol):
    """As much of :class:`mlengine.storage.client.Storage` as this needs."""

    def read(self, uri: str) -> bytes:
        """The object's content."""


def check(
    job_id: str, body: Mapping[str, Any], package_uris: Sequence[str], storage: Reads, *, accelerators: bool = True
) -> None:
    """Check the packages of a request.

    A package that cannot be read is left to the container, which says why in its log.

    :param body: the request.
    :param accelerators: refuse a job that cannot use its accelerators; otherwise this is only a warning.
    :raises BackendError: a package is missing, does not accept the image's Python, has constraints that cannot be
        used, or cannot use the accelerators.
    """
    pools = [pool for pool in body["jobSpec"]["workerPoolSpecs"] if pool]
    try:
        found = [_read(job_id, uri, storage) for uri in package_uris]
        packages = [package for package in found if package is not None]
        _check_python(job_id, packages, _image_versions(pools))
        files = [File(f"{it.filename}: {constraints.NAME}", it.constraints) for it in packages if it.constraints]
        if any("pythonPackageSpec" in pool for pool in pools):
            for file in files:
                log.warning("job %s: Google's executor image does not read %s", job_id, file.where)
        else:
            constraints.merge(files, {constraints.package_name(_filename(uri)) for uri in package_uris})
    except ConstraintsError as error:
        raise BackendError(f"job {job_id}: {error}", hint=error.hint) from error
    # Of a package that could not be read it is not known what it requires.
    _check_accelerators(job_id, pools, packages, refuse=accelerators and None not in found)


def _check_accelerators(
    job_id: str, pools: Sequence[Mapping[str, Any]], packages: Sequence[Package], *, refuse: bool
) -> None:
    """:raises BackendError: naming what cannot use the accelerators, and what to do."""
    found = framework_checks.check(pools, packages)
    for warning in found.warnings:
        log.warning("job %s: %s", job_id, warning)
    for problem, hint in found.problems:
        if refuse:
            raise BackendError(
                f"job {job_id}: {problem}",
                hint=f"{hint}. The vertex setting accelerator_checks=false submits the job all the same",
            )
        log.warning("job %s: %s; to correct it, %s", job_id, problem, hint)


def _read(job_id: str, uri: str, storage: Reads) -> Package | None:
    """The package; ``None`` if it cannot be read.

    :raises BackendError: there is none.
    :raises ConstraintsError: its constraints are too large.
    """
    name = _filename(uri)
    try:
        data = storage.read(uri)
        return Package(
            name,
            declared(name, io.BytesIO(data)),
            required(name, io.BytesIO(data)),
            constraints.read(name, io.BytesIO(data)),
        )
    except ObjectMissingError as error:
        raise BackendError(
            f"job {job_id}: there is no package {uri}", hint="package the trainer again, or correct packageUris"
        ) from error
    except (StorageError, UnreadableArchiveError) as error:
        log.warning("job %s: what %s requires is not known: %s", job_id, uri, error)
        return None


def _check_python(job_id: str, packages: Sequence[Package], versions: Sequence[str]) -> None:
    """:raises BackendError: naming image, package and what would do."""
    for package in packages:
        wanted = package.requires_python
        for version in versions:
            # Of 3.11 some patch release is meant, the newest rather than 3.11.0.
            if wanted and not accepts(wanted, f"{version}.99", f"{version}.0"):
                raise BackendError(
                    f"job {job_id}: {package.filename} requires Python {wanted}, and the image has {version}",
                    hint="set pythonVersion in the job file or image_uri in the vertex settings to one that does, "
                    "or change requires-python",
                )


def _image_versions(pools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The Pythons of the plain images among the pools', each once."""
    images = (PLAIN_IMAGE.fullmatch(pool.get("containerSpec", {}).get("imageUri", "")) for pool in pools)
    return sorted({match["version"] for match in images if match is not None})


def _filename(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]

"""Checks the metadata of a job's packages before submission.

* ``Requires-Python`` and the tags of wheels, if the image's Python is known: that of a plain ``python:3.11…`` image, by
  its tag. The requirements of a package's dependencies are known only to the package index, so errors in them appear
  when the container installs the dependencies.
* ``constraints.txt``: a line that the start command would refuse is refused here.
* requirements, if the machine has accelerators: see :mod:`mlengine.backends.vertex.framework_checks`.
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
from mlengine.runtime.requires_python import UnreadableArchiveError, accepts, required, wheel_accepts

log = logging.getLogger(__name__)


class Reads(Protocol):
    """The one method of :class:`mlengine.storage.client.Storage` that this module uses."""

    def read(self, uri: str) -> bytes:
        """The content of an object."""


def check(
    job_id: str, body: Mapping[str, Any], package_uris: Sequence[str], storage: Reads, *, accelerators: bool = True
) -> None:
    """Check the packages of a request.

    A package that cannot be read is not checked: the container reports the reason in its log.

    :param body: the request.
    :param accelerators: whether to refuse a job that cannot use its accelerators; otherwise this is only a warning.
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
    # The requirements of a package that could not be read are not known.
    _check_accelerators(job_id, pools, packages, refuse=accelerators and None not in found)


def _check_accelerators(
    job_id: str, pools: Sequence[Mapping[str, Any]], packages: Sequence[Package], *, refuse: bool
) -> None:
    """Check that packages and images can use the accelerators.

    :raises BackendError: a package or an image cannot; the message names it, and says what to do.
    """
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
    """The metadata of a package; ``None`` if the package cannot be read.

    :raises BackendError: the package does not exist.
    :raises ConstraintsError: the package's constraints are too large.
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
    """Check that the packages accept the Python versions of the images.

    :raises BackendError: a package does not accept a version; the message says what to change.
    """
    for package in packages:
        wanted = package.requires_python
        for version in versions:
            # An image tag such as 3.11 means some patch release, more likely the newest than 3.11.0.
            if wanted and not accepts(wanted, f"{version}.99", f"{version}.0"):
                raise BackendError(
                    f"job {job_id}: {package.filename} requires Python {wanted}, and the image has {version}",
                    hint="set pythonVersion in the job file or image_uri in the vertex settings to one that does, "
                    "or change requires-python",
                )
            if not wheel_accepts(package.filename, version):
                raise BackendError(
                    f"job {job_id}: {package.filename} is a wheel for other versions of Python, and the image has "
                    f"{version}",
                    hint="set pythonVersion in the job file or image_uri in the vertex settings to one that does, "
                    "or package the sdist",
                )


def _image_versions(pools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The Python versions of the pools' plain Python images, each once."""
    images = (PLAIN_IMAGE.fullmatch(pool.get("containerSpec", {}).get("imageUri", "")) for pool in pools)
    return sorted({match["version"] for match in images if match is not None})


def _filename(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]

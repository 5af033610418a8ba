"""Checks a ``CustomJob`` as the service does when a job is created.

The limits of single fields are those of the job file: :mod:`mlengine.core.limits`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlengine.core import limits
from mlengine.core.cluster import POOL_ROLES
from mlengine.core.errors import JobFileError, StorageError
from mlengine.core.job_file import fields as job_fields
from mlengine.core.job_file.located import Located, from_python
from mlengine.core.layout import JobDir
from mlengine.emulator import field_errors, machine_checks

MAX_DISPLAY_NAME = 128
_NETWORK = re.compile(r"projects/[0-9]+/global/networks/[^/]+")


def check(job: Mapping[str, Any]) -> None:
    """Check a job.

    :param job: the job as returned by :func:`~mlengine.emulator.messages.read_custom_job`.
    :raises EmulatorApiError: a field is missing or invalid.
    """
    check_display_name(job.get("displayName"), "custom_job")
    check_spec(job.get("jobSpec") or {})
    check_labels(job.get("labels", {}), "custom_job")


def check_display_name(name: str | None, resource: str) -> None:
    """Check the display name of a resource.

    :param resource: the API's name for the resource, for example ``custom_job``.
    :raises EmulatorApiError: the name is missing or too long.
    """
    if not name:
        raise field_errors.vertex(f"{resource}.display_name", field_errors.REQUIRED)
    if len(name) > MAX_DISPLAY_NAME:
        raise field_errors.vertex(
            f"{resource}.display_name", f"The display name must be at most {MAX_DISPLAY_NAME} characters."
        )


def check_labels(labels: Mapping[str, str], resource: str) -> None:
    """Check the labels of a resource.

    :param resource: the API's name for the resource, for example ``custom_job``.
    :raises EmulatorApiError: there are too many labels, or one is invalid.
    """
    try:
        job_fields.labels(from_python(labels, resource, "labels"))
    except JobFileError as error:
        raise field_errors.vertex(
            f"{resource}.labels", field_errors.LABELS, f"{error.message}: {error.hint}"
        ) from error


def check_spec(spec: Mapping[str, Any]) -> None:
    """Check the spec of a job.

    :param spec: a ``CustomJobSpec`` in canonical form.
    :raises EmulatorApiError: a field is missing or invalid.
    """
    try:
        _check_spec(from_python(spec, "custom_job", "jobSpec"))
    except JobFileError as error:
        raise field_errors.vertex_of(error, "custom_job") from error


def _check_spec(spec: Located) -> None:
    pools = _optional(spec, "workerPoolSpecs")
    if pools is None or not any(pool.value for pool in pools.items()):
        raise field_errors.vertex("job_spec.worker_pool_specs", field_errors.REQUIRED, "add a worker pool")
    if len(pools.items()) > len(POOL_ROLES):
        raise pools.error(f"has {len(pools.items())} pools", f"{len(POOL_ROLES)} is the maximum")
    for place, pool in enumerate(pools.items()):
        count = _replicas(pool)
        if place == 0 and count != 1:
            raise field_errors.vertex(
                f"{pool.path}.replicaCount", f"replica_count must be 1 in the first pool, not {count}.", "set it to 1"
            )
        if count:
            _check_pool(pool)
    scheduling = _optional(spec, "scheduling")
    for name in ("timeout", "maxWaitDuration"):
        if scheduling is not None and (duration := _optional(scheduling, name)) is not None:
            duration.seconds()
    output = _optional(spec, "baseOutputDirectory", "outputUriPrefix")
    if output is not None:
        _check_uri(output)
    _check_surroundings(spec)


def _check_pool(pool: Located) -> None:
    machine_checks.check(pool)
    container, package = _optional(pool, "containerSpec"), _optional(pool, "pythonPackageSpec")
    if package is not None:
        _check_package(package)
    elif container is not None:
        _check_container(container)
    else:
        raise field_errors.vertex(
            pool.path, "One of `container_spec` and `python_package_spec` must be specified.", "add one of them"
        )


def _check_surroundings(spec: Located) -> None:
    """Check the resources that the job uses in addition to its machines."""
    network = _optional(spec, "network")
    if network is not None and not _NETWORK.fullmatch(network.value):
        # "Where {project} is a project number, as in 12345".
        raise field_errors.vertex(
            network.path, f'Invalid network: "{network.value}".', "use projects/PROJECT_NUMBER/global/networks/NAME"
        )
    if _optional(spec, "tensorboard") is not None and _optional(spec, "serviceAccount") is None:
        raise field_errors.vertex(
            f"{spec.path}.serviceAccount", "The service account is required if `tensorboard` is set."
        )


def _check_container(container: Located) -> None:
    job_fields.image(_required(container, "imageUri"))
    _check_process(container)


def _check_package(package: Located) -> None:
    job_fields.image(_required(package, "executorImageUri"))
    job_fields.package_uris(_required(package, "packageUris"))
    job_fields.module(_required(package, "pythonModule"))
    _check_process(package)


def _check_process(process: Located) -> None:
    readers = {"command": job_fields.args, "args": job_fields.args, "env": job_fields.env}
    for name, reader in readers.items():
        if (field := _optional(process, name)) is not None:
            reader(field)


def _check_uri(field: Located) -> None:
    try:
        JobDir(str(field.value).rstrip("/"))
    except StorageError as error:
        raise field.error(error.message, error.hint) from error


def _replicas(pool: Located) -> int:
    field = _optional(pool, "replicaCount")
    return 0 if field is None else field.integer(limits.replica_count)


def _optional(parent: Located, *path: str) -> Located | None:
    """The field at ``path``; ``None`` if it is absent."""
    found: Located | None = parent
    for name in path:
        found = found.value.get(name) if found is not None and isinstance(found.value, dict) else None
    return found


def _required(parent: Located, name: str) -> Located:
    field = _optional(parent, name)
    if field is None:
        raise field_errors.vertex(f"{parent.path}.{name}", field_errors.REQUIRED)
    return field

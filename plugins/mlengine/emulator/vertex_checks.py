"""Checks a ``CustomJob`` as the service does when a job is created.

The limits of single fields are those of the job file: :mod:`mlengine.core.limits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlengine.backends.vertex.states import POOL_ROLES
from mlengine.core import limits
from mlengine.core.errors import EmulatorApiError, JobFileError, StorageError
from mlengine.core.job_file import fields as job_fields
from mlengine.core.job_file.located import Located, from_python
from mlengine.core.layout import JobDir

MAX_DISPLAY_NAME = 128


def check(job: Mapping[str, Any]) -> None:
    """Check a job.

    :param job: as :func:`~mlengine.emulator.messages.read_custom_job` returns it.
    :raises EmulatorApiError: a field is missing or invalid.
    """
    name = job.get("displayName")
    if not name:
        raise EmulatorApiError('Required field "custom_job.display_name" is not set.')
    if len(name) > MAX_DISPLAY_NAME:
        raise EmulatorApiError(f"custom_job.display_name must be at most {MAX_DISPLAY_NAME} characters.")
    try:
        _check_fields(from_python(job, "custom_job"))
    except JobFileError as error:
        raise EmulatorApiError(error.message, hint=error.hint) from error


def _check_fields(job: Located) -> None:
    spec = job.value.get("jobSpec") or from_python({}, job.where, "jobSpec")
    pools = _optional(spec, "workerPoolSpecs")
    if pools is None or not any(pool.value for pool in pools.items()):
        raise spec.error("has no worker pool", "add a worker_pool_spec")
    if len(pools.items()) > len(POOL_ROLES):
        raise pools.error(f"has {len(pools.items())} pools", f"{len(POOL_ROLES)} is the maximum")
    for place, pool in enumerate(pools.items()):
        count = _replicas(pool)
        if place == 0 and count != 1:
            raise pool.error(f"replica_count must be 1 in the first pool, not {count}", "set it to 1")
        if count:
            _check_pool(pool)
    scheduling = _optional(spec, "scheduling")
    for name in ("timeout", "maxWaitDuration"):
        if scheduling is not None and (duration := _optional(scheduling, name)) is not None:
            duration.seconds()
    output = _optional(spec, "baseOutputDirectory", "outputUriPrefix")
    if output is not None:
        _check_uri(output)
    if (labels := _optional(job, "labels")) is not None:
        job_fields.labels(labels)


def _check_pool(pool: Located) -> None:
    machine = _optional(pool, "machineSpec")
    kind = _optional(pool, "machineSpec", "machineType")
    if machine is None or kind is None:
        raise pool.error("machine_spec.machine_type is required", "for example n1-standard-4")
    job_fields.machine_type(kind)
    job_fields.accelerator(_optional(machine, "acceleratorType"), _optional(machine, "acceleratorCount"))
    container, package = _optional(pool, "containerSpec"), _optional(pool, "pythonPackageSpec")
    if package is not None:
        _check_package(package)
    elif container is not None:
        _check_container(container)
    else:
        raise pool.error("one of container_spec and python_package_spec is required", "add one of them")


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
        raise parent.error(f"{name} is required", f"set {name}")
    return field

"""The types of a request's fields, to check what users write: the option ``raw``, and fields that are passed on.

Only the fields of the API that this package reads are listed. The service checks all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlengine.core.errors import BackendError

_TEXT, _FLAG, _INTEGER = "a string", "true or false", "an integer"
_TEXTS = [_TEXT]
_VARIABLES = [{"name": _TEXT, "value": _TEXT}]
_CONTAINER = {"imageUri": _TEXT, "command": _TEXTS, "args": _TEXTS, "env": _VARIABLES}
_PACKAGE = {"executorImageUri": _TEXT, "packageUris": _TEXTS, "pythonModule": _TEXT, "args": _TEXTS, "env": _VARIABLES}
_MACHINE = {
    **dict.fromkeys(("machineType", "acceleratorType", "tpuTopology"), _TEXT),
    "acceleratorCount": _INTEGER,
    "reservationAffinity": {"reservationAffinityType": _TEXT, "key": _TEXT, "values": _TEXTS},
}
_POOL = {
    "machineSpec": _MACHINE,
    "replicaCount": _INTEGER,
    "containerSpec": _CONTAINER,
    "pythonPackageSpec": _PACKAGE,
    "diskSpec": {"bootDiskType": _TEXT, "bootDiskSizeGb": _INTEGER},
    "nfsMounts": [dict.fromkeys(("server", "path", "mountPoint"), _TEXT)],
}
_JOB_SPEC = {
    "workerPoolSpecs": [_POOL],
    "scheduling": {
        **dict.fromkeys(("timeout", "maxWaitDuration", "strategy"), _TEXT),
        **dict.fromkeys(("disableRetries", "restartJobOnWorkerRestart"), _FLAG),
    },
    **dict.fromkeys(("serviceAccount", "network", "tensorboard", "experiment", "experimentRun"), _TEXT),
    "persistentResourceId": _TEXT,
    "reservedIpRanges": _TEXTS,
    "pscInterfaceConfig": {
        "networkAttachment": _TEXT,
        "dnsPeeringConfigs": [dict.fromkeys(("domain", "targetProject", "targetNetwork"), _TEXT)],
    },
    **dict.fromkeys(("enableWebAccess", "enableDashboardAccess"), _FLAG),
}
# "*" stands for any name.
_JOB = {"displayName": _TEXT, "jobSpec": _JOB_SPEC, "labels": {"*": _TEXT}, "encryptionSpec": {"kmsKeyName": _TEXT}}


def check(job_id: str, data: Any, where: str) -> None:
    """Check the types in a ``CustomJob``, or in a part of one.

    :param where: the name of ``data`` in an error.
    :raises BackendError: a field has another type; the message names the field.
    """
    for path, expected, value in _wrong(data, _JOB, where):
        raise BackendError(f"job {job_id}: {path} must be {expected}, not {value!r}", hint=f"correct {path}")


def check_complete(job_id: str, body: Mapping[str, Any]) -> None:
    """Check the types in a finished request, and that ``raw`` has not removed a field that every job has.

    :raises BackendError: a field is missing or has another type; the message names the field.
    """
    check(job_id, body, "the request")
    pools = (body.get("jobSpec") or {}).get("workerPoolSpecs")
    if not pools or not pools[0]:
        raise BackendError(f"job {job_id}: the request has no chief", hint="remove workerPoolSpecs from raw")
    for number, pool in enumerate(pools):
        if pool and not (pool.get("machineSpec") or {}).get("machineType"):
            raise BackendError(
                f"job {job_id}: workerPoolSpecs[{number}] has no machineType",
                hint="raw replaces a list of another length as a whole: write complete pools",
            )
        for variable in (pool.get("containerSpec") or pool.get("pythonPackageSpec") or {}).get("env", ()):
            if "name" not in variable:
                raise BackendError(
                    f"job {job_id}: workerPoolSpecs[{number}].env has a variable without a name: {dict(variable)!r}",
                    hint="write name and value",
                )


def _wrong(value: Any, kind: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """The path, expected type and value of each field with a wrong type. A value ``None`` means that it is not set."""
    if value is None:
        return
    if isinstance(kind, Mapping):
        yield from _wrong_fields(value, kind, path)
    elif isinstance(kind, list):
        yield from _wrong_items(value, kind[0], path)
    elif not _has_type(value, kind):
        yield path, kind, value


def _wrong_fields(value: Any, kinds: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(value, Mapping):
        yield path, "a mapping", value
        return
    for name, item in value.items():
        if not isinstance(name, str):
            yield f"a name in {path}", _TEXT, name
        elif expected := kinds.get(name, kinds.get("*")):
            yield from _wrong(item, expected, f"{path}.{name}")


def _wrong_items(value: Any, kind: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(value, list | tuple):
        yield path, "a list", value
        return
    for number, item in enumerate(value):
        if item is None:
            yield f"{path}[{number}]", kind if isinstance(kind, str) else "a mapping", item
        yield from _wrong(item, kind, f"{path}[{number}]")


def _has_type(value: Any, kind: str) -> bool:
    if kind == _FLAG:
        return isinstance(value, bool)
    if kind == _INTEGER:  # in the API's JSON, an int64 is a string
        return not isinstance(value, bool) and re.fullmatch(r"-?[0-9]{1,18}", str(value), re.ASCII) is not None
    return isinstance(value, str)

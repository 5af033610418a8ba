"""Converts Vertex AI's job format, ``workerPoolSpecs:``, to a :class:`TrainingSpec`.

The order of the pools determines their roles: chief, worker, parameter server, evaluator. An empty pool is skipped. A
job file may be the body of a CustomJob (``displayName``, ``jobSpec``, ``labels``) or only its job spec, in camelCase or
snake_case. All pools must run the same command, as on ML Engine. Images and machines may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlengine.core import limits
from mlengine.core.job_file import fields as jobfields
from mlengine.core.job_file import ray_section
from mlengine.core.job_file.located import Located, from_python
from mlengine.core.spec import Pool, Role, TrainingSpec

_MARKS = frozenset({"workerPoolSpecs", "worker_pool_specs", "jobSpec", "job_spec"})
_JOB = ("displayName", "jobSpec", "labels", "encryptionSpec", "ray")
_SIBLINGS = ("labels", "ray", "displayName", "display_name", "encryptionSpec", "encryption_spec")
_SPEC = (
    *("workerPoolSpecs", "scheduling", "serviceAccount", "network", "reservedIpRanges", "pscInterfaceConfig"),
    *("baseOutputDirectory", "tensorboard", "enableWebAccess", "enableDashboardAccess", "experiment", "experimentRun"),
    *("models", "persistentResourceId", "protectedArtifactLocationId"),
)
_POOL = (
    *("machineSpec", "replicaCount", "containerSpec", "pythonPackageSpec", "diskSpec", "nfsMounts", "lustreMounts"),
)
_MACHINE = (
    *("machineType", "acceleratorType", "acceleratorCount", "gpuPartitionSize", "tpuTopology", "reservationAffinity"),
)
_PACKAGE = ("executorImageUri", "packageUris", "pythonModule", "args", "env")
_CONTAINER = ("imageUri", "command", "args", "env")
_SCHEDULING = ("timeout", "restartJobOnWorkerRestart", "strategy", "disableRetries", "maxWaitDuration")
_PASSED_ON: Mapping[str, Callable[[Located], Any]] = {
    **dict.fromkeys(
        ("serviceAccount", "network", "tensorboard", "experiment", "experimentRun", "persistentResourceId"),
        Located.text,
    ),
    **dict.fromkeys(("enableWebAccess", "enableDashboardAccess"), Located.flag),
    "reservedIpRanges": Located.texts,
}
_ROLES = tuple(Role)


def is_vertex(data: Mapping[str, Any]) -> bool:
    """Whether a job file, or the ``source`` of a spec, is in Vertex AI's format."""
    return not _MARKS.isdisjoint(data)


def read(root: Located) -> TrainingSpec:
    """Read a job file in Vertex AI's format.

    :raises JobFileError: the job file is invalid; the error has the line and a hint.
    """
    if "trainingInput" in root.value:
        raise root.value["trainingInput"].error(
            "is given with Vertex AI's fields", "keep one of the two ways to write a job"
        )
    wrapped = not {"jobSpec", "job_spec"}.isdisjoint(root.value)
    outer = root.fields(_JOB if wrapped else (*_SPEC, "displayName", "labels", "ray"))
    if "jobSpec" in outer:
        outer["jobSpec"].check_siblings("jobSpec", _SIBLINGS)
    fields = outer["jobSpec"].fields(_SPEC) if "jobSpec" in outer else outer
    if "workerPoolSpecs" not in fields:
        raise (outer.get("jobSpec") or root).error("has no workerPoolSpecs", "add one pool at least: the chief's")
    commands: dict[str, dict[str, tuple[Located, Any]]] = {}
    pools = _pools(fields["workerPoolSpecs"], commands)
    common = {what: jobfields.same_everywhere(values, what) for what, values in commands.items()}
    for name, reader in _PASSED_ON.items():
        if name in fields:
            reader(fields[name])
    if "encryptionSpec" in outer:
        jobfields.encryption(outer["encryptionSpec"])
    output = fields["baseOutputDirectory"].fields(("outputUriPrefix",)) if "baseOutputDirectory" in fields else {}
    return TrainingSpec(
        module=common.get("pythonModule") or "",
        package_uris=common.get("packageUris") or (),
        args=common.get("args") or (),
        pools=pools,
        job_dir=jobfields.gs_uri(output["outputUriPrefix"]) if "outputUriPrefix" in output else None,
        labels=jobfields.labels(outer["labels"]) if "labels" in outer else {},
        env=common.get("env") or {},
        expand_variables=True,
        source={name: value for name, value in root.plain().items() if name != "ray"},
        ray=ray_section.read(outer["ray"]) if "ray" in outer else {},
        **_limits(fields.get("scheduling")),
    )


def idle_pools(source: Mapping[str, Any]) -> tuple[Pool, ...]:
    """The pools that a job file describes, but to which it gives no replicas.

    :param source: the job file, which has been read before.
    """
    fields = from_python(source, "job file").fields((*_JOB, *_SPEC))
    specs = (fields["jobSpec"].fields(_SPEC) if "jobSpec" in fields else fields)["workerPoolSpecs"]
    written = [(role, item) for role, item in zip(_ROLES, specs.items(), strict=False) if item.value]
    pools = [_pool(role, item, item.fields(_POOL)) for role, item in written]
    return tuple(pool for pool in pools if not pool.count)


def _pools(field: Located, commands: dict[str, dict[str, tuple[Located, Any]]]) -> tuple[Pool, ...]:
    """Read the pools, and collect their commands in ``commands``, by field and pool."""
    items = field.items()
    if not items or len(items) > len(_ROLES):
        raise field.error(f"has {len(items)} pools", f"1 to {len(_ROLES)}: {', '.join(role.value for role in _ROLES)}")
    pools = []
    for role, item in zip(_ROLES, items, strict=False):
        fields = item.fields(_POOL) if item.value is not None else {}
        pool = _pool(role, item, fields) if fields else Pool(role, 0)
        if role is Role.CHIEF and pool.count != 1:
            raise item.error(f"the first pool is the chief, and has {pool.count} replicas", "write 'replicaCount: 1'")
        if pool.count:
            pools.append(pool)
            _gather(role, item, fields, commands)
    return tuple(pools)


def _pool(role: Role, item: Located, fields: Mapping[str, Located]) -> Pool:
    if "machineSpec" not in fields:
        raise item.error("has no machineSpec", "add 'machineSpec: {machineType: n1-standard-4}'")
    machine = fields["machineSpec"].fields(_MACHINE)
    if "diskSpec" in fields:
        jobfields.disk(fields["diskSpec"])
    if "machineType" not in machine:
        raise fields["machineSpec"].error("has no machineType", "for example 'machineType: n1-standard-4'")
    kind, number = jobfields.accelerator(machine.get("acceleratorType"), machine.get("acceleratorCount"))
    count = fields["replicaCount"].integer(limits.replica_count) if "replicaCount" in fields else 1
    return Pool(role, count, jobfields.machine_type(machine["machineType"]), kind, number, _image(item, fields))


def _image(item: Located, fields: Mapping[str, Located]) -> str | None:
    package, container = fields.get("pythonPackageSpec"), fields.get("containerSpec")
    if (package is None) == (container is None):
        raise item.error("must have either pythonPackageSpec or containerSpec", "write one of them in each pool")
    if container is not None:
        found = container.fields(_CONTAINER)
        if "imageUri" not in found:
            raise container.error("has no imageUri", "name the image")
        return jobfields.image(found["imageUri"])
    if package is not None and "executorImageUri" in (found := package.fields(_PACKAGE)):
        return jobfields.image(found["executorImageUri"])
    return None


def _gather(
    role: Role, item: Located, fields: Mapping[str, Located], commands: dict[str, dict[str, tuple[Located, Any]]]
) -> None:
    readers = {
        "pythonModule": jobfields.module,
        "packageUris": jobfields.package_uris,
        "args": jobfields.args,
        "env": jobfields.env,
        "command": jobfields.args,
    }
    package = fields.get("pythonPackageSpec")
    body = package.fields(_PACKAGE) if package is not None else fields["containerSpec"].fields(_CONTAINER)
    for name, reader in readers.items():
        value = reader(body[name]) if name in body else None
        commands.setdefault(name, {})[role.value] = (body.get(name, item), value or None)


def _limits(field: Located | None) -> dict[str, Any]:
    """Read the time limits. On Vertex AI, 0 means no limit."""
    fields = field.fields(_SCHEDULING) if field is not None else {}
    names = {"timeout": "max_running_seconds", "maxWaitDuration": "max_wait_seconds"}
    if "strategy" in fields:
        jobfields.strategy(fields["strategy"])
    limits = {names[name]: item.seconds() for name, item in fields.items() if name in names}
    return {name: value for name, value in limits.items() if value}

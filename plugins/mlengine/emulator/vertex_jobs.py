"""A ``CustomJob`` as a training: what the service checks, and what the backend is handed.

A job made by this project's own backend becomes the very spec it was made from. Any other is run through
:mod:`mlengine.emulator.replica`, with each pool's own command and without ``--job-dir``, as Vertex AI has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mlengine.backends import Submission
from mlengine.backends.vertex.states import POOL_ROLES
from mlengine.core.errors import ServiceRefusalError, StorageError
from mlengine.core.expansion import expand
from mlengine.core.layout import JobDir, join, split_uri
from mlengine.core.spec import Pool, TrainingSpec
from mlengine.emulator.adapter import Task, adapted, bucket_of, scratch_dir
from mlengine.storage.client import Storage

_LABEL = re.compile(r"[\w-]{0,63}")
_PLAN = frozenset({"module", "packages", "job_dir", "primary", "image", "tf_config"})
_ATTEMPT = "MLENGINE_ATTEMPT"
Job = Mapping[str, Any]


def check(job: Job) -> None:
    """:raises ServiceRefusalError: for what the real service refuses at once."""
    if not job.get("displayName"):
        raise ServiceRefusalError('Required field "custom_job.display_name" is not set.')
    if len(job["displayName"]) > 128:
        raise ServiceRefusalError("custom_job.display_name must be at most 128 characters.")
    pools = job.get("jobSpec", {}).get("workerPoolSpecs", [])
    if not any(pools):
        raise ServiceRefusalError("custom_job.job_spec.worker_pool_specs must have at least one pool.")
    if len(pools) > len(POOL_ROLES):
        raise ServiceRefusalError(f"custom_job.job_spec.worker_pool_specs: at most {len(POOL_ROLES)} pools.")
    if int(pools[0].get("replicaCount", 0)) != 1:
        raise ServiceRefusalError("custom_job.job_spec.worker_pool_specs[0].replica_count must be 1.")
    for place, pool in enumerate(pools):
        _check_pool(f"custom_job.job_spec.worker_pool_specs[{place}]", pool)
    output = job["jobSpec"].get("baseOutputDirectory", {}).get("outputUriPrefix")
    if output is not None:
        _check_folder("custom_job.job_spec.base_output_directory", output)
    for name, value in job.get("labels", {}).items():
        if not (_LABEL.fullmatch(name) and _LABEL.fullmatch(value) and name == name.lower() and value == value.lower()):
            raise ServiceRefusalError(f"custom_job.labels: '{name}: {value}' is not a label.")


def submission(job: Job, number: str, storage: Storage, bucket: str | None) -> tuple[Submission, list[str]]:
    """What the backend is handed, and sentences for the job's log.

    :param number: the id that the service gave the job.
    :param bucket: where jobs that name no bucket leave their logs.
    """
    own = _own_spec(job)
    output = job["jobSpec"].get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    attempt = 1
    notes: list[str] = []
    if own is not None:
        spec, job_dir, attempt = own
    else:
        spec, notes = _foreign_spec(job, output, storage, bucket)
        job_dir = output or scratch_dir(bucket_of(*spec.package_uris[-1:]), number)
    return Submission(f"v{number}", number, attempt, job_dir, spec, dict(job.get("labels", {}))), notes


def _check_pool(where: str, pool: Job) -> None:
    if not pool or not int(pool.get("replicaCount", 0)):
        return
    if not pool.get("machineSpec", {}).get("machineType"):
        raise ServiceRefusalError(f"{where}.machine_spec.machine_type is required.")
    container, package = pool.get("containerSpec"), pool.get("pythonPackageSpec")
    if container is None and package is None:
        raise ServiceRefusalError(f"{where}: one of container_spec and python_package_spec is required.")
    if container is not None and not container.get("imageUri"):
        raise ServiceRefusalError(f"{where}.container_spec.image_uri is required.")
    if package is not None:
        for field in ("executorImageUri", "packageUris", "pythonModule"):
            if not package.get(field):
                raise ServiceRefusalError(f"{where}.python_package_spec.{field} is required.")
        for uri in package["packageUris"]:
            _check_uri(f"{where}.python_package_spec.package_uris", uri)


def _check_folder(where: str, uri: str) -> None:
    try:
        JobDir(uri)
    except StorageError as error:
        raise ServiceRefusalError(f"{where}: {error.message}", remedy=error.remedy) from error


def _check_uri(where: str, uri: str) -> None:
    try:
        split_uri(uri)
    except StorageError as error:
        raise ServiceRefusalError(f"{where}: {error.message}", remedy=error.remedy) from error


def _pools(job: Job) -> list[tuple[Pool, Job]]:
    found = []
    for role, pool in zip(POOL_ROLES, job["jobSpec"]["workerPoolSpecs"], strict=False):
        count = int(pool.get("replicaCount", 0))
        if count:
            machine = pool["machineSpec"]
            accelerators = int(machine.get("acceleratorCount", 0))
            kind = Pool(role, count, machine["machineType"], machine.get("acceleratorType"), accelerators)
            found.append((kind, pool))
    return found


def _limits(job: Job) -> dict[str, Any]:
    timeout = job["jobSpec"].get("scheduling", {}).get("timeout", "0s")
    return {"max_running_seconds": int(float(timeout.rstrip("s"))) or None}


def _own_spec(job: Job) -> tuple[TrainingSpec, str, int] | None:
    """The spec that our own backend made the job from, with job dir and attempt; ``None`` for anybody else's."""
    plans = set()
    for _, pool in _pools(job):
        container = pool.get("containerSpec", {})
        args = container.get("args", [])
        if container.get("command", [])[:2] != ["python3", "-c"] or not args or not args[0].startswith('{"module"'):
            return None
        plans.add(json.dumps([args, container.get("env", [])]))
    if len(plans) != 1:
        return None
    args, variables = json.loads(plans.pop())
    plan = json.loads(expand(args[0], {}))
    if set(plan) != _PLAN or not plan["packages"] or args[-2:-1] != ["--job-dir"]:
        return None
    env = {variable["name"]: variable.get("value", "") for variable in variables}
    attempt = int(env.pop(_ATTEMPT, "1"))
    spec = TrainingSpec(
        module=plan["module"],
        package_uris=tuple(plan["packages"]),
        args=tuple(args[1:-2]),
        pools=tuple(kind for kind, _ in _pools(job)),
        primary_name=plan["primary"],
        env=env,
        single_replica_tf_config=plan["tf_config"] is not None,
        expand_variables=True,
        source=(plan["tf_config"] or {}).get("job", {}),
        **_limits(job),
    )
    return spec, expand(args[-1], {}).rstrip("/"), attempt


def _foreign_spec(
    job: Job, output: str, storage: Storage, default_bucket: str | None
) -> tuple[TrainingSpec, list[str]]:
    pools = _pools(job)
    packages: dict[str, None] = {}
    tasks: dict[str, Task] = {}
    notes = []
    for kind, pool in pools:
        package, container = pool.get("pythonPackageSpec"), pool.get("containerSpec", {})
        if package is not None:
            packages |= dict.fromkeys(package["packageUris"])
            command = ["python3", "-m", package["pythonModule"], *package.get("args", ())]
            tasks[kind.role.value] = Task(command, package.get("env", ()))
            continue
        command = [*container.get("command", ()), *container.get("args", ())]
        if not container.get("command"):
            raise ServiceRefusalError(
                f"This service runs commands and no images: {container['imageUri']} has its command inside.",
                status="FAILED_PRECONDITION",
                remedy="give container_spec.command, for example python3 -m trainer.task",
            )
        tasks[kind.role.value] = Task(command, container.get("env", ()))
        notes.append(f"image {container['imageUri']} is not pulled: its command runs on this machine")
    dirs = {}
    if output:
        dirs = {
            "MODEL": join(output, "model/"),
            "CHECKPOINT": join(output, "checkpoints/"),
            "TENSORBOARD_LOG": join(output, "logs/"),
        }
    bucket = bucket_of(output, *packages, default_bucket)
    spec = adapted(
        face="vertex",
        tasks=tasks,
        pools=[kind for kind, _ in pools],
        packages=list(packages),
        bucket=bucket,
        dirs=dirs,
        job=job["jobSpec"],
        storage=storage,
        **_limits(job),
    )
    return spec, list(dict.fromkeys(notes))

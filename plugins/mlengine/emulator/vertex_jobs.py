"""Converts a ``CustomJob`` to a submission.

A job that mlengine's own Vertex AI backend created is converted back to its original spec. Any other job runs through
:mod:`mlengine.emulator.replica`, with each pool's own command and without ``--job-dir``, as on Vertex AI.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlengine.backends import Submission
from mlengine.core.cluster import POOL_ROLES
from mlengine.core.errors import EmulatorApiError
from mlengine.core.expansion import expand
from mlengine.core.job_file.located import from_python
from mlengine.core.layout import join
from mlengine.core.spec import Pool, TrainingSpec
from mlengine.emulator.adapter import Task, adapted, bucket_of, scratch_dir
from mlengine.emulator.objects import ObjectCopies
from mlengine.runtime.extras import ACCELERATOR_COUNT, ACCELERATOR_TYPE
from mlengine.storage.client import Storage

_PLAN = frozenset({"module", "packages", "job_dir", "job_dir_arg", "primary", "image", "tf_config", "tensorboard"})
_ATTEMPT = "MLENGINE_ATTEMPT"
Job = Mapping[str, Any]


def submission(
    job: Job, number: str, storage: Storage, bucket: str | None, copies: ObjectCopies | None = None
) -> tuple[Submission, list[str]]:
    """The submission for the backend, and messages for the job's log.

    :param job: the job as accepted by :func:`mlengine.emulator.vertex_checks.check`.
    :param number: the job's id.
    :param bucket: the bucket for the logs of jobs that name no bucket.
    :param copies: copies objects whose paths below ``/gcs`` are in commands; ``None`` if buckets are mounted where the
        job runs.
    :raises EmulatorApiError: the job cannot run here.
    """
    own = _own_spec(job)
    output = job["jobSpec"].get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    attempt = 1
    notes: list[str] = []
    if own is not None:
        spec, job_dir, attempt = own
    else:
        spec, notes = _other_spec(job, output, storage, bucket, copies)
        job_dir = output or scratch_dir(bucket_of(*spec.package_uris[-1:]), number)
    return Submission(f"v{number}", number, attempt, job_dir, spec, dict(job.get("labels", {}))), notes


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
    scheduling = job["jobSpec"].get("scheduling", {})
    names = {"timeout": "max_running_seconds"}
    if scheduling.get("strategy") == "FLEX_START":
        names["maxWaitDuration"] = "max_wait_seconds"  # the other strategies ignore this limit
    given = {limit: from_python(scheduling.get(name, "0s"), "custom_job").seconds() for name, limit in names.items()}
    return {limit: seconds or None for limit, seconds in given.items()}


def _own_spec(job: Job) -> tuple[TrainingSpec, str, int] | None:
    """The original spec, job directory and attempt of a job that mlengine's own Vertex AI backend created.

    Returns ``None`` for the job of another client.
    """
    plans = set()
    for _, pool in _pools(job):
        container = pool.get("containerSpec", {})
        args = container.get("args", [])
        if container.get("command", [])[:2] != ["python3", "-c"] or not args or not args[0].startswith('{"module"'):
            return None
        plans.add(json.dumps([args, _variables(container)]))
    if len(plans) != 1:
        return None
    args, variables = json.loads(plans.pop())
    env = {variable["name"]: variable.get("value", "") for variable in variables}
    try:
        plan, attempt = json.loads(expand(args[0], {})), int(env.pop(_ATTEMPT, "1"))
    except ValueError:
        return None
    if set(plan) != _PLAN or not plan["packages"]:
        return None
    if plan["tensorboard"]:
        return None  # then the start command is run; on the local backend, event files are in the train dir
    spec = TrainingSpec(
        module=plan["module"],
        package_uris=tuple(plan["packages"]),
        args=tuple(args[1:-2] if plan["job_dir_arg"] else args[1:]),
        pools=tuple(kind for kind, _ in _pools(job)),
        primary_name=plan["primary"],
        env=env,
        single_replica_tf_config=plan["tf_config"] is not None,
        expand_variables=True,
        source=(plan["tf_config"] or {}).get("job", {}),
        job_dir_arg=plan["job_dir_arg"],
        **_limits(job),
    )
    return spec, plan["job_dir"], attempt


def _other_spec(
    job: Job, output: str, storage: Storage, default_bucket: str | None, copies: ObjectCopies | None
) -> tuple[TrainingSpec, list[str]]:
    pools = _pools(job)
    packages: dict[str, None] = {}
    tasks: dict[str, Task] = {}
    notes: dict[str, None] = {}
    for kind, pool in pools:
        package, container = pool.get("pythonPackageSpec"), pool.get("containerSpec", {})
        task = _package_task(package) if package is not None else _container_task(container)
        tasks[kind.role.value] = task if copies is None else copies.localized(task)
        if package is not None:
            packages |= dict.fromkeys(package["packageUris"])
        else:
            notes[f"image {container['imageUri']} is not pulled: its command runs on this machine"] = None
    spec = adapted(
        api="vertex",
        tasks=tasks,
        pools=[kind for kind, _ in pools],
        packages=list(packages),
        bucket=bucket_of(output, *packages, default_bucket),
        dirs=_output_dirs(output),
        job=job["jobSpec"],
        storage=storage,
        **_limits(job),
    )
    return spec, [*notes, *(copies.notes if copies is not None else ())]


def _package_task(package: Mapping[str, Any]) -> Task:
    command = ["python3", "-m", package["pythonModule"], *package.get("args", ())]
    return Task(command, _variables(package))


def _container_task(container: Mapping[str, Any]) -> Task:
    if not container.get("command"):
        raise EmulatorApiError(
            f"The emulator does not run images, and {container['imageUri']} contains the command.",
            status="FAILED_PRECONDITION",
            hint="set container_spec.command, for example to python3 -m trainer.task",
        )
    return Task([*container["command"], *container.get("args", ())], _variables(container))


def _variables(task: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """The environment variables of a pool, without those for its accelerators, which this machine does not have."""
    return [one for one in task.get("env", ()) if one["name"] not in {ACCELERATOR_TYPE, ACCELERATOR_COUNT}]


def _output_dirs(output: str) -> dict[str, str]:
    """The values of ``AIP_MODEL_DIR``, ``AIP_CHECKPOINT_DIR`` and ``AIP_TENSORBOARD_LOG_DIR``."""
    if not output:
        return {}
    names = {"MODEL": "model/", "CHECKPOINT": "checkpoints/", "TENSORBOARD_LOG": "logs/"}
    return {name: join(output, path) for name, path in names.items()}

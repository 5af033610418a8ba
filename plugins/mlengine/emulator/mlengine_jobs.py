"""Validates a ``Job`` of ML Engine's API and converts it to a submission.

A job with packages and a ``jobDir`` runs directly, as a module with its args followed by ``--job-dir``. A job without a
``jobDir``, or with images, runs through :mod:`mlengine.emulator.replica`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from mlengine.backends import Submission
from mlengine.core.errors import EmulatorApiError, JobFileError
from mlengine.core.job_file import parse, training_input
from mlengine.core.spec import Role, TrainingSpec
from mlengine.emulator import field_errors
from mlengine.emulator.adapter import Task, adapted, bucket_of, scratch_dir
from mlengine.storage.client import Storage

_INPUT = frozenset({"jobId", "trainingInput", "labels"})
# Output-only fields, which some clients send nevertheless.
_OUTPUT = frozenset({"createTime", "startTime", "endTime", "state", "errorMessage", "trainingOutput", "etag"})
_OTHER_OUTPUT = frozenset({"jobPosition", "predictionOutput"})
_CONFIGS = {
    Role.CHIEF: "masterConfig",
    Role.WORKER: "workerConfig",
    Role.PS: "parameterServerConfig",
    Role.EVALUATOR: "evaluatorConfig",
}
Job = Mapping[str, Any]


def read(data: Job) -> tuple[dict[str, Any], TrainingSpec]:
    """The job as the client sent it, without output-only fields, and the spec that it contains.

    :raises EmulatorApiError: a field is missing, unknown or invalid.
    """
    job = {name: value for name, value in data.items() if name not in _OUTPUT | _OTHER_OUTPUT}
    if "predictionInput" in job:
        raise EmulatorApiError("The emulator has no prediction jobs: predictionInput.", status="UNIMPLEMENTED")
    for name in sorted(set(job) - _INPUT):
        raise EmulatorApiError(f"Invalid JSON payload received. Unknown name \"{name}\" at 'job': Cannot find field.")
    if not job.get("jobId"):
        raise field_errors.mlengine("job.job_id", "The job id is required.")
    if not job.get("trainingInput"):
        raise field_errors.mlengine("job", "A job must have a training_input.")
    try:
        spec = parse.check(parse.load(job, name="job"))
    except JobFileError as error:
        raise field_errors.mlengine_of(error) from error
    if not spec.region:
        raise field_errors.mlengine("job.training_input.region", "The region is required.")
    if not spec.package_uris and not spec.pools[0].image_uri:
        raise field_errors.mlengine("job.training_input.package_uris", "Please specify packages or an image.")
    return job, spec


def submission(
    job: Job, spec: TrainingSpec, project: str, storage: Storage, bucket: str | None
) -> tuple[Submission, list[str]]:
    """The submission for the backend, and messages for the job's log.

    The key is always new. The backend may still know a job with this id from an emulator whose state was deleted or is
    stored elsewhere, and that is another job.

    :param bucket: the bucket for the logs of jobs that name no bucket.
    :raises EmulatorApiError: the job cannot run here.
    """
    name = job["jobId"]
    key = "m" + hashlib.sha256(f"{project}/{name}/{secrets.token_hex(16)}".encode()).hexdigest()[:39]
    notes = []
    if spec.runtime_version or spec.python_version:
        notes.append(
            "runtimeVersion and pythonVersion do not apply here: the environment has what the package requires"
        )
    if spec.package_uris and spec.job_dir:
        return Submission(key, name, 1, spec.job_dir.rstrip("/"), spec, spec.labels), notes
    home = bucket_of(spec.job_dir, *spec.package_uris, bucket)
    tail = ["--job-dir", spec.job_dir] if spec.job_dir else []
    changed = adapted(
        api="mlengine",
        tasks={pool.role.value: Task(_command(pool.role, spec, tail)) for pool in spec.pools},
        pools=spec.pools,
        packages=spec.package_uris,
        bucket=home,
        dirs={},
        job=spec.source,
        storage=storage,
        primary_name=spec.primary_name,
        single_replica_tf_config=True,
        region=spec.region,
        max_running_seconds=spec.max_running_seconds,
        max_wait_seconds=spec.max_wait_seconds,
        labels=spec.labels,
    )
    return Submission(key, name, 1, spec.job_dir or scratch_dir(home, name), changed, spec.labels), notes


def _command(role: Role, spec: TrainingSpec, tail: list[str]) -> list[str]:
    if spec.package_uris:
        return ["python3", "-m", spec.module, *spec.args, *tail]
    owner = _CONFIGS[role] if spec.source.get(_CONFIGS[role]) else _CONFIGS[Role.CHIEF]
    command = training_input.container_command(spec.source, role)
    if not command:
        raise EmulatorApiError(
            f"The emulator does not run images, and {spec.pools[0].image_uri} contains the command.",
            status="FAILED_PRECONDITION",
            hint="set containerCommand, for example to [python3, -m, trainer.task]",
        )
    args = (spec.source.get(owner) or {}).get("containerArgs")
    return [*command, *(args or spec.args), *tail]

"""A ``Job`` of ML Engine's API as a training.

With a ``jobDir`` it is what this project trains anyway: packages, a module, args, and ``--job-dir`` at their end, as ML
Engine had it. Without one, or with images, it runs through :mod:`mlengine.emulator.replica`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from mlengine.backends import Submission
from mlengine.core.errors import JobFileError, ServiceRefusalError
from mlengine.core.job_file import parse
from mlengine.core.spec import Role, TrainingSpec
from mlengine.emulator.adapter import Task, adapted, bucket_of, scratch_dir
from mlengine.storage.client import Storage

_INPUT_ONLY = frozenset({"jobId", "trainingInput", "labels"})
# Sent by some clients, filled in by the service alone.
_OUTPUT = frozenset({"createTime", "startTime", "endTime", "state", "errorMessage", "trainingOutput", "etag"})
_OUTPUT_TOO = frozenset({"jobPosition", "predictionOutput"})
_CONFIGS = {
    Role.CHIEF: "masterConfig",
    Role.WORKER: "workerConfig",
    Role.PS: "parameterServerConfig",
    Role.EVALUATOR: "evaluatorConfig",
}
Job = Mapping[str, Any]


def read(data: Job) -> tuple[dict[str, Any], TrainingSpec]:
    """The job as sent, without what the service fills in, and the spec in it.

    :raises ServiceRefusalError: for what is wrong with it.
    """
    job = {name: value for name, value in data.items() if name not in _OUTPUT | _OUTPUT_TOO}
    if "predictionInput" in job:
        raise ServiceRefusalError("This service trains only: predictionInput is not served.", status="UNIMPLEMENTED")
    for name in sorted(set(job) - _INPUT_ONLY):
        raise ServiceRefusalError(
            f"Invalid JSON payload received. Unknown name \"{name}\" at 'job': Cannot find field."
        )
    if not job.get("jobId"):
        raise ServiceRefusalError("Field: job.job_id Error: The job id is required.")
    if not job.get("trainingInput"):
        raise ServiceRefusalError("Field: job Error: A job must have a training_input.")
    try:
        spec = parse.check(parse.load(job, name="job"))
    except JobFileError as error:
        raise ServiceRefusalError(error.message, remedy=error.remedy) from error
    if not spec.region:
        raise ServiceRefusalError("Field: job.training_input.region Error: The region is required.")
    if not spec.package_uris and not spec.pools[0].image_uri:
        raise ServiceRefusalError("Field: job.training_input.package_uris Error: Please specify packages or an image.")
    return job, spec


def submission(
    job: Job, spec: TrainingSpec, project: str, storage: Storage, bucket: str | None
) -> tuple[Submission, list[str]]:
    """What the backend is handed, and sentences for the job's log.

    The key is another one each time: a job of this id, of a service whose state was deleted or lies elsewhere, may
    still be known to the backend, and is not this job.
    """
    name = job["jobId"]
    key = "m" + hashlib.sha256(f"{project}/{name}/{secrets.token_hex(16)}".encode()).hexdigest()[:39]
    notes = []
    if spec.runtime_version or spec.python_version:
        notes.append(
            "runtimeVersion and pythonVersion are those of this machine's environment: the package's own requirements "
            "are installed"
        )
    if spec.package_uris and spec.job_dir:
        return Submission(key, name, 1, spec.job_dir.rstrip("/"), spec, spec.labels), notes
    home = bucket_of(spec.job_dir, *spec.package_uris, bucket)
    tail = ["--job-dir", spec.job_dir] if spec.job_dir else []
    changed = adapted(
        face="mlengine",
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
    config = spec.source.get(_CONFIGS[role]) or spec.source.get(_CONFIGS[Role.CHIEF]) or {}
    command = list(config.get("containerCommand") or ())
    if not command:
        raise ServiceRefusalError(
            f"This service runs commands and no images: {config.get('imageUri')} has its command inside.",
            status="FAILED_PRECONDITION",
            remedy="give containerCommand, for example [python3, -m, trainer.task]",
        )
    return [*command, *(config.get("containerArgs") or spec.args), *tail]

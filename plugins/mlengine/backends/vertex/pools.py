"""The worker pools of a request: which machines, and what runs on them.

A pool's place is its role; one that the cluster does not have is empty where a later one follows. What runs is, in this
order: the user's own image with its own command; Google's executor image, where one is named; else any image with
Python, and this project's start command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mlengine.backends import Submission
from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.reservations import affinity
from mlengine.backends.vertex.start_command import start_command
from mlengine.backends.vertex.states import POOL_ROLES
from mlengine.backends.vertex.texts import Texts, single_tf_config
from mlengine.core.expansion import escape
from mlengine.core.job_file import tiers, tpus, worker_pools
from mlengine.core.spec import Pool, Role, TrainingSpec

DEFAULT_PYTHON = "3.11"
_PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Where an ML Engine job file describes the container of a role.
_CONFIGS = {
    Role.CHIEF: "masterConfig",
    Role.WORKER: "workerConfig",
    Role.PS: "parameterServerConfig",
    Role.EVALUATOR: "evaluatorConfig",
}


def worker_pool_specs(submission: Submission, options: VertexOptions) -> tuple[list[dict[str, Any]], list[str]]:
    """``workerPoolSpecs``, and one note for each difference from the job file."""
    notes: list[str] = []
    pools: dict[Role, dict[str, Any]] = {}
    for pool in submission.spec.pools:
        if pool.count:
            pools[pool.role], more = _worker_pool(pool, submission, options)
            notes += [note for note in more if note not in notes]
    last = max(POOL_ROLES.index(role) for role in pools)
    return [pools.get(role, {}) for role in POOL_ROLES[: last + 1]], notes


def written_job(spec: TrainingSpec) -> dict[str, Any]:
    """The ``jobSpec`` as a job file in Vertex AI's format has it, in camelCase; empty for ML Engine's."""
    if not worker_pools.is_vertex(spec.source):
        return {}
    source = camel(spec.source)
    job: dict[str, Any] = source.get("jobSpec", source)
    return {name: value for name, value in job.items() if name not in {"displayName", "labels"}}


def camel(data: Any) -> Any:
    """Keys in camelCase all the way down."""
    if isinstance(data, Mapping):
        return {re.sub(r"_([a-z])", lambda match: match[1].upper(), name): camel(value) for name, value in data.items()}
    return [camel(item) for item in data] if isinstance(data, list | tuple) else data


def without_empty(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None and value not in ({}, [], "")}


def _worker_pool(pool: Pool, submission: Submission, options: VertexOptions) -> tuple[dict[str, Any], list[str]]:
    machine, notes = tiers.for_vertex(pool)
    machine_type = machine.machine_type or options.machine_type
    machine, more = tiers.with_built_in(machine, machine_type)
    notes += more
    written = _written_pool(pool, submission.spec)
    machine_spec = {**written.get("machineSpec", {}), "machineType": machine_type}
    if machine.accelerator_type:
        machine_spec["acceleratorType"] = machine.accelerator_type
        machine_spec["acceleratorCount"] = max(1, machine.accelerator_count)
    topology = tpus.topology(machine_spec["machineType"], pool.accelerator_count)
    if topology:
        machine_spec.setdefault("tpuTopology", topology)
    if options.reservation:
        machine_spec["reservationAffinity"] = affinity(options.reservation)
    disk = {"bootDiskType": options.boot_disk_type, "bootDiskSizeGb": options.boot_disk_gb}
    task, more = _task(pool, written, submission, options)
    spec = {
        **{name: value for name, value in written.items() if name in {"nfsMounts", "lustreMounts"}},
        **without_empty({"nfsMounts": camel(options.nfs_mounts)}),
        "machineSpec": machine_spec,
        "replicaCount": str(pool.count),
        **task,
        "diskSpec": {**written.get("diskSpec", {}), **without_empty(disk)},
    }
    return without_empty(spec), notes + more


def _written_pool(pool: Pool, spec: TrainingSpec) -> dict[str, Any]:
    """What the job file says of this pool, in Vertex AI's words."""
    written = written_job(spec).get("workerPoolSpecs", [])
    place = POOL_ROLES.index(pool.role)
    if place < len(written):
        return dict(written[place] or {})
    config = spec.source.get(_CONFIGS[pool.role]) or {}
    container = {"command": config.get("containerCommand"), "args": config.get("containerArgs")}
    return without_empty({"diskSpec": config.get("diskConfig"), "containerSpec": without_empty(container)})


def _task(
    pool: Pool, written: Mapping[str, Any], submission: Submission, options: VertexOptions
) -> tuple[dict[str, Any], list[str]]:
    spec = submission.spec
    texts = Texts(submission)
    job_dir = ["--job-dir", escape(submission.job_dir)]
    if pool.image_uri and not spec.package_uris:
        own = written.get("containerSpec", {})
        # In Vertex AI's format all pools have the same args, and so they are the spec's, which may have been replaced.
        args = spec.args if spec.expand_variables else own.get("args") or spec.args
        container = {
            "imageUri": pool.image_uri,
            "command": texts.of(own.get("command", ())),
            "args": [*texts.of(args), *job_dir],
            "env": texts.env(options, with_tf_config=True),
        }
        return {"containerSpec": without_empty(container)}, _own_start(spec)
    executor = written.get("pythonPackageSpec", {}).get("executorImageUri") or options.executor_image_uri
    if executor:
        package = {"executorImageUri": executor, "packageUris": list(spec.package_uris), "pythonModule": spec.module}
        package |= {"args": [*texts.of(spec.args), *job_dir], "env": texts.env(options, with_tf_config=True)}
        return {"pythonPackageSpec": package}, _own_start(spec)
    image, notes = _image(pool, spec, options)
    streams = _streams_to_tensorboard(spec, options)
    texts = Texts(submission, our_start=True, tensorboard=streams)
    # The same plan for every pool; the chief's image, as the chief says what was installed.
    chief = next((other for other in spec.pools if other.role is Role.CHIEF and other.count), pool)
    plan = {
        "module": spec.module,
        "packages": list(spec.package_uris),
        "job_dir": submission.job_dir.rstrip("/"),
        "primary": spec.primary_name,
        "image": _image(chief, spec, options)[0],
        "tf_config": single_tf_config(submission),
        "tensorboard": streams,
    }
    container = {
        "imageUri": image,
        "command": ["python3", "-c", escape(start_command())],
        "args": [escape(json.dumps(plan)), *texts.of(spec.args), *job_dir],
        "env": texts.env(options),
    }
    return {"containerSpec": container}, notes


def _streams_to_tensorboard(spec: TrainingSpec, options: VertexOptions) -> bool:
    """Whether the service uploads event files to a TensorBoard instance, as they are written."""
    raw = options.raw.get("jobSpec", {})
    return bool(options.tensorboard or written_job(spec).get("tensorboard") or raw.get("tensorboard"))


def _own_start(spec: TrainingSpec) -> list[str]:
    """What a job loses whose replicas are not started by our start command."""
    if spec.primary_name == "chief" or len(spec.replicas) == 1:
        return []
    return [f"TF_CONFIG is the service's own: it calls the chief chief, where the job file means {spec.primary_name}"]


def _image(pool: Pool, spec: TrainingSpec, options: VertexOptions) -> tuple[str, list[str]]:
    """The image that the start command runs in: the job file's, the setting's, or plain Python."""
    if pool.image_uri or options.image_uri:
        return str(pool.image_uri or options.image_uri), []
    wanted = spec.python_version
    version = wanted if wanted in _PYTHONS else DEFAULT_PYTHON
    if wanted in {None, version}:
        return f"python:{version}-slim", []
    return f"python:{version}-slim", [f"pythonVersion {wanted} is not offered any more; Python {version} runs the job"]

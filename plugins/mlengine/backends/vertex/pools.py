"""Builds the worker pools of a request: their machines, and the containers that run on them.

A pool's position in the list is its role. A pool that the cluster does not have is empty if a later one follows. The
container is, in this order of precedence: the user's own image with its own command; Google's executor image, if one is
named; otherwise any image with Python, and this project's start command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mlengine.backends import Submission
from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.request_expansion import RequestExpansion, single_tf_config
from mlengine.backends.vertex.reservations import affinity
from mlengine.backends.vertex.start_command import start_command
from mlengine.core.cluster import POOL_ROLES
from mlengine.core.expansion import escape
from mlengine.core.job_file import tiers, tpus, training_input, worker_pools
from mlengine.core.job_file.located import camel
from mlengine.core.spec import Pool, Role, TrainingSpec

DEFAULT_PYTHON = "3.11"
# The Python version in an image's name, such as python:3.11-slim or tf-cpu.2-17.py310:latest.
_PYTHON_IN_NAME = re.compile(r"(?:^|/)python:3\.(\d+)|\.py3(\d+)(?![\w])")
_OLDEST_MINOR = 10  # the oldest Python 3 that the start command and current packages support
# The field of an ML Engine job file that describes the container of a role.
_CONFIGS = {
    Role.CHIEF: "masterConfig",
    Role.WORKER: "workerConfig",
    Role.PS: "parameterServerConfig",
    Role.EVALUATOR: "evaluatorConfig",
}


def worker_pool_specs(submission: Submission, options: VertexOptions) -> tuple[list[dict[str, Any]], list[str]]:
    """The ``workerPoolSpecs`` of a request, and one note for each difference from the job file."""
    notes: list[str] = []
    pools: dict[Role, dict[str, Any]] = {}
    for pool in submission.spec.pools:
        if pool.count:
            pools[pool.role], more = _worker_pool(pool, submission, options)
            notes += [note for note in more if note not in notes]
    last = max(POOL_ROLES.index(role) for role in pools)
    return [pools.get(role, {}) for role in POOL_ROLES[: last + 1]], notes


def written_job(spec: TrainingSpec) -> dict[str, Any]:
    """The ``jobSpec`` in a job file of Vertex AI's format, in camelCase; empty for ML Engine's format."""
    if not worker_pools.is_vertex(spec.source):
        return {}
    source = camel(spec.source)
    job: dict[str, Any] = source.get("jobSpec", source)
    return {name: value for name, value in job.items() if name not in {"displayName", "labels"}}


def without_empty(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None and value not in ({}, [], "")}


def _worker_pool(pool: Pool, submission: Submission, options: VertexOptions) -> tuple[dict[str, Any], list[str]]:
    machine, notes = tiers.for_vertex(pool)
    machine_type = machine.machine_type or options.machine_type
    machine, more = tiers.with_built_in(machine, machine_type)
    notes += more
    written = _written_pool(pool, submission.spec)
    machine_spec = {**_machine_as_written(written, pool), "machineType": machine_type}
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


def _machine_as_written(written: Mapping[str, Any], pool: Pool) -> dict[str, Any]:
    """The job file's ``machineSpec``, unless the pool's machine or accelerators have been replaced."""
    machine: Mapping[str, Any] = written.get("machineSpec", {})
    count = int(machine.get("acceleratorCount", 0))
    accelerator = machine.get("acceleratorType") if count else None
    asked = (machine.get("machineType"), accelerator, count if accelerator else 0)
    return dict(machine) if asked == (pool.machine_type, pool.accelerator_type, pool.accelerator_count) else {}


def _written_pool(pool: Pool, spec: TrainingSpec) -> dict[str, Any]:
    """The job file's fields for this pool, by Vertex AI's names. A pool that it does not have is like the chief's."""
    if worker_pools.is_vertex(spec.source):
        written = written_job(spec).get("workerPoolSpecs", [])
        place = POOL_ROLES.index(pool.role)
        if place < len(written) and written[place]:
            return dict(written[place])
        return {name: value for name, value in written[0].items() if name != "machineSpec"}
    config = spec.source.get(_CONFIGS[pool.role]) or spec.source.get(_CONFIGS[Role.CHIEF]) or {}
    # The chief's arguments are taken from the spec, as they may have been replaced.
    args = None if config == spec.source.get(_CONFIGS[Role.CHIEF]) else config.get("containerArgs")
    container = {"command": training_input.container_command(spec.source, pool.role), "args": args}
    return without_empty({"diskSpec": config.get("diskConfig"), "containerSpec": without_empty(container)})


def _task(
    pool: Pool, written: Mapping[str, Any], submission: Submission, options: VertexOptions
) -> tuple[dict[str, Any], list[str]]:
    spec = submission.spec
    expansion = RequestExpansion(submission)
    job_dir = [escape(word) for word in spec.job_dir_args(submission.job_dir)]
    if pool.image_uri and not spec.package_uris:
        own = written.get("containerSpec", {})
        # In Vertex AI's format, all pools have the same args. They are taken from the spec, as they may be replaced.
        args = spec.args if spec.expand_variables else own.get("args") or spec.args
        container = {
            "imageUri": pool.image_uri,
            "command": expansion.args(own.get("command", ())),
            "args": [*expansion.args(args), *job_dir],
            "env": expansion.env(options, with_tf_config=True),
        }
        return {"containerSpec": without_empty(container)}, _own_start(spec)
    executor = written.get("pythonPackageSpec", {}).get("executorImageUri") or options.executor_image_uri
    if executor:
        package = {"executorImageUri": executor, "packageUris": list(spec.package_uris), "pythonModule": spec.module}
        package |= {"args": [*expansion.args(spec.args), *job_dir], "env": expansion.env(options, with_tf_config=True)}
        return {"pythonPackageSpec": package}, _own_start(spec)
    image, notes = _image(pool, spec, options)
    if pool.image_uri and written.get("containerSpec", {}).get("command"):
        notes.append("the container's command is not used: the job has packages, and runs their module in the image")
    streams = _streams_to_tensorboard(spec, options)
    expansion = RequestExpansion(submission, our_start=True, tensorboard=streams)
    # Every pool has the same plan. Its image is the chief's, as the chief records the installed packages.
    chief = next((other for other in spec.pools if other.role is Role.CHIEF and other.count), pool)
    plan = {
        "module": spec.module,
        "packages": list(spec.package_uris),
        "job_dir": submission.job_dir.rstrip("/"),
        "job_dir_arg": spec.job_dir_arg,
        "primary": spec.primary_name,
        "image": _image(chief, spec, options)[0],
        "tf_config": single_tf_config(submission),
        "tensorboard": streams,
    }
    container = {
        "imageUri": image,
        "command": ["python3", "-c", escape(start_command())],
        "args": [escape(json.dumps(plan)), *expansion.args(spec.args), *job_dir],
        "env": expansion.env(options),
    }
    return {"containerSpec": container}, notes


def python_of_chief(spec: TrainingSpec, options: VertexOptions) -> str | None:
    """The Python version of the chief's image, if the image's name contains it."""
    chief = spec.pools[0]
    package = _written_pool(chief, spec).get("pythonPackageSpec", {})
    image = package.get("executorImageUri") or options.executor_image_uri or _image(chief, spec, options)[0]
    found = _PYTHON_IN_NAME.search(image)
    return f"3.{found[1] or found[2]}" if found else None


def _streams_to_tensorboard(spec: TrainingSpec, options: VertexOptions) -> bool:
    """Whether the service uploads event files to a TensorBoard instance, as they are written."""
    raw = options.raw.get("jobSpec") or {}
    return bool(options.tensorboard or written_job(spec).get("tensorboard") or raw.get("tensorboard"))


def _own_start(spec: TrainingSpec) -> list[str]:
    """Notes about the differences for a job whose replicas are not started by our start command."""
    if spec.primary_name == "chief" or len(spec.replicas) == 1:
        return []
    return [f'TF_CONFIG is the service\'s own: it calls the first replica "chief", not "{spec.primary_name}"']


def _image(pool: Pool, spec: TrainingSpec, options: VertexOptions) -> tuple[str, list[str]]:
    """The image in which the start command runs: the job file's, the setting's, or plain Python."""
    if pool.image_uri or options.image_uri:
        return str(pool.image_uri or options.image_uri), []
    wanted = spec.python_version or DEFAULT_PYTHON
    release = re.fullmatch(r"3\.(\d+)(\.\d+)?", wanted)
    if release and int(release[1]) >= _OLDEST_MINOR:
        return f"python:{wanted}-slim", []
    return f"python:{DEFAULT_PYTHON}-slim", [f"there is no Python {wanted}; Python {DEFAULT_PYTHON} runs the job"]

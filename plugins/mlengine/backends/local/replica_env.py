"""The environment variables and arguments of a job's replicas, as Vertex AI would set them.

``$(VAR)`` in an argument may refer to the variables that Vertex AI declares for a container: those of the service,
those of the job file, and ``TF_CONFIG``. It never refers to a variable of this machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlengine.backends import Submission
from mlengine.backends.cloud_variables import cloud_variables
from mlengine.core.cluster import cluster_spec, tf_config
from mlengine.core.expansion import expand, expand_environment
from mlengine.core.layout import JobDir
from mlengine.core.spec import Role
from mlengine.runtime import env_allowlist
from mlengine.runtime.data_cache import data_cache
from mlengine.runtime.rendezvous import CHIEF_PORTS, rendezvous_variables


def base_env(root: Path, state_dir: Path, submission: Submission, python: Path) -> dict[str, str]:
    """The variables that all replicas of the job share.

    :param root: the job's directory on this machine.
    :param state_dir: the directory that all jobs of this machine share.
    """
    env = env_allowlist.for_replica(os.environ)
    cache = data_cache(state_dir)
    cache.mkdir(exist_ok=True)
    return {
        # Otherwise TensorFlow takes all memory of a GPU, even what another program on that GPU needs.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        **env,
        "PATH": f"{python.parent}:{env.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        **own_variables(submission),
        **_service(submission),
        "MLENGINE_DATA_CACHE": str(cache),
        env_allowlist.MARK: str(root),
    }


def replica_env(
    base: Mapping[str, str],
    submission: Submission,
    addresses: Mapping[Role, Sequence[str]],
    *,
    role: Role,
    index: int,
    scratch: Path,
    chief_ports: Sequence[int] = CHIEF_PORTS,
    devices: Mapping[str, str] | None = None,
    accelerator: tuple[str, int] | None = None,
) -> dict[str, str]:
    """The variables of one replica: ``base``, those by which it finds the others, and those of its scratch directory.

    :param base: the variables that all replicas share. The job file's take precedence over those of its framework.
    :param addresses: ``host:port`` of every replica that others connect to, in order of index.
    :param chief_ports: as :func:`mlengine.runtime.rendezvous.rendezvous_variables` describes them.
    :param devices: the variables of its GPUs (:func:`mlengine.backends.local.gpus.variables`). The job file's take
        precedence. ``None`` keeps the values of ``base``.
    :param accelerator: the type and the number of the replica's accelerators; by default those of the job file.
    """
    if accelerator is None:
        pool = submission.spec.pool(role)
        accelerator = ((pool and pool.accelerator_type) or "", pool.accelerator_count if pool else 0)
    found = rendezvous_variables(
        {"cluster": addresses, "task": {"type": role, "index": index}} if addresses.get(Role.CHIEF) else {},
        chief_ports,
        accelerator=accelerator[0],
        count=accelerator[1],
    )
    visible = {name: value for name, value in (devices or {}).items() if name not in submission.spec.env}
    # Importing Keras writes a file into KERAS_HOME, by default a directory of the user.
    env = {**found, **base, **visible, "MLENGINE_SCRATCH": str(scratch), "KERAS_HOME": str(scratch / ".keras")}
    config = tf_config(submission.spec, addresses, role, index, job_dir=submission.job_dir)
    if config:
        env["TF_CONFIG"] = json.dumps(config)
    if "CLUSTER_SPEC" not in submission.spec.env:
        # The only replica of a job has no address in a cluster. Other jobs may use its usual port, 2222.
        known = addresses if addresses.get(Role.CHIEF) else {Role.CHIEF: [f"127.0.0.1:{chief_ports[0]}"]}
        env["CLUSTER_SPEC"] = json.dumps(cluster_spec(submission.spec, known, role, index))
    return env


def arguments(submission: Submission, env: Mapping[str, str]) -> list[str]:
    """The trainer's arguments, the job directory last.

    :param env: the environment variables of the replica.
    """
    spec = submission.spec
    args = list(spec.args)
    if spec.expand_variables:
        declared = {**own_variables(submission), **_service(submission)}
        if "TF_CONFIG" in env:
            declared["TF_CONFIG"] = env["TF_CONFIG"]
        args = [expand(arg, declared) for arg in args]
    return [*args, *spec.job_dir_args(submission.job_dir)]


def own_variables(submission: Submission) -> dict[str, str]:
    """The environment variables that the job file sets."""
    env = submission.spec.env
    return expand_environment(env, _service(submission)) if submission.spec.expand_variables else dict(env)


def _service(submission: Submission) -> dict[str, str]:
    folder = JobDir(submission.job_dir.rstrip("/"))
    return {
        "CLOUD_ML_JOB_ID": submission.job_id,
        **cloud_variables(submission),
        "AIP_MODEL_DIR": folder.model,
        "AIP_CHECKPOINT_DIR": folder.train,
        "AIP_TENSORBOARD_LOG_DIR": folder.train,
        "MLENGINE_ATTEMPT": str(submission.attempt),
    }

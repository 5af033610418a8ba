"""``TF_CONFIG`` and ``CLUSTER_SPEC`` for each replica, as Google's training services write them.

A trainer may rely on the following about ``TF_CONFIG``:

- a job of one replica has a cluster of one on ML Engine, and no ``TF_CONFIG`` on Vertex AI;
- ``cluster`` has the addresses of chief (``master`` in old runtimes), worker and ps, but not of the evaluator,
  which must not take part in training and is named only in its own ``task``;
- ``task`` is ``{"type", "index"}``; ``environment`` is ``cloud``, also on the local machine;
- ``job`` is the training input with snake_case names.

``CLUSTER_SPEC`` is Vertex AI's own variable, which trainers of other frameworks read. It names worker pools instead of
roles, contains the evaluators, and is also set for a job of one replica.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlengine.core.spec import Role, TrainingSpec

# The roles in the order of Vertex AI's worker pools, and the names of those.
POOL_ROLES: tuple[Role, ...] = (Role.CHIEF, Role.WORKER, Role.PS, Role.EVALUATOR)
POOL_NAMES: Mapping[Role, str] = {role: f"workerpool{place}" for place, role in enumerate(POOL_ROLES)}
_FIRST_PORT = 2222

# Maps whose keys are defined by the user, not field names.
_FREE_FORM = frozenset({"labels", "env"})


def tf_config(
    spec: TrainingSpec,
    addresses: Mapping[Role, Sequence[str]],
    role: Role,
    index: int,
    *,
    trial: str | None = None,
    job_dir: str | None = None,
) -> dict[str, Any]:
    """The ``TF_CONFIG`` of one replica; ``{}`` means that the variable is not set.

    :param addresses: by role, ``host:port`` of every replica that others connect to, in order of index.
    :param trial: the id of the hyperparameter trial, for jobs that have trials.
    :param job_dir: the job dir, if it differs from the one in the job file.
    :raises ValueError: an address is missing, or the replica is not in the spec.
    """
    if (role, index) not in spec.replicas:
        raise ValueError(f"no {role}-{index} in this job: {[f'{r}-{i}' for r, i in spec.replicas]}")
    if not has_cluster(spec):
        return {}
    task: dict[str, Any] = {"type": _name(spec, role), "index": index}
    if trial is not None:
        task["trial"] = trial
    return {"cluster": _cluster(spec, addresses), "task": task, "job": _job(spec, job_dir), "environment": "cloud"}


def cluster_spec(spec: TrainingSpec, addresses: Mapping[Role, Sequence[str]], role: Role, index: int) -> dict[str, Any]:
    """The ``CLUSTER_SPEC`` of one replica.

    A replica to which no other connects has no address: a job's only replica, and the evaluators. They get the address
    that Vertex AI would give to them.

    :param addresses: by role, ``host:port`` of every replica that others connect to, in order of index.
    """
    cluster = {}
    for pool_role in POOL_ROLES:
        unused = [f"127.0.0.1:{_FIRST_PORT + place}" for place in range(spec.count(pool_role))]
        if unused:
            cluster[POOL_NAMES[pool_role]] = list(addresses.get(pool_role, ())) or unused
    return {
        "cluster": cluster,
        "environment": "cloud",
        "task": {"type": POOL_NAMES[role], "index": index},
        "job": dict(spec.source),
    }


def has_cluster(spec: TrainingSpec) -> bool:
    """Whether the replicas of ``spec`` get a ``TF_CONFIG``."""
    return len(spec.replicas) > 1 or spec.single_replica_tf_config


def _cluster(spec: TrainingSpec, addresses: Mapping[Role, Sequence[str]]) -> dict[str, list[str]]:
    cluster: dict[str, list[str]] = {}
    for role in (Role.CHIEF, Role.WORKER, Role.PS):
        count = spec.count(role)
        found = list(addresses.get(role, ()))
        if len(found) != count:
            raise ValueError(f"{count} addresses needed for {role}, {len(found)} given")
        if count:
            cluster[_name(spec, role)] = found
    return cluster


def _name(spec: TrainingSpec, role: Role) -> str:
    return spec.primary_name if role is Role.CHIEF else role.value


def _job(spec: TrainingSpec, job_dir: str | None) -> dict[str, Any]:
    """The training input with the values that the job actually uses: staged packages and reduced replica counts."""
    job: dict[str, Any] = _snake(spec.source)
    job |= {"python_module": spec.module, "package_uris": list(spec.package_uris), "args": list(spec.args)}
    for role, field in ((Role.WORKER, "worker_count"), (Role.PS, "parameter_server_count")):
        if spec.count(role) or field in job:
            job[field] = spec.count(role)
    for field in ("scale_tier", "region", "job_dir", "runtime_version", "python_version"):
        value = getattr(spec, field)
        if value is not None:
            job[field] = value
    if job_dir is not None and "job_dir" in job:
        job["job_dir"] = job_dir
    job["run_on_raw_vm"] = True
    return job


def _snake(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(key)).lower(): dict(item)
            if key in _FREE_FORM and isinstance(item, Mapping)
            else _snake(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_snake(item) for item in value]
    return value

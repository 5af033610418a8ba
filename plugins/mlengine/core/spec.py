"""The :class:`TrainingSpec`: what to train, and on which cluster.

:mod:`mlengine.core.job_file.parse` reads it from YAML, with line numbers and hints in its errors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from mlengine.core import limits
from mlengine.core.errors import JobFileError
from mlengine.core.limits import Problem


class Role(StrEnum):
    """The role of a replica. ML Engine called the chief "master"; job files may use either name."""

    CHIEF = "chief"
    WORKER = "worker"
    PS = "ps"
    EVALUATOR = "evaluator"


def counted(count: object, role: object) -> str:
    """The number of replicas with the role's name, such as ``1 chief``, ``2 workers`` or ``2 ps``."""
    return f"{count} {role}{'' if count == 1 or role == Role.PS else 's'}"


JOB_DIR_ARG = "--job-dir"  # the default, as on ML Engine


@dataclass(frozen=True)
class Pool:
    """All replicas of one role. They have the same machine type and image."""

    role: Role
    count: int
    machine_type: str | None = None
    accelerator_type: str | None = None
    accelerator_count: int = 0
    image_uri: str | None = None


@dataclass(frozen=True)
class TrainingSpec:
    """One training, independent of where it runs.

    :param module: the module that is run as ``python -m``, e.g. ``trainer.task``.
    :param package_uris: the URIs of sdists or wheels, the trainer's first.
    :param args: the user's arguments; the backend appends the job directory (:meth:`job_dir_args`).
    :param pools: the chief pool, with one replica, first; then worker, ps and evaluator if there are any.
    :param primary_name: the name of the chief in ``TF_CONFIG``: ``chief``, or ``master`` as in ML Engine's first
        runtimes.
    :param max_running_seconds: the job fails after this time in state RUNNING.
    :param max_wait_seconds: the job is cancelled if it does not run after this time.
    :param env: additional environment variables of every replica.
    :param single_replica_tf_config: whether a job of one replica has a ``TF_CONFIG``: yes on ML Engine, no on Vertex
        AI.
    :param expand_variables: whether ``$(VAR)`` in ``args`` and ``env`` is expanded (:mod:`mlengine.core.expansion`):
        no on ML Engine, yes on Vertex AI.
    :param source: the ``trainingInput`` as read: for ``job`` in ``TF_CONFIG``, and for fields that are passed through.
    :param ray: the section ``ray:`` of the job file (:mod:`mlengine.core.job_file.ray_section`); used only by that
        backend.
    :param job_dir_arg: the trainer's argument for the job directory; "" if it has none, as trainers for Vertex AI,
        which read ``AIP_MODEL_DIR``.
    """

    module: str
    package_uris: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = (Pool(Role.CHIEF, 1),)
    primary_name: str = "chief"
    scale_tier: str | None = None
    region: str | None = None
    job_dir: str | None = None
    runtime_version: str | None = None
    python_version: str | None = None
    max_running_seconds: int | None = None
    max_wait_seconds: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    single_replica_tf_config: bool = False
    expand_variables: bool = False
    source: Mapping[str, Any] = field(default_factory=dict)
    ray: Mapping[str, Any] = field(default_factory=dict)
    job_dir_arg: str = JOB_DIR_ARG

    def __post_init__(self) -> None:
        """Check all values against the limits.

        :raises JobFileError: a value exceeds the limits of :mod:`mlengine.core.limits`.
        """
        for name, problem in self._problems():
            if problem is not None:
                raise JobFileError(f"{name}: {problem.message}", hint=problem.hint)

    def _problems(self) -> Iterator[tuple[str, Problem | None]]:
        for pool in self.pools:
            yield f"{pool.role} replicas", limits.replica_count(pool.count)
            yield f"{pool.role} accelerators", limits.accelerator_count(pool.accelerator_count)
        for name, seconds in (("maximum running time", self.max_running_seconds), ("wait", self.max_wait_seconds)):
            yield f"{name} in seconds", None if seconds is None else limits.seconds(seconds)
        yield "packages", limits.package_count(len(self.package_uris))
        yield "args", limits.arguments(self.args)
        yield "job_dir_arg", limits.option(self.job_dir_arg)
        yield "labels", limits.labels(self.labels)
        yield "env", limits.variables(self.env)

    def count(self, role: Role) -> int:
        """The number of replicas of ``role``."""
        return sum(pool.count for pool in self.pools if pool.role is role)

    def pool(self, role: Role) -> Pool | None:
        return next((pool for pool in self.pools if pool.role is role and pool.count), None)

    def job_dir_args(self, job_dir: str) -> tuple[str, ...]:
        """The arguments that the backend appends to the user's; none if the trainer has no argument for the job dir."""
        return (self.job_dir_arg, job_dir) if self.job_dir_arg else ()

    @property
    def replicas(self) -> tuple[tuple[Role, int], ...]:
        """All pairs ``(role, index)``, the chief first."""
        return tuple((pool.role, index) for pool in self.pools for index in range(pool.count))

    def with_counts(self, counts: Mapping[Role, int]) -> TrainingSpec:
        """The same training with other replica counts. Roles that are not given keep theirs.

        A new role gets the chief's machine type and image, but not its accelerators.

        :raises JobFileError: a count exceeds the limits, or there is not exactly one chief.
        """
        if counts.get(Role.CHIEF, 1) != 1:
            raise JobFileError(
                f"chief replicas: is {counts[Role.CHIEF]}",
                hint="a job has exactly one chief: leave it out of the counts",
            )
        for role, count in counts.items():
            if (problem := limits.replica_count(count)) is not None:
                raise JobFileError(f"{role} replicas: {problem.message}", hint=problem.hint)
        known = {pool.role for pool in self.pools}
        pools = [replace(pool, count=counts.get(pool.role, pool.count)) for pool in self.pools]
        like = replace(self.pools[0], accelerator_type=None, accelerator_count=0)
        pools += [
            replace(like, role=role, count=count) for role, count in counts.items() if role not in known and count
        ]
        order = list(Role)
        pools.sort(key=lambda pool: order.index(pool.role))
        return replace(self, pools=tuple(pool for pool in pools if pool.count))

    @property
    def digest(self) -> str:
        """A digest of all fields, 40 hex digits. Equal specs have equal digests."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:40]

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["pools"] = [{**asdict(pool), "role": pool.role.value} for pool in self.pools]
        data["package_uris"], data["args"] = list(self.package_uris), list(self.args)
        if not self.ray:  # the same JSON, and so the same digest, as before this field existed
            del data["ray"]
        if self.job_dir_arg == JOB_DIR_ARG:  # likewise
            del data["job_dir_arg"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a spec from the data that :meth:`to_json` returned.

        :raises JobFileError: a field is missing or unknown.
        """
        try:
            fields = dict(data)
            fields["pools"] = tuple(Pool(**{**pool, "role": Role(pool["role"])}) for pool in fields["pools"])
            fields["package_uris"] = tuple(fields.get("package_uris", ()))
            fields["args"] = tuple(fields.get("args", ()))
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise JobFileError(f"not a training spec: {error}") from error

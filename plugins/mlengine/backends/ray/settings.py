"""The Ray backend's settings: those whose names begin with ``ray_``, as :mod:`mlengine.settings` finds them.

The section ``ray:`` of a job file has ``resources`` and ``placement``, too. An argument comes before it; the
connection, the configuration and the default come after it, because they are for all jobs.

``placement`` here is the setting ``ray_placement``, and so on for every field. A job keeps the settings that it was
submitted with. Address and credentials are not among them: :mod:`mlengine.backends.ray.access`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from mlengine import settings
from mlengine.core.errors import BackendError, JobFileError, SettingError
from mlengine.core.job_file import ray_section
from mlengine.core.job_file.located import from_python


@dataclass(frozen=True)
class RaySettings:
    """The settings of one job. Their defaults are in :data:`mlengine.settings.SETTINGS`.

    :param resources: what a replica reserves, by role or for all roles: see :mod:`mlengine.backends.ray.bundles`.
    :param runtime_env: merged into the job's Ray runtime environment.
    :param placement: Ray's strategy for the placement group.
    :param autoscaling: whether the cluster adds nodes on demand, so that a job may need more than it has now.
    :param node_dir: directory of environments and scratch files on each node.
    :param max_restarts: consecutive restarts of a worker, parameter server or evaluator.
    :param max_chief_restarts: restarts of the chief after a signal or an exit code that asks for one.
    :param max_cluster_restarts: how often all replicas are restarted because a node was lost.
    :param restart_backoff_seconds: before the first restart; doubled for each further one.
    :param termination_grace_seconds: between SIGTERM and SIGKILL.
    :param linger_seconds: for workers to end by themselves after the chief.
    :param build_timeout_seconds: for building the environment on a node.
    :param keep_environments: unused environments that a node keeps; the least recently used are removed first.
    """

    resources: Mapping[str, Any]
    runtime_env: Mapping[str, Any]
    placement: str
    autoscaling: bool
    node_dir: str
    max_restarts: int
    max_chief_restarts: int
    max_cluster_restarts: int
    restart_backoff_seconds: float
    termination_grace_seconds: float
    linger_seconds: float
    build_timeout_seconds: float
    keep_environments: int = 8  # records of earlier versions do not have it

    @classmethod
    def load(
        cls, extra: Mapping[str, Any] | None = None, job_file: Mapping[str, Any] | None = None, **given: Any
    ) -> Self:
        """The given values, then those of the job file; others as :mod:`mlengine.settings` finds them.

        :param extra: the extra of the connection, if there is one.
        :param job_file: the section ``ray:`` of the job file: :attr:`mlengine.core.spec.TrainingSpec.ray`.
        :raises BackendError: there is no setting of a given name.
        :raises SettingError: a value has the wrong type.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(given.keys() - set(names))
        if unknown:
            raise BackendError(f"the ray backend has no setting {unknown[0]!r}", hint=f"use one of {', '.join(names)}")
        chosen = {**(job_file or {}), **{name: value for name, value in given.items() if value not in (None, "")}}
        values: dict[str, Any] = {
            field.name: _value(f"ray_{field.name}", str(field.type), chosen.get(field.name), extra)
            for field in fields(cls)
        }
        try:
            ray_section.placement(from_python(values["placement"], "ray_placement"))
            if values["resources"]:
                values["resources"] = ray_section.resources(from_python(values["resources"], "ray_resources"))
        except JobFileError as error:
            raise SettingError(error.message, hint=error.hint) from error
        return cls(**values)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The settings in a job's record."""
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})

    def to_json(self) -> dict[str, Any]:
        """As :meth:`from_json` reads it."""
        return asdict(self)


def json_setting(name: str, argument: object = None, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A setting that is a JSON object; empty if it is not set.

    :raises SettingError: it is not a JSON object.
    """
    if isinstance(argument, Mapping):
        return dict(argument)
    found = settings.find(name, argument, extra)
    if not found.value:
        return {}
    try:
        value = json.loads(found.value)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise SettingError(f"{name} must be a JSON object, not {found.value!r}", hint=f"correct {found.source}")
    return value


def _value(name: str, kind: str, given: object, extra: Mapping[str, Any] | None) -> Any:
    if kind.startswith("Mapping"):
        return json_setting(name, given, extra)
    if kind == "bool":
        return _flag(name, given, extra)
    if kind == "str":
        return settings.get(name, given, extra)
    read = settings.get_int if kind == "int" else settings.get_float
    return read(name, given, extra)


def _flag(name: str, given: object, extra: Mapping[str, Any] | None) -> bool:
    found = settings.find(name, given, extra)
    value = found.value.strip().lower()
    if value not in {"true", "false", "1", "0", "yes", "no"}:
        raise SettingError(f"{name} must be true or false, not {found.value!r}", hint=f"correct {found.source}")
    return value in {"true", "1", "yes"}

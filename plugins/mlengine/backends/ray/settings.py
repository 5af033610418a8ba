"""The Ray backend's settings: those whose names begin with ``ray_``, as :mod:`mlengine.settings` reads them.

The section ``ray:`` of a job file may set ``resources`` and ``placement``, too. An argument takes precedence over it;
it takes precedence over the connection, the configuration and the default, because these are for all jobs.

``placement`` here is the setting ``ray_placement``, and so on for every field. A job keeps the settings with which it
was submitted. Address and credentials are not part of them: see :mod:`mlengine.backends.ray.access`.
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

    :param resources: the resources of a replica, by role or for all roles: see :mod:`mlengine.backends.ray.bundles`.
    :param runtime_env: merged into the job's Ray runtime environment.
    :param placement: Ray's strategy for the placement group.
    :param autoscaling: whether the cluster adds nodes on demand, so that a job may need more than the cluster has now.
    :param node_dir: the directory of environments and scratch files on each node.
    :param max_restarts: the limit of consecutive restarts of a worker, parameter server or evaluator.
    :param max_chief_restarts: the limit of restarts of the chief after a signal or an exit code that asks for one.
    :param max_cluster_restarts: the limit of restarts of all replicas because a node was lost.
    :param restart_backoff_seconds: the pause before the first restart; doubled for each further one.
    :param termination_grace_seconds: the time between SIGTERM and SIGKILL.
    :param linger_seconds: the time that workers have to end by themselves after the chief.
    :param build_timeout_seconds: the time limit for building the environment on a node.
    :param keep_environments: the number of unused environments that a node keeps; the least recently used go first.
    :param keep_data_days: the days after which a node removes unused data of the trainers; 0 keeps it.
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
    # Records of earlier versions do not have these:
    keep_environments: int = 8
    keep_data_days: int = 30

    @classmethod
    def load(
        cls, extra: Mapping[str, Any] | None = None, job_file: Mapping[str, Any] | None = None, **given: Any
    ) -> Self:
        """The given values, then those of the job file; all others are read from :mod:`mlengine.settings`.

        :param extra: the extra of the connection, if there is one.
        :param job_file: the section ``ray:`` of the job file: :attr:`mlengine.core.spec.TrainingSpec.ray`.
        :raises BackendError: there is no setting of a given name.
        :raises SettingError: a value has the wrong type, or cannot be used.
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
        _check_node_dir(values["node_dir"])
        _check_runtime_env(values["runtime_env"])
        return cls(**values)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The settings in a job's record."""
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})

    def to_json(self) -> dict[str, Any]:
        """The settings in the format that :meth:`from_json` reads."""
        return asdict(self)


def json_setting(name: str, argument: object = None, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The value of a setting that is a JSON object; empty if the setting is not set.

    :raises SettingError: the value is not a JSON object.
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


def _check_node_dir(path: str) -> None:
    if path and not path.startswith(("/", "~")):
        raise SettingError(
            f"ray_node_dir must be an absolute path, or begin with ~, not {path!r}",
            hint="write, for example, /var/lib/mlengine; an empty value means ~/.local/state/mlengine",
        )


def _check_runtime_env(runtime_env: Mapping[str, Any]) -> None:
    if "working_dir" in runtime_env:
        raise SettingError(
            f"ray_runtime_env has working_dir {runtime_env['working_dir']!r}, and the backend sends its own code there",
            hint="remove working_dir; files of the trainer belong in its package",
        )
    variables = runtime_env.get("env_vars", {})
    if not isinstance(variables, Mapping):
        raise SettingError(
            f"env_vars in ray_runtime_env must be an object, not {variables!r}",
            hint='write, for example, {"env_vars": {"GOOGLE_CLOUD_PROJECT": "my-project"}}',
        )
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise SettingError(
                f"env_vars in ray_runtime_env must have strings, not {name!r}: {value!r}",
                hint=f'write "{name}": "{value}"',
            )


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

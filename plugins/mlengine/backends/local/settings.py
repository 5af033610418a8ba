"""The local backend's settings: those whose names begin with ``local_``, as :mod:`mlengine.settings` reads them.

``max_workers`` here is the setting ``local_max_workers``, and so on for every field. A job keeps the settings with
which it was submitted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from mlengine import settings
from mlengine.core.errors import BackendError


def _cores() -> int:
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """The settings of one job. Their defaults are in :data:`mlengine.settings.SETTINGS`.

    :param max_concurrent_jobs: the number of jobs that run at the same time on this machine; others are queued.
    :param max_workers: the limit of a job's replicas, per role; larger clusters are capped (:meth:`LocalBackend.cap`).
    :param python_path: the interpreter of training environments; "" is the one of the process that submits.
    :param max_restarts: the limit of consecutive restarts of a worker, parameter server or evaluator.
    :param max_chief_restarts: the limit of restarts of the chief after a signal or an exit code that asks for one.
    :param restart_backoff_seconds: the pause before the first restart; doubled for each further one.
    :param termination_grace_seconds: the time between SIGTERM and SIGKILL.
    :param linger_seconds: the time that workers have to end by themselves after the chief.
    :param build_timeout_seconds: the time limit for downloading the packages and building the environment.
    :param empty_output_warning_seconds: a chief that succeeds sooner and wrote nothing is reported; 0 disables that.
    :param log_upload_timeout_seconds: the time limit for uploading the logs after the job; 0 disables the upload.
    :param gpus: the GPUs that jobs may use; "" is all that are visible (:func:`mlengine.backends.local.gpus.find`).
    :param keep_environments: the number of unused environments that are kept; the least recently used go first.
    :param keep_job_files_days: the days after which logs and scratch directories of ended jobs are removed; 0 keeps
        them. Logs that were not uploaded are kept.
    :param keep_data_days: the days after which unused data of the trainers is removed; 0 keeps it.
    """

    max_concurrent_jobs: int
    max_workers: int
    max_ps: int
    max_evaluators: int
    python_path: str
    max_restarts: int
    max_chief_restarts: int
    restart_backoff_seconds: float
    termination_grace_seconds: float
    linger_seconds: float
    build_timeout_seconds: float
    empty_output_warning_seconds: float
    log_upload_timeout_seconds: float
    keep_environments: int
    keep_job_files_days: int
    keep_data_days: int
    gpus: str

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The given values; all others are read from :mod:`mlengine.settings`.

        :raises BackendError: there is no setting of a given name.
        :raises SettingError: a value is not a number, or is too small.
        """
        unknown = given.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise BackendError(
                f"the local backend has no setting {sorted(unknown)}",
                hint=f"use {[field.name for field in fields(cls)]}",
            )
        values: dict[str, Any] = {
            field.name: _value(field.name, str(field.type), given.get(field.name)) for field in fields(cls)
        }
        return cls(**values)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The settings in a job's record. Unknown names, which another version may have written, are ignored."""
        # An empty value is kept: the configuration of the process that reads the record must not replace it.
        values: dict[str, Any] = {
            field.name: data[field.name]
            if data.get(field.name) == ""
            else _value(field.name, str(field.type), data.get(field.name))
            for field in fields(cls)
        }
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The settings in the format that :meth:`from_json` reads."""
        return asdict(self)


def _value(name: str, kind: str, given: object) -> str | int | float:
    setting = f"local_{name}"
    if kind == "str":
        return settings.get(setting, given)
    suits = _suits_machine().get(name)
    if suits is not None and not settings.get(setting, given):
        return suits
    return settings.get_int(setting, given) if kind == "int" else settings.get_float(setting, given)


def _suits_machine() -> dict[str, int]:
    """The defaults that depend on the machine."""
    cores = _cores()
    return {"max_concurrent_jobs": max(1, cores // 2), "max_workers": max(2, cores), "max_ps": max(1, cores // 2)}

"""The local backend's settings: from keyword arguments, else as :mod:`mlengine.settings` finds them, else what suits
this machine.

``max_workers`` is the knob ``local_max_workers``: ``AIRFLOW__MLENGINE__LOCAL_MAX_WORKERS``, or Airflow's
``[mlengine] local_max_workers``; and so on for every field. A job keeps the settings it was submitted with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from mlengine import settings as knobs
from mlengine.core.errors import BackendError


def _cores() -> int:
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """
    :param max_concurrent_jobs: jobs that run at once on this machine; the others wait their turn.
    :param max_workers: replicas a job may have, per role; more are capped (:meth:`LocalBackend.cap`).
    :param python_path: the interpreter that trainers' environments are made from; "" is the one that submits.
    :param max_restarts: how often a worker, ps or evaluator is started again in its place.
    :param max_chief_restarts: how often the chief is, after a signal or an exit code that asks for it.
    :param restart_backoff_seconds: seconds before the first restart; doubles with each.
    :param termination_grace_seconds: between SIGTERM and SIGKILL.
    :param linger_seconds: for workers to end by themselves after the chief has.
    :param build_timeout_seconds: for downloading the packages and building the environment.
    :param log_upload_timeout_seconds: for sending the logs to the bucket when the job has ended; 0 sends none.
    :param keep_environments: how many unused environments are kept; the longest unused go first.
    """

    max_concurrent_jobs: int = 1
    max_workers: int = 2
    max_ps: int = 1
    max_evaluators: int = 1
    python_path: str = ""
    max_restarts: int = 5
    max_chief_restarts: int = 3
    restart_backoff_seconds: float = 1.0
    termination_grace_seconds: float = 15.0
    linger_seconds: float = 15.0
    build_timeout_seconds: float = 1800.0
    log_upload_timeout_seconds: float = 60.0
    keep_environments: int = 8

    @classmethod
    def load(cls, **given: Any) -> Self:
        """What was given; then the environment; then what suits this machine.

        :raises BackendError: if a value is not a number, or not positive.
        """
        cores = _cores()
        values: dict[str, Any] = {
            "max_concurrent_jobs": max(1, cores // 2),
            "max_workers": max(2, cores),
            "max_ps": max(1, cores // 2),
        }
        for field in fields(cls):
            text = _configured(field.name)
            if text:
                values[field.name] = text
        values |= {name: value for name, value in given.items() if value is not None}
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise BackendError(
                f"the local backend has no setting {sorted(unknown)}",
                remedy=f"use {[field.name for field in fields(cls)]}",
            )
        return cls.from_json(values)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name in data:
                values[field.name] = _convert(field.name, field.default, data[field.name])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def state_dir(given: str | Path | None = None) -> Path:
    """Where the local backend keeps everything: given, the setting ``local_state_dir``,
    ``$AIRFLOW_HOME/mlengine``, or ``~/.local/state/mlengine``.
    """
    if given:
        return Path(given).expanduser().absolute()
    configured = _configured("state_dir")
    if configured:
        return Path(configured).expanduser().absolute()
    if os.environ.get("AIRFLOW_HOME"):
        return Path(os.environ["AIRFLOW_HOME"]).expanduser().absolute() / "mlengine"
    return Path.home() / ".local" / "state" / "mlengine"


def _configured(name: str) -> str:
    return knobs.get(f"local_{name}")


def _convert(name: str, default: Any, value: Any) -> Any:
    try:
        converted = type(default)(value)
    except (TypeError, ValueError) as error:
        raise BackendError(
            f"local_{name} must be a number, not {value!r}",
            remedy=f"correct the setting AIRFLOW__MLENGINE__LOCAL_{name.upper()}",
        ) from error
    if isinstance(converted, (int, float)) and (converted < 0 or (name == "max_concurrent_jobs" and converted < 1)):
        raise BackendError(
            f"local_{name} is too small: {value!r}",
            remedy=f"correct the setting AIRFLOW__MLENGINE__LOCAL_{name.upper()}",
        )
    return converted

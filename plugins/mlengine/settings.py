"""Every knob, in one place, with one rule of precedence.

An argument wins over the environment variable ``MLENGINE_<NAME>``, that over Airflow's configuration
(``[mlengine] <name>``, or ``AIRFLOW__MLENGINE__<NAME>``), and that over the default here. Airflow's configuration is
only asked inside a process of Airflow's; the command line never imports it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from mlengine.core.errors import MlengineError


@dataclass(frozen=True)
class Setting:
    """One knob: also what the provider metadata shows in Airflow's configuration reference."""

    name: str
    default: str
    kind: str
    description: str


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("backend", "local", "string", "Where jobs run: local, or vertex."),
        Setting("bucket", "", "string", "The bucket of jobs, datasets and packages: gs://NAME."),
        Setting("gcp_conn_id", "google_cloud_default", "string", "The Airflow connection whose credentials are used."),
        Setting("vertex_project", "", "string", "The Google Cloud project of jobs on Vertex AI."),
        Setting("vertex_region", "", "string", "The region of jobs on Vertex AI, where the job file names none."),
        Setting("vertex_endpoint", "", "string", "A server that stands in for Vertex AI's, such as mlengine serve."),
        Setting("poll_interval", "5", "float", "Seconds between two looks at the jobs that are waited for."),
        Setting("progress_interval", "15", "float", "Seconds between two progress lines of a job in the task's log."),
        Setting("max_attempts", "3", "integer", "How many attempts one job may have when its machines fail it."),
        Setting("queued_timeout", "86400", "float", "Seconds a job may be QUEUED before it is cancelled."),
        Setting("running_timeout", "604800", "float", "Seconds a job may take, once it left QUEUED."),
    )
}


def get(name: str, argument: object = None) -> str:
    """The value of a knob as text.

    :param argument: what the caller was given; ``None`` or the empty string means nothing was.
    :raises KeyError: there is no such knob.
    """
    setting = SETTINGS[name]
    if argument not in (None, ""):
        return str(argument)
    from_environment = os.environ.get(f"MLENGINE_{name.upper()}")
    if from_environment:
        return from_environment
    if "airflow" in sys.modules:
        from airflow.sdk.configuration import conf

        configured = conf.get("mlengine", name, fallback=None)
        if configured:
            return str(configured)
    return setting.default


def get_float(name: str, argument: object = None) -> float:
    """:raises MlengineError: the value is no number."""
    text = get(name, argument)
    try:
        return float(text)
    except ValueError as error:
        raise MlengineError(f"setting {name} is not a number: {text!r}", remedy=f"correct [mlengine] {name}") from error


def get_int(name: str, argument: object = None) -> int:
    """:raises MlengineError: the value is no whole number."""
    number = get_float(name, argument)
    if number != int(number):
        raise MlengineError(f"setting {name} is not a whole number: {number}", remedy=f"correct [mlengine] {name}")
    return int(number)

"""Every knob, in one place, with one rule of precedence.

An argument wins over the environment variable ``AIRFLOW__MLENGINE__<NAME>``, that over Airflow's configuration
(``[mlengine] <name>``), and that over the default here. Airflow's configuration is
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
        Setting(
            "vertex_http_hosts",
            "",
            "string",
            "Hosts of a private network, by commas, whose vertex_endpoint may be plain http, as loopback's may.",
        ),
        Setting("poll_interval_seconds", "5", "float", "Seconds between two looks at the jobs that are waited for."),
        Setting(
            "progress_interval_seconds", "15", "float", "Seconds between two progress lines of a job in the task's log."
        ),
        Setting("max_attempts", "3", "integer", "How many attempts one job may have when its machines fail it."),
        Setting(
            "retry_backoff_seconds", "10", "float", "Seconds before attempt 2; each later attempt waits twice as long."
        ),
        Setting("queued_timeout_seconds", "86400", "float", "Seconds a job may be QUEUED before it is cancelled."),
        Setting(
            "local_state_dir", "", "string", "Where the local backend keeps its jobs: a folder on this machine's disk."
        ),
        Setting(
            "local_max_concurrent_jobs",
            "",
            "integer",
            "Jobs that the local backend runs at once (default: half the cores).",
        ),
        Setting(
            "local_max_workers", "", "integer", "Workers a job may have on the local backend (default: the cores)."
        ),
        Setting("local_max_ps", "", "integer", "Parameter servers, likewise (default: half the cores)."),
        Setting("local_max_evaluators", "1", "integer", "Evaluators, likewise."),
        Setting("local_python_path", "", "string", "The interpreter of trainers' environments on the local backend."),
        Setting(
            "local_max_restarts", "5", "integer", "How often a local worker, ps or evaluator is started again in a row."
        ),
        Setting(
            "local_max_chief_restarts", "3", "integer", "How often a local chief that was stopped is started again."
        ),
        Setting(
            "local_restart_backoff_seconds",
            "1",
            "float",
            "Seconds before a local replica's first restart; doubles with each.",
        ),
        Setting(
            "local_termination_grace_seconds", "15", "float", "Seconds between SIGTERM and SIGKILL of a local replica."
        ),
        Setting("local_linger_seconds", "15", "float", "Seconds that local workers may take to end after the chief."),
        Setting(
            "local_build_timeout_seconds", "1800", "float", "Seconds that building a trainer's environment may take."
        ),
        Setting(
            "local_log_upload_timeout_seconds",
            "60",
            "float",
            "Seconds for sending a local job's logs to the bucket; 0: none.",
        ),
        Setting("local_keep_environments", "8", "integer", "Unused trainers' environments that are kept."),
        Setting("tensorboard_url", "", "string", "A TensorBoard that shows the jobs, for links: http://…"),
        Setting(
            "param_hints_dir",
            "",
            "string",
            "Folder of what trigger forms propose (default: mlengine/ in AIRFLOW_HOME).",
        ),
        Setting("running_timeout_seconds", "604800", "float", "Seconds a job may take, once it left QUEUED."),
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
    from_environment = os.environ.get(f"AIRFLOW__MLENGINE__{name.upper()}")
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

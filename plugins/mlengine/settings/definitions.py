"""Every setting: its name, default, type and description."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One setting, which is also part of the provider metadata for Airflow's configuration.

    :param kind: ``string``, ``integer`` or ``float``, as in Airflow's provider metadata.
    :param minimum: the smallest number that is allowed.
    :param extra: the keys of a connection's extra that may contain the setting. Empty if the setting is not read from a
        connection, because it describes a machine, or because it is needed before there is a connection.
    :param sensitive: whether the value is a secret. Airflow does not show secrets. A secret can also be set with the
        suffix ``_CMD`` or ``_SECRET``.
    """

    name: str
    default: str
    kind: str
    description: str
    minimum: float = 0.0
    extra: tuple[str, ...] = ()
    sensitive: bool = False

    @property
    def variable(self) -> str:
        """The name of the environment variable that sets it."""
        return f"AIRFLOW__MLENGINE__{self.name.upper()}"


def _all() -> tuple[Setting, ...]:
    text, whole, number = "string", "integer", "float"
    return (
        Setting("backend", "local", text, "Where jobs run: local, ray or vertex.", extra=("backend",)),
        Setting("bucket", "", text, "Bucket of jobs, datasets and packages: gs://NAME.", extra=("bucket",)),
        Setting("gcp_conn_id", "google_cloud_default", text, "Airflow connection to Google Cloud."),
        Setting(
            "vertex_project",
            "",
            text,
            "Google Cloud project for jobs on Vertex AI (default: the project of the credentials).",
            extra=("project",),
        ),
        Setting(
            "vertex_region",
            "",
            text,
            "Region for jobs on Vertex AI whose job file does not set one.",
            extra=("region", "location"),
        ),
        Setting(
            "vertex_endpoint",
            "",
            text,
            "URL of a server that replaces Vertex AI, such as mlengine emulator.",
            extra=("vertex_endpoint",),
        ),
        Setting(
            "vertex_http_hosts",
            "",
            text,
            "Comma-separated hosts of a private network that vertex_endpoint may name with http:// instead of https://.",
        ),
        Setting(
            "vertex_log_reads_per_minute",
            "30",
            whole,
            "Log reads per minute of all processes of this machine, for each project (Google's quota: 60 per project).",
            minimum=4,
        ),
        Setting(
            "poll_interval_seconds",
            "5",
            number,
            "Polling interval of running jobs, in seconds.",
            minimum=0.01,
            extra=("poll_interval_seconds",),
        ),
        Setting(
            "progress_interval_seconds",
            "15",
            number,
            "Seconds between two progress lines in the task log.",
            extra=("progress_interval_seconds",),
        ),
        Setting(
            "max_attempts",
            "3",
            whole,
            "Maximum number of attempts of a job whose machines fail.",
            minimum=1,
            extra=("max_attempts",),
        ),
        Setting(
            "retry_backoff_seconds",
            "10",
            number,
            "Seconds before attempt 2; doubled for each further attempt.",
            extra=("retry_backoff_seconds",),
        ),
        Setting(
            "queued_timeout_seconds",
            "86400",
            number,
            "Maximum time, in seconds, that a job may be QUEUED and PREPARING; after that, it is cancelled.",
            extra=("queued_timeout_seconds",),
        ),
        Setting(
            "running_timeout_seconds",
            "604800",
            number,
            "Maximum time, in seconds, that a job may take after it has started; after that, it is cancelled.",
            extra=("running_timeout_seconds",),
        ),
        Setting(
            "local_state_dir",
            "",
            text,
            "Directory of the local backend, on a disk of this machine (default: mlengine/ in AIRFLOW_HOME, or "
            "~/.local/state/mlengine).",
        ),
        Setting(
            "local_max_concurrent_jobs",
            "",
            whole,
            "Maximum number of concurrent local jobs (default: half the cores).",
            minimum=1,
        ),
        Setting(
            "local_max_workers",
            "",
            whole,
            "Maximum number of workers of a local job (default: the number of cores, but at least 2).",
        ),
        Setting(
            "local_max_ps",
            "",
            whole,
            "Maximum number of parameter servers of a local job (default: half the cores).",
        ),
        Setting("local_max_evaluators", "1", whole, "Maximum number of evaluators of a local job."),
        Setting(
            "local_python_path",
            "",
            text,
            "Python interpreter for local training environments (default: the one that submits the job).",
        ),
        Setting(
            "local_max_restarts",
            "5",
            whole,
            "Maximum number of consecutive restarts of a worker, parameter server or evaluator of a local job.",
        ),
        Setting(
            "local_max_chief_restarts",
            "3",
            whole,
            "Maximum number of consecutive restarts of the chief of a local job after a signal or exit code 75.",
        ),
        Setting(
            "local_restart_backoff_seconds",
            "1",
            number,
            "Seconds before a local replica's first restart; doubled for each further restart.",
        ),
        Setting(
            "local_termination_grace_seconds",
            "15",
            number,
            "Seconds between SIGTERM and SIGKILL of a local replica.",
        ),
        Setting(
            "local_linger_seconds",
            "15",
            number,
            "Maximum time, in seconds, that the workers of a local job may continue after the chief has ended.",
        ),
        Setting(
            "local_build_timeout_seconds",
            "1800",
            number,
            "Maximum time, in seconds, for building a local training environment.",
        ),
        Setting(
            "local_empty_output_warning_seconds",
            "30",
            number,
            "Report a local chief that succeeds within this many seconds without writing output; 0 disables this.",
        ),
        Setting(
            "local_log_upload_timeout_seconds",
            "60",
            number,
            "Maximum time, in seconds, for uploading a local job's logs to the bucket; 0 disables the upload.",
        ),
        Setting(
            "local_gpus",
            "",
            text,
            "GPUs that local jobs may use: a number, or comma-separated indices or UUIDs; 0 means none "
            "(default: all that nvidia-smi lists).",
        ),
        Setting("local_keep_environments", "8", whole, "Maximum number of unused local training environments to keep."),
        Setting(
            "local_keep_job_files_days",
            "30",
            whole,
            "Days after which uploaded logs and the scratch directories of ended local jobs are removed; 0 keeps them.",
        ),
        Setting(
            "local_keep_data_days",
            "30",
            whole,
            "Days after which unused data of the trainers in MLENGINE_DATA_CACHE is removed; 0 keeps it.",
        ),
        Setting(
            "ray_address",
            "",
            text,
            "URL of the dashboard of the Ray cluster that runs the jobs: http://HOST:8265.",
            extra=("ray_address",),
        ),
        Setting(
            "ray_token",
            "",
            text,
            "Token of the Ray cluster, sent as a bearer token.",
            extra=("ray_token",),
            sensitive=True,
        ),
        Setting(
            "ray_headers",
            "",
            text,
            "HTTP headers of all requests to the Ray cluster, as a JSON object.",
            extra=("ray_headers",),
            sensitive=True,
        ),
        Setting(
            "ray_resources",
            "",
            text,
            "Resources that a replica on Ray reserves, as a JSON object, for all roles or by role: "
            '{"CPU": 4, "GPU": 1, "memory_gib": 8} (default: from the machine types of the job file). ray.resources in '
            "the job file takes precedence.",
            extra=("ray_resources",),
        ),
        Setting(
            "ray_runtime_env",
            "",
            text,
            "JSON object that is merged into the Ray runtime environment of jobs; working_dir is not allowed. This is "
            "not the trainer's environment.",
            extra=("ray_runtime_env",),
        ),
        Setting(
            "ray_placement",
            "PACK",
            text,
            "How Ray places the replicas of a job: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD. ray.placement in the "
            "job file takes precedence.",
            extra=("ray_placement",),
        ),
        Setting(
            "ray_autoscaling",
            "false",
            text,
            "Whether the Ray cluster adds nodes on demand; if not, a job that does not fit on its nodes is rejected.",
            extra=("ray_autoscaling",),
        ),
        Setting(
            "ray_node_dir",
            "",
            text,
            "Directory of training environments and scratch files on each node of the Ray cluster: an absolute path, "
            "or one that starts with ~ (default: ~/.local/state/mlengine).",
            extra=("ray_node_dir",),
        ),
        Setting(
            "ray_max_restarts",
            "5",
            whole,
            "Maximum number of consecutive restarts of a worker, parameter server or evaluator of a job on Ray.",
        ),
        Setting(
            "ray_max_chief_restarts",
            "3",
            whole,
            "Maximum number of consecutive restarts of the chief of a job on Ray after a signal or exit code 75.",
        ),
        Setting(
            "ray_max_cluster_restarts",
            "5",
            whole,
            "Maximum number of restarts of all replicas of a job on Ray because a node was lost.",
        ),
        Setting(
            "ray_restart_backoff_seconds",
            "1",
            number,
            "Seconds before the first restart of a replica on Ray; doubled for each further restart.",
        ),
        Setting(
            "ray_termination_grace_seconds",
            "15",
            number,
            "Seconds between SIGTERM and SIGKILL of a replica on Ray.",
        ),
        Setting(
            "ray_linger_seconds",
            "15",
            number,
            "Maximum time, in seconds, that the workers of a job on Ray may continue after the chief has ended.",
        ),
        Setting(
            "ray_build_timeout_seconds",
            "1800",
            number,
            "Maximum time, in seconds, for building a training environment on a node of the Ray cluster.",
        ),
        Setting(
            "ray_keep_environments",
            "8",
            whole,
            "Maximum number of unused training environments to keep on each node of the Ray cluster.",
        ),
        Setting(
            "ray_keep_data_days",
            "30",
            whole,
            "Days after which unused data of the trainers in MLENGINE_DATA_CACHE is removed from a node; 0 keeps it.",
        ),
        Setting("tensorboard_url", "", text, "URL of a TensorBoard server that shows all jobs, for links."),
        Setting(
            "param_hints_dir",
            "",
            text,
            "Directory of the dataset versions that trigger forms suggest (default: mlengine/ in AIRFLOW_HOME).",
        ),
    )


SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _all()}

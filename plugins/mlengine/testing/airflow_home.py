"""Creates an AIRFLOW_HOME: its settings, its secrets and its only user.

The whole configuration is in ``airflow.cfg`` there, so ``AIRFLOW_HOME=… airflow …`` works in any terminal while the
components run. Secrets are created with the home, and only the owner can read them.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

USER = "admin"
# Seconds before a slow API server fails a task. Airflow's default of 5 s is too short on a busy machine.
_PATIENCE_SECONDS = 60
# Seconds before a locked database ends a scheduler: SQLite has one writer, so the components wait for each other.
_LOCK_SECONDS = 60
# The same for the API server. It is short, as its wait blocks its event loop, which the holder of the lock may need.
_API_LOCK_SECONDS = 4
# Seconds without a heartbeat after which a scheduler resets the tasks of another one, or its own: Airflow 3.3.2 takes
# the time of a heartbeat before it waits for the database. With Airflow's default of 30 s, a scheduler that waited
# longer restarts all of its running tasks.
_HEARTBEAT_SECONDS = 3 * _LOCK_SECONDS


@dataclass(frozen=True)
class AirflowConfig:
    """The configuration of an Airflow to be started.

    :param home: its AIRFLOW_HOME, which is created if it does not exist.
    :param dags: the folder with the DAG files.
    :param plugins: the plugins folder; ``None`` if the plugin is installed as a package only.
    :param port: the port of UI and API, on loopback; 0 selects a free one.
    :param paused: whether new DAGs are paused.
    :param parallelism: the number of tasks that may run at once.
    :param env: variables that are added to the environment of every component, and so of every task.
    :param settings: values by ``"section.key"``, which take precedence over those in this module.
    """

    home: Path
    dags: Path
    plugins: Path | None = None
    port: int = 0
    paused: bool = False
    parallelism: int = 4
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def prepare(config: AirflowConfig, port: int) -> str:
    """Write ``airflow.cfg`` and the files that it names. Return the password of :data:`USER`."""
    config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = _secrets(config.home / "secrets.json")
    passwords = config.home / "passwords.json"
    _write_private(passwords, json.dumps({USER: kept["password"]}))
    _write_private(config.home / "airflow.cfg", _render(_settings(config, port, kept, passwords)))
    return kept["password"]


def environment(config: AirflowConfig, *, api_server: bool = False) -> dict[str, str]:
    """The environment of the components: the caller's, without the settings of another Airflow."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    # With this variable, every process would compile its imports again, which takes seconds at each start.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # The components use HTTP on loopback, for which no proxy must be used.
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, [env.get(name), "127.0.0.1,localhost"]))
    env |= config.env
    env |= {"AIRFLOW_HOME": str(config.home), "AIRFLOW_CONFIG": str(config.home / "airflow.cfg")}
    if api_server:
        env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = _database(config, _API_LOCK_SECONDS)
    return env


def _database(config: AirflowConfig, lock_seconds: int) -> str:
    return f"sqlite:///{config.home / 'airflow.db'}?timeout={lock_seconds}"


def emulator_connection(project: str = "local") -> dict[str, str]:
    """The Google connection for a server that requires no credentials."""
    extra = {"is_anonymous": True, "project": project}
    connection = {"conn_type": "google_cloud_platform", "extra": extra}
    return {"AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(connection)}


def free_port() -> int:
    """A free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers here use SO_REUSEADDR, a port that a server has just released is free for them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _settings(config: AirflowConfig, port: int, kept: Mapping[str, str], passwords: Path) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    # No log server listens on these ports: the components read each other's logs from the disk, and Airflow's log
    # servers would listen on every interface. The ports are free, so that no other Airflow's log server is called.
    silent = {name: str(free_port()) for name in ("logging.worker_log_server_port", "logging.trigger_log_server_port")}
    return {
        "core.dags_folder": str(config.dags),
        "core.plugins_folder": str(config.plugins or config.home / "plugins"),
        "core.executor": "LocalExecutor",
        "core.parallelism": str(config.parallelism),
        "core.load_examples": "False",
        "core.dags_are_paused_at_creation": str(config.paused),
        "core.fernet_key": kept["fernet_key"],
        "core.simple_auth_manager_users": f"{USER}:admin",
        "core.simple_auth_manager_passwords_file": str(passwords),
        "core.simple_auth_manager_all_admins": "False",
        "core.execution_api_server_url": f"{url}/execution/",
        # plugins/.airflowignore is valid in both syntaxes; with the other one, every task's log has a warning.
        "core.dag_ignore_file_syntax": "regexp",
        "core.hostname_callable": "socket.gethostname",
        "database.sql_alchemy_conn": _database(config, _LOCK_SECONDS),
        "database.load_default_connections": "False",
        "api.host": "127.0.0.1",
        "api.port": str(port),
        "api.base_url": url,
        "api.workers": "1",
        "api.secret_key": kept["secret_key"],
        "api_auth.jwt_secret": kept["jwt_secret"],
        "operators.default_deferrable": "True",
        "logging.base_log_folder": str(config.home / "logs"),
        **silent,
        # Airflow 3.3's supervisor holds a finished task's slot for up to this time (5 s by default), and its scheduler
        # may consider a task that resumes within that time failed.
        "workers.min_heartbeat_interval": "1",
        "workers.execution_api_timeout": str(_PATIENCE_SECONDS),
        # This is half of Airflow's default, as a run has many stages. A shorter time would take CPU from the jobs.
        "scheduler.scheduler_idle_sleep_time": "0.5",
        "scheduler.scheduler_health_check_threshold": str(_HEARTBEAT_SECONDS),
        "dag_processor.refresh_interval": "10",
        # A changed file is parsed at the next refresh. Parsing unchanged files takes CPU from the jobs.
        "dag_processor.min_file_process_interval": "60",
        "dag_processor.parsing_processes": "1",
        **config.settings,
    }


def _render(settings: Mapping[str, str]) -> str:
    sections: dict[str, list[str]] = {}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, []).append(f"{key} = {value.replace('%', '%%')}")
    return "\n".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())


def _secrets(path: Path) -> dict[str, str]:
    if path.exists():
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return found
    made = {
        "password": secrets.token_urlsafe(12),
        "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "jwt_secret": secrets.token_urlsafe(48),
        "secret_key": secrets.token_urlsafe(32),
    }
    _write_private(path, json.dumps(made))
    return made


def _write_private(path: Path, text: str) -> None:
    """Write a file that only the owner can read, from its creation on."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as sink:
        sink.write(text)
    partial.replace(path)

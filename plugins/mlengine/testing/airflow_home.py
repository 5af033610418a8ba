"""An AIRFLOW_HOME: its settings, its secrets, its one user.

Everything that Airflow needs to know is in ``airflow.cfg`` there, so ``AIRFLOW_HOME=… airflow …`` works in any terminal
next to the running components. Secrets are made once a home, readable by the owner only.
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
# Before a slow API server fails a task. Airflow's own 5 s are nothing on a machine that has other work.
_PATIENCE_SECONDS = 60
# Before a locked database (SQLite has one writer) ends a scheduler: it and the others wait their turn.
_LOCK_SECONDS = 60
# The API server's wait blocks its event loop, which the holder of the lock may need: one of the two has to give in.
_API_LOCK_SECONDS = 4


@dataclass(frozen=True)
class AirflowConfig:
    """What an Airflow to be started is like.

    :param home: its AIRFLOW_HOME; made if missing, used again if there.
    :param dags: the folder with the DAG files.
    :param plugins: the plugins folder; ``None`` if the plugin is installed as a package only.
    :param port: of UI and API, on loopback; 0 takes a free one.
    :param paused: whether new DAGs wait to be switched on.
    :param parallelism: tasks that may run at once.
    :param env: added to the environment of every component, and so of every task.
    :param settings: ``"section.key"`` → value, over those below.
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
    """Write ``airflow.cfg`` and what it names. Returns the password of :data:`USER`."""
    config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = _secrets(config.home / "secrets.json")
    passwords = config.home / "passwords.json"
    _write_private(passwords, json.dumps({USER: kept["password"]}))
    _write_private(config.home / "airflow.cfg", _render(_settings(config, port, kept, passwords)))
    return kept["password"]


def environment(config: AirflowConfig, *, api_server: bool = False) -> dict[str, str]:
    """The environment of the components: the caller's, without the settings of another Airflow."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    # Without it every process compiles its imports again: seconds at each start.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # What runs here talks to itself over HTTP; a proxy is for the world outside.
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
    """The Google connection for a server that asks for no credentials."""
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
        # A port that a server left a moment ago is free to the next server, as the servers here bind.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _settings(config: AirflowConfig, port: int, kept: Mapping[str, str], passwords: Path) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    # Nothing listens there, on purpose: components of one machine read each other's logs from the disk, and Airflow's
    # log servers would listen on every interface. Free ports, so that no other Airflow's log server is asked.
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
        # plugins/.airflowignore means the same in both syntaxes; reading the other one warns in every task's log.
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
        # A finished task's slot is held for up to this long (5 s by default), and a task that resumes within that
        # time can be taken for failed: facts of Airflow 3.3's supervisor and scheduler.
        "workers.min_heartbeat_interval": "1",
        "workers.execution_api_timeout": str(_PATIENCE_SECONDS),
        # Half of Airflow's: a run has many stages. Reading the database more often takes CPU from the jobs.
        "scheduler.scheduler_idle_sleep_time": "0.5",
        "dag_processor.refresh_interval": "10",
        # A changed file is parsed at the next refresh. Parsing files that have not changed takes CPU from the jobs.
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
    """Readable by the owner alone from its first byte on."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as sink:
        sink.write(text)
    partial.replace(path)

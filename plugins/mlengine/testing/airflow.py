"""A real Airflow on loopback: API server, scheduler, DAG processor and triggerer, as child processes.

It is used by ``make run``, and by tests that need a real Airflow::

    with airflow.running(AirflowConfig(home=tmp_path, dags=Path("dags"))) as stack:
        run = stack.api.trigger("my_dag", {"max_steps": 10})
        assert stack.api.wait(run, 120).state == "success"

This Airflow has an embedded database (SQLite), the LocalExecutor, and one user with a password. It is for one machine
whose users trust each other, and not for production. A component that ends unexpectedly is restarted, as an init system
would do: a scheduler ends when its database is locked for too long. :mod:`~mlengine.testing.restart_limit` limits the
restarts.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from mlengine.core.errors import AirflowError, ComponentFailedError, StackError
from mlengine.testing import component
from mlengine.testing.airflow_api import AirflowApi
from mlengine.testing.airflow_home import USER, AirflowConfig, environment, free_port, prepare
from mlengine.testing.component_processes import signal_group, spawn, stop_all, tail
from mlengine.testing.restart_limit import TOO_OFTEN, RestartLimit

_log = logging.getLogger(__name__)

START_SECONDS = 180.0  # a start takes 20 s on two idle cores, and longer on a loaded machine
_CHECK_SECONDS = 1.0
_DATABASE_VERSION = "database-version"  # the version of Airflow that has migrated the database
DATABASE_FILES = ("airflow.db", _DATABASE_VERSION)  # in the home of an Airflow that does not run
# The log servers would listen on every interface, and are not needed, as all components share a disk.
COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
_AIRFLOW = ("-P", component.__file__)  # started as a file, as mlengine need not be on the path of a new interpreter
_HEARTBEATS = {
    "scheduler": "latest_scheduler_heartbeat",
    "triggerer": "latest_triggerer_heartbeat",
    "dag_processor": "latest_dag_processor_heartbeat",
}


@dataclass
class Airflow:
    """A started Airflow.

    :param restarts: how often each component was restarted after it had ended unexpectedly.
    :param failed: the components that are no longer restarted, with their exit codes.
    :param on_restart: called after each restart.
    :param on_start: called with each process that was started, including that of the database migration.
    :param warn: called with a message for people when a component has ended.
    """

    config: AirflowConfig
    port: int
    password: str
    user: str = USER
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    on_start: Callable[[subprocess.Popen[bytes]], None] = field(default=lambda _: None, repr=False)
    on_restart: Callable[[], None] = field(default=lambda: None, repr=False)
    warn: Callable[[str], None] = field(default=_log.warning, repr=False)
    _limits: defaultdict[str, RestartLimit] = field(default_factory=lambda: defaultdict(RestartLimit), repr=False)
    _due: dict[str, float] = field(default_factory=dict, repr=False)
    _turn: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _over: threading.Event | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def api(self) -> AirflowApi:
        return AirflowApi(self.url, self.user, self.password)

    @property
    def env(self) -> dict[str, str]:
        """The environment variables with which ``airflow …`` uses this Airflow."""
        return environment(self.config)

    def log_file(self, component: str) -> Path:
        return self.config.home / "logs" / f"{component}.log"

    def start_component(self, name: str) -> None:
        """Start one of :data:`COMPONENTS`, or start it again after :meth:`stop_component`."""
        env = environment(self.config, api_server=name == "api-server")
        with self._turn:
            self.failed.pop(name, None)
            self.processes[name] = spawn([*_AIRFLOW, *COMPONENTS[name]], env, self.log_file(name))
            self.on_start(self.processes[name])

    def stop_component(self, name: str, *, kill: bool = False) -> None:
        """Stop one component and wait for its end. With ``kill``, it has no time to clean up, as in a crash."""
        with self._turn:
            process = self.processes.pop(name)
            self._due.pop(name, None)
        if kill:
            signal_group(process, signal.SIGKILL)
        stop_all([process])

    def check(self) -> None:
        """Check that no component has failed.

        :raises ComponentFailedError: a component ended unexpectedly and is no longer restarted. The message has the
            last lines of its log.
        """
        if self._over is None:
            for name, process in self.processes.copy().items():
                if (code := process.poll()) is not None:
                    raise self._failure(f"Airflow's {name} ended with code {code}", name)
        for name, code in self.failed.copy().items():
            raise self._failure(f"Airflow's {name} ended with code {code} {TOO_OFTEN}", name)

    def _failure(self, what: str, name: str) -> ComponentFailedError:
        log = self.log_file(name)
        return ComponentFailedError(f"{what}:\n{tail(log)}", hint=f"see {log}")

    def supervise(self) -> None:
        """From now on, restart components that end unexpectedly, within their limits. The call can be repeated."""
        if self._over is None:
            self._over = threading.Event()
            threading.Thread(target=self._supervise, args=(self._over,), name="airflow", daemon=True).start()

    def _supervise(self, over: threading.Event) -> None:
        while not over.wait(_CHECK_SECONDS):
            with self._turn:
                ended = [name for name, process in self.processes.items() if process.poll() is not None]
                for name in ended if not over.is_set() else ():
                    self._restart_when_due(name)

    def _restart_when_due(self, name: str) -> None:
        """Schedule the restart of a component that has ended, or restart it if that is due."""
        if name in self.failed:
            return
        code = self.processes[name].returncode
        if name not in self._due:
            stop_all([self.processes[name]])  # the tasks that it left have lost their supervisor
            due = self._limits[name].next_restart()
            if due is None:
                self.failed[name] = code
                return
            self._due[name] = due
            last_lines = tail(self.log_file(name), 5)
            pause = max(0.0, due - time.monotonic())
            self.warn(
                f"Airflow's {name} ended with code {code}; restart in {pause:.0f} s; its last lines:\n{last_lines}"
            )
        if time.monotonic() >= self._due[name]:
            del self._due[name]
            self.restarts[name] = self.restarts.get(name, 0) + 1
            self._limits[name].count()
            self.start_component(name)
            self.on_restart()

    def stop(self) -> None:
        """Stop all components and the tasks that they run. The call can be repeated safely."""
        with self._turn:
            if self._over is not None:
                self._over.set()
            stop_all(list(self.processes.values()))
            self.processes.clear()


def start(
    config: AirflowConfig,
    *,
    wait: bool = True,
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
) -> Airflow:
    """Start an Airflow; by default, wait until every component is healthy.

    :param on_start: called with each process that was started, so that the caller can record it.
    :raises StackError: a component ends, or is not healthy after 180 s. Nothing is left running then.
    """
    port = config.port or free_port()
    stack = Airflow(config, port, prepare(config, port), on_start=on_start)
    stack.log_file("any").parent.mkdir(parents=True, exist_ok=True)
    migrate(stack)
    began = datetime.now(UTC)
    try:
        for name in COMPONENTS:
            stack.start_component(name)
        if wait:
            wait_until_healthy(stack, since=began)
    except BaseException:
        stack.stop()
        raise
    return stack


@contextmanager
def running(config: AirflowConfig) -> Iterator[Airflow]:
    """Run an Airflow for the duration of the block: see :func:`start`."""
    stack = start(config)
    try:
        yield stack
    finally:
        stack.stop()


def wait_until_healthy(stack: Airflow, *, since: datetime, seconds: float = START_SECONDS) -> None:
    """Wait until all components have reported, after ``since``, that they are healthy. Then supervise them."""
    deadline = time.monotonic() + seconds
    missing, prepared = ["api-server"], False
    while time.monotonic() < deadline:
        stack.check()
        if not prepared:
            prepared = _prepare(stack.api)  # while the other components start
        missing = _unhealthy(stack.api, since) if prepared else missing
        if not missing:
            stack.supervise()
            return
        time.sleep(0.2)
    raise StackError(
        f"Airflow is not healthy after {seconds:.0f} s; missing: {', '.join(missing)}",
        hint=f"see the logs in {stack.log_file('any').parent}",
    )


def _prepare(api: AirflowApi) -> bool:
    try:
        api.prepare_execution_api()
    except AirflowError:
        return False
    return True


def _unhealthy(api: AirflowApi, since: datetime) -> list[str]:
    try:
        health = api.health()
    except AirflowError:
        return ["api-server"]
    missing = []
    for name, key in _HEARTBEATS.items():
        beat = (health.get(name) or {}).get(key)
        # A heartbeat from before the start does not count: a killed component seems healthy for half a minute.
        if not beat or datetime.fromisoformat(beat) < since:
            missing.append(name)
    return missing


def migrate(stack: Airflow) -> None:
    """Create or upgrade the database, unless this version of Airflow has done so in this home: it takes 5 to 9 s.

    :raises StackError: the migration failed; the message has the last lines of its log.
    """
    from importlib.metadata import version

    stamp = stack.config.home / _DATABASE_VERSION
    wanted = version("apache-airflow-core")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    log = stack.log_file("migrate")
    process = spawn([*_AIRFLOW, "db", "migrate"], stack.env, log)
    try:
        stack.on_start(process)
        code = process.wait(START_SECONDS)
    except BaseException:
        stop_all([process])
        raise
    if code:
        raise StackError(f"the database could not be made (code {code}):\n{tail(log)}", hint=f"see {log}")
    stamp.write_text(wanted, encoding="utf-8")

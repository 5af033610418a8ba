"""A real Airflow on loopback: API server, scheduler, DAG processor and triggerer, as processes of this one's.

For ``make run`` and for tests that want the real thing::

    with airflow.running(AirflowConfig(home=tmp_path, dags=Path("dags"))) as stack:
        run = stack.api.trigger("my_dag", {"max_steps": 10})
        assert stack.api.wait(run, 120).state == "success"

One embedded database (SQLite), LocalExecutor, one user with a password of its own. It is for one machine and for
people who trust each other there, and no set-up for production. A component that ends by itself is started again, as
an init system would: a scheduler ends when its database is locked for too long.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import psutil

from mlengine.core.errors import AirflowError, StackError
from mlengine.testing.airflow_api import AirflowApi
from mlengine.testing.airflow_home import USER, AirflowConfig, environment, free_port, prepare

_log = logging.getLogger(__name__)

START_SECONDS = 180.0  # 20 s on two idle cores; a loaded machine needs patience
STOP_SECONDS = 10.0
_PATIENCE_SECONDS = 4.0  # for tasks that are just ending
_LOOK_SECONDS = 1.0
MOST_RESTARTS = 5  # of one component; then it is no accident
# The log servers listen on every interface; nobody needs them where all components share a disk.
COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
_HEARTBEATS = {
    "scheduler": "latest_scheduler_heartbeat",
    "triggerer": "latest_triggerer_heartbeat",
    "dag_processor": "latest_dag_processor_heartbeat",
}


@dataclass
class Airflow:
    """A started Airflow.

    :param restarts: how often each component has been started again after it had ended by itself.
    :param on_restart: called after each of these.
    """

    config: AirflowConfig
    port: int
    password: str
    user: str = USER
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    on_restart: Callable[[], None] = field(default=lambda: None, repr=False)
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
        """The environment in which ``airflow …`` talks to this one."""
        return environment(self.config)

    def log_file(self, component: str) -> Path:
        return self.config.home / "logs" / f"{component}.log"

    def start_component(self, name: str) -> None:
        """Start one of :data:`COMPONENTS`; also after :meth:`stop_component`, as a restart."""
        env = environment(self.config, api_server=name == "api-server")
        with self._turn:
            self.processes[name] = _spawn(["-m", "airflow", *COMPONENTS[name]], env, self.log_file(name))

    def stop_component(self, name: str, *, kill: bool = False) -> None:
        """End one component and wait for it; ``kill`` gives it no time to tidy up, as a crash does not."""
        with self._turn:
            process = self.processes.pop(name)
        if kill:
            _signal_group(process, signal.SIGKILL)
        _end([process])

    def check(self) -> None:
        """:raises StackError: if a component has ended by itself, and is not started again any more, with the last
        lines of its log.
        """
        for name, process in self.processes.copy().items():
            code = process.poll()
            if code is None or (self._over is not None and self.restarts.get(name, 0) < MOST_RESTARTS):
                continue
            raise StackError(
                f"Airflow's {name} ended with code {code}:\n{_tail(self.log_file(name))}",
                remedy=f"see {self.log_file(name)}",
            )

    def supervise(self) -> None:
        """From now on, start again what ends by itself, up to :data:`MOST_RESTARTS` times each. Safe to repeat."""
        if self._over is None:
            self._over = threading.Event()
            threading.Thread(target=self._keep_up, args=(self._over,), name="airflow", daemon=True).start()

    def _keep_up(self, over: threading.Event) -> None:
        while not over.wait(_LOOK_SECONDS):
            with self._turn:
                ended = [name for name, process in self.processes.items() if process.poll() is not None]
                for name in ended if not over.is_set() else ():
                    if self.restarts.get(name, 0) < MOST_RESTARTS:
                        code = self.processes[name].returncode
                        _log.warning("Airflow's %s ended with code %s; it is started again", name, code)
                        self.restarts[name] = self.restarts.get(name, 0) + 1
                        _end([self.processes[name]])  # the tasks it leaves behind: nobody hears them any more
                        self.start_component(name)
                        self.on_restart()

    def stop(self) -> None:
        """End what :func:`start` started, and the tasks that it runs. Safe to repeat."""
        with self._turn:
            if self._over is not None:
                self._over.set()
            _end(list(self.processes.values()))
            self.processes.clear()


def start(config: AirflowConfig, *, wait: bool = True) -> Airflow:
    """Start an Airflow; by default, wait until every component says it is well.

    :raises StackError: if a component ends, or is not well after 180 s. Nothing is left running then.
    """
    port = config.port or free_port()
    stack = Airflow(config, port, prepare(config, port))
    stack.log_file("any").parent.mkdir(parents=True, exist_ok=True)
    _migrate(stack)
    began = datetime.now(UTC)
    try:
        for name in COMPONENTS:
            stack.start_component(name)
        if wait:
            wait_until_well(stack, since=began)
    except BaseException:
        stack.stop()
        raise
    return stack


@contextmanager
def running(config: AirflowConfig) -> Iterator[Airflow]:
    """:func:`start`, and :meth:`Airflow.stop` on the way out."""
    stack = start(config)
    try:
        yield stack
    finally:
        stack.stop()


def wait_until_well(stack: Airflow, *, since: datetime, seconds: float = START_SECONDS) -> None:
    """Wait until all components have said, after ``since``, that they are well; they are supervised then."""
    deadline = time.monotonic() + seconds
    missing: list[str] = []
    while time.monotonic() < deadline:
        stack.check()
        missing = _unwell(stack.api, since)
        if not missing:
            stack.supervise()
            return
        time.sleep(0.2)
    raise StackError(
        f"Airflow is not well after {seconds:.0f} s; missing: {', '.join(missing)}",
        remedy=f"see the logs in {stack.log_file('any').parent}",
    )


def _unwell(api: AirflowApi, since: datetime) -> list[str]:
    try:
        health = api.health()
    except AirflowError:
        return ["api-server"]
    missing = []
    for name, key in _HEARTBEATS.items():
        beat = (health.get(name) or {}).get(key)
        # A heartbeat of the last start counts for nothing: a killed component seems well for half a minute.
        if not beat or datetime.fromisoformat(beat) < since:
            missing.append(name)
    return missing


def _migrate(stack: Airflow) -> None:
    """Make or upgrade the database, unless this version of Airflow did so already in this home: it takes 5 to 9 s."""
    from importlib.metadata import version

    stamp = stack.config.home / "database-version"
    wanted = version("apache-airflow-core")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    log = stack.log_file("migrate")
    process = _spawn(["-m", "airflow", "db", "migrate"], stack.env, log)
    try:
        code = process.wait(START_SECONDS)
    except BaseException:
        _end([process])
        raise
    if code:
        raise StackError(f"the database could not be made (code {code}):\n{_tail(log)}", remedy=f"see {log}")
    stamp.write_text(wanted, encoding="utf-8")


def _spawn(arguments: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    # A process group of its own: Ctrl-C in the terminal reaches whoever started this, who then ends it in order.
    with log.open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,
        )


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to each, time to tidy up, then SIGKILL to what is left of their sessions."""
    sessions = {process.pid for process in processes}
    for process in processes:
        for pid in _told(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    children = [child for process in processes for child in _children(process)]
    began = time.monotonic()
    while any(process.poll() is None for process in processes) and time.monotonic() - began < STOP_SECONDS:
        time.sleep(0.05)
        if children and time.monotonic() - began > _PATIENCE_SECONDS:
            _kill(children)
            children = []
    for process in processes:
        if process.poll() is None:
            _signal_group(process, signal.SIGKILL)
            process.wait()
    for pid in _members(sessions):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _told(process: subprocess.Popen[bytes]) -> list[int]:
    """Whom to tell that a component shall end.

    The triggerer, told itself, can sleep 10 s over its child that is gone already; told by its child's end, it leaves
    at once and in order, and its triggers are free for the next one.
    """
    if process.poll() is not None:
        return []
    with contextlib.suppress(psutil.Error):
        if "triggerer" in psutil.Process(process.pid).cmdline():
            return [child.pid for child in _children(process)] or [process.pid]
    return [process.pid]


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(process.pid).children(recursive=True))
    return []


def _kill(children: list[psutil.Process]) -> None:
    """The scheduler waits for its workers without end; without them it leaves in order."""
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()


def _members(sessions: set[int]) -> list[int]:
    """Processes whose session leader was one of ours: tasks have process groups of their own, but no sessions."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) in sessions:
                found.append(pid)
    return found


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _tail(path: Path, lines: int = 15) -> str:
    if not path.exists():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

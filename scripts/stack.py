"""The complete stack on one machine: a Cloud Storage server, the dataset versions, and Airflow with this clone's DAGs.

All state is in one folder: objects, database, logs, ports, passwords. A lock ensures that there is one stack per
folder. A new stack ends the processes that a killed one left running, except for training jobs: these continue, and so
do their DAG runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psutil
from scripts import mnist
from scripts.console import Console

from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.local.host import split
from mlengine.core.errors import AirflowError, StackError, StorageUnavailableError
from mlengine.core.job import JobHandle
from mlengine.listeners import cleanup_process
from mlengine.runtime.file_lock import held
from mlengine.runtime.processes import Process
from mlengine.storage.client import Storage
from mlengine.testing import airflow, gcs
from mlengine.testing.airflow_home import AirflowConfig, emulator_connection, free_port, port_is_free
from mlengine.testing.restart_limit import TOO_OFTEN, RestartLimit

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".mlengine" / "data"
BUCKET = "mlengine"
PORTS = {"gcs": 9023, "ui": 8080}  # the preferred ports
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A cancelled job may take 90 s: 15 s until SIGKILL, 15 s for the workers, and 60 s to upload the logs.
_CANCEL_SECONDS = 120.0
_CLEANUP_SECONDS = 60.0  # the cleanup process imports Google's libraries, and calls the Cloud Storage server
_NOTE_SECONDS = 1.0  # shorter waits are not shown


@dataclass
class Stack:
    """A started stack.

    :param moved: messages about ports that were in use and have been replaced.
    """

    data: Path
    server: gcs.GcsServer
    airflow: airflow.Airflow
    env: Mapping[str, str]
    moved: list[str] = field(default_factory=list)
    _limit: RestartLimit = field(default_factory=RestartLimit, repr=False)

    @property
    def bucket(self) -> str:
        return f"gs://{BUCKET}"

    @property
    def storage(self) -> Storage:
        os.environ.update(self.server.env)
        return Storage()

    @property
    def backend(self) -> LocalBackend:
        return LocalBackend(self.data / "local")

    def check(self) -> None:
        """Check that no component has failed. A Cloud Storage server that has ended is started again, within limits.

        :raises ComponentFailedError: a component of Airflow is no longer restarted.
        :raises StorageUnavailableError: the Cloud Storage server does not start, or ended too often.
        """
        self.airflow.check()
        code = self.server.process.poll()
        if code is None:
            return
        what, log = f"the Cloud Storage server ended with code {code}", _log(self.data, "gcs")
        if self._limit.next_restart() is None:
            raise StorageUnavailableError(f"{what} {TOO_OFTEN}", hint=f"see {log}")
        self._limit.count()
        url = urlsplit(self.server.url)
        self.server = gcs.start(self.server.root, host=url.hostname or "127.0.0.1", port=url.port or 0, log=log)
        remember(self)
        self.airflow.warn(f"{what}, and was started again; see {log}")

    def stop(self, console: Console | None = None) -> list[str]:
        """Stop everything, including training jobs. Returns the ids of the jobs that were cancelled and have ended.

        Runs in progress are marked as failed first, as in the UI. This cancels their jobs, and the runs do not continue
        at the next start.

        :param console: shows what the stop waits for, and what has not ended in time.
        """
        try:
            alive = living_jobs(self.backend)
            cleaned = self._end_runs(console)
            self.airflow.stop()
            cancel_jobs(self.backend, console)
            if cleaned:
                self._wait_for_cleanup(console)
            left = {handle.name for handle in living_jobs(self.backend)}
        finally:
            self.airflow.stop()
            self.server.stop()
            forget(self.data)
        return [handle.job_id for handle in alive if handle.name not in left]

    def stop_without_jobs(self) -> list[str]:
        """Stop Airflow, but not the training jobs. Returns the ids of the jobs that continue.

        For a failure of Airflow, which does not affect the jobs. Their DAG runs remain in progress, and the next
        :func:`start` continues them. The Cloud Storage server keeps running, because the jobs need the bucket.
        """
        self.airflow.stop()
        return _leave_jobs(self.data, self.server)

    def _end_runs(self, console: Console | None) -> bool:
        """Mark the runs in progress as failed. Returns whether the cleanup process has ended, if there was one."""
        # If the API server is down, the caller cancels the jobs without it.
        with contextlib.suppress(AirflowError):
            runs = self.airflow.api.live_runs()
            for run in runs:
                self.airflow.api.set_run_state(run, "failed")
            return self._wait_for_cleanup(console)
        return True

    def _wait_for_cleanup(self, console: Console | None) -> bool:
        home, what = self.airflow.config.home, "the process that cancels the jobs of ended runs"
        busy = _wait(lambda: [what] if cleanup_process.is_busy(home) else [], _CLEANUP_SECONDS, console)
        if busy and console is not None:
            console.say(f"  ! not ended in {_CLEANUP_SECONDS:.0f} s: {what}; see {home / 'logs'}")
        return not busy


class Lock:
    """The lock of a folder, held by the process of its stack.

    :raises StackError: another process holds the lock; names the process and the URL of its UI.
    """

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self._file = (data / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            running = _read(data / "running.json")
            where = f", with its UI at {running['ui']}" if "ui" in running else ", which is starting"
            raise StackError(
                f"the stack is running already: process {running.get('pid', 'unknown')}{where}",
                hint="use that one, or stop it with Ctrl-C in its terminal",
            ) from error
        _end_leftovers(data)
        _write(data / "running.json", {"pid": os.getpid()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def running(data: Path = DATA, *, versions: Sequence[str] | None = None, **options: Any) -> Iterator[Stack]:
    """A context manager that calls :func:`start` under the folder's lock, and :meth:`Stack.stop` at the end."""
    with Lock(data):
        stack = start(data, versions=versions, **options)
        try:
            yield stack
        finally:
            stack.stop()


def start(
    data: Path = DATA,
    *,
    versions: Sequence[str] | None = None,
    load: Callable[..., list[str]] = mnist.ensure,
    dags: Path = ROOT / "dags",
    settings: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    gcs_host: str = "127.0.0.1",
) -> Stack:
    """Start all components and wait until they are healthy. The caller holds the :class:`Lock`.

    :param versions: dataset versions to register; by default all, none for ``[]``.
    :param load: the function that registers them.
    :param settings: settings of Airflow, which override those of the stack.
    :param env: environment variables of Airflow and its tasks, which override those of the stack.
    :param gcs_host: the address of the Cloud Storage server, if not only this machine uses it.
    :raises MlengineError: a component did not start. All others have been stopped, except for training jobs of an
        earlier stack and the server of their bucket.
    """
    data = data.absolute()
    ports, moved = _ports(data)
    server = started = None
    recorder = _Recorder(data)
    try:
        server = gcs.start(data / "gcs", host=gcs_host, port=ports["gcs"], log=_log(data, "gcs"), on_start=recorder)
        os.environ.update(server.env)
        environment = {**_environment(data, server), **(env or {})}
        config = AirflowConfig(
            home=data / "airflow",
            dags=dags,
            plugins=ROOT / "plugins",
            port=ports["ui"],
            env=environment,
            settings=settings or {},
        )
        began = datetime.now(UTC)
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(_load, load, versions)
            started = airflow.start(config, wait=False, on_start=recorder)
            stack = Stack(data, server, started, environment, moved)
            started.on_start = lambda _: None
            remember(stack)
            started.on_restart = lambda: remember(stack)
            write_shell(stack)
            loading.result()
        airflow.wait_until_healthy(started, since=began)
    except BaseException:
        with _stop_signals_ignored():
            if started is not None:
                started.stop()
            if server is not None:
                _leave_jobs(data, server)
        raise
    return stack


@contextmanager
def _stop_signals_ignored() -> Iterator[None]:
    """Ignore a second Ctrl-C, which would leave some of the processes running."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Recorder:
    """Records each process of a stack that starts, for the next stack if this one is killed during its start."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._pids: list[int] = []

    def __call__(self, process: subprocess.Popen[bytes]) -> None:
        self._pids.append(process.pid)
        _record(self._data, self._pids)


def remember(stack: Stack) -> None:
    """Record the running processes, for other commands, and for the next stack if this one is killed."""
    processes = [stack.server.process, *stack.airflow.processes.values()]
    _record(stack.data, [process.pid for process in processes], ui=stack.airflow.url, gcs=stack.server.url)


def _record(data: Path, pids: Sequence[int], **urls: str) -> None:
    # The start is needed because a pid may be reused. It does not depend on the clock, as psutil's create_time() does.
    started = {str(pid): process.start for pid in pids if (process := Process.of(pid)) is not None}
    _write(data / "running.json", {"pid": os.getpid(), **urls, "processes": started})


def _leave_jobs(data: Path, server: gcs.GcsServer) -> list[str]:
    """Stop the server, unless jobs need it. Returns the ids of these jobs."""
    alive = [handle.job_id for handle in living_jobs(LocalBackend(data / "local"))]
    if alive:
        _record(data, [server.process.pid], gcs=server.url)
    else:
        server.stop()
        forget(data)
    return alive


def write_shell(stack: Stack) -> Path:
    """Write a file to source in a shell, so that ``mlengine`` and ``airflow`` use this stack.

    Only its owner may read it, because it contains the stack's secrets.
    """
    air = stack.airflow
    ours = ("AIRFLOW", "MLENGINE_", *stack.server.env, "UV_")
    words = {name: value for name, value in air.env.items() if name.startswith(ours)}
    words |= {
        "AIRFLOW_HOME": str(air.config.home),
        "MLENGINE_AIRFLOW_URL": air.url,
        "MLENGINE_AIRFLOW_USER": air.user,
        "MLENGINE_AIRFLOW_PASSWORD": air.password,
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(words.items())]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    file = stack.data / "env.sh"
    file.touch(mode=0o600)
    file.write_text("\n".join(["# Written by make run. To use it: . .mlengine/data/env.sh", *lines, ""]))
    return file


def forget(data: Path) -> None:
    (data / "running.json").unlink(missing_ok=True)


def cancel_jobs(backend: LocalBackend, console: Console | None = None) -> None:
    """Cancel all jobs of the folder, and wait until they have ended."""
    for handle in living_jobs(backend):
        backend.cancel(handle)
    for what in _wait(lambda: _unfinished(backend), _CANCEL_SECONDS, console):
        if console is not None:
            console.say(f"  ! not ended in {_CANCEL_SECONDS:.0f} s: {what}; see {backend.state_dir / 'jobs'}")


def living_jobs(backend: LocalBackend) -> list[JobHandle]:
    """The jobs of the folder that have not ended."""
    return [status.handle for status in backend.describe(backend.jobs()) if not status.state.terminal]


def _unfinished(backend: LocalBackend) -> list[str]:
    """The jobs that have not ended, with their states, and those whose launcher still uploads the logs."""
    statuses = backend.describe(backend.jobs())
    found = [f"job {it.handle.job_id}: {it.state.value}, {it.detail}" for it in statuses if not it.state.terminal]
    launchers = {lock.parent.name for lock in (backend.state_dir / "jobs").glob("*/lease") if held(lock)}  # prose: ok
    ended = [it.handle for it in statuses if it.state.terminal and split(it.handle.name)[1] in launchers]
    return [*found, *(f"the upload of the logs of job {handle.job_id}" for handle in ended)]


def _wait(busy: Callable[[], Sequence[str]], seconds: float, console: Console | None) -> Sequence[str]:
    """Wait up to ``seconds`` until ``busy`` finds nothing, and show what it finds. Return what it found last."""
    began = time.monotonic()
    while (found := busy()) and (passed := time.monotonic() - began) < seconds:
        if console is not None and passed >= _NOTE_SECONDS:
            console.note(f"  … waiting at most {seconds - passed:.0f} s for {'; '.join(found)}")
        time.sleep(0.2)
    return found


def _load(load: Callable[..., list[str]], versions: Sequence[str] | None) -> None:
    storage = Storage()
    if storage.client.lookup_bucket(BUCKET) is None:
        storage.client.create_bucket(BUCKET)
    load(storage, f"gs://{BUCKET}", versions=versions)


def _environment(data: Path, server: gcs.GcsServer) -> dict[str, str]:
    """The environment variables of Airflow and its tasks."""
    return {
        **server.env,
        **emulator_connection(),
        "AIRFLOW__MLENGINE__BUCKET": f"gs://{BUCKET}",
        "AIRFLOW__MLENGINE__LOCAL_STATE_DIR": str(data / "local"),
        # Frequent polls are cheap, because a poll of a local job only reads a small file.
        "AIRFLOW__MLENGINE__POLL_INTERVAL_SECONDS": "1",
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(ROOT / ".mlengine" / "cache" / "uv"),
        "UV_PYTHON_DOWNLOADS": "never",
        # Lets tasks find the programs of this environment.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
    }


def _ports(data: Path) -> tuple[dict[str, int], list[str]]:
    """The ports of the last start, or other ones with a message if they are in use."""
    kept = {**PORTS, **_read(data / "ports.json")}
    moved = []
    for name, port in kept.items():
        if not port_is_free(port):
            kept[name] = free_port()
            moved.append(f"port {port} is in use; {'the UI' if name == 'ui' else 'Cloud Storage'} uses {kept[name]}")
    _write(data / "ports.json", kept)
    return kept, moved


def _end_leftovers(data: Path) -> None:
    """End the processes of an earlier stack, except for its jobs."""
    found = []
    for pid, start in _read(data / "running.json").get("processes", {}).items():
        with contextlib.suppress(psutil.Error):
            if Process(int(pid), start).alive():
                process = psutil.Process(int(pid))
                found += [*process.children(recursive=True), process]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=10)


def _log(data: Path, name: str) -> Path:
    (data / "logs").mkdir(parents=True, exist_ok=True)
    return data / "logs" / f"{name}.log"


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)

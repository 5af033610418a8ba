"""A pytest plugin: a run that is interrupted, or whose main process is killed, leaves no processes behind.

Fixtures stop what they have started when the session ends. By default xdist cuts this short in its worker processes:
when the main process ends, execnet interrupts a worker after 5 s, even in the middle of a fixture's teardown, and ends
it after another 10 s; xdist itself kills it after 10 s. Stopping an Airflow takes longer. With this plugin a worker is
interrupted only once, and then has :data:`PATIENCE`.

After the fixtures have ended, the plugin kills detached processes, such as launchers of jobs, that tests could not stop
because they were interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE = 180.0  # seconds that all fixtures together have for their teardown
MARK = "PYTEST_SESSION_MARK"  # an environment variable of the processes that tests start


class _Session:
    """Kills the processes that remain at the end of a session.

    :param folder: the session's temporary files. Launchers of jobs do not inherit the mark but use files in this
        folder.
    """

    def __init__(self, mark: str, folder: Path) -> None:
        self._mark, self._folder = mark, folder
        self.interrupted = False

    def pytest_keyboard_interrupt(self) -> None:
        self.interrupted = True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, Any, Any]:
        try:
            return (yield)
        finally:
            killed = [_kill(process) for process in _left(self._mark, self._folder)]
            if killed:
                sys.stderr.write("\nkilled, because tests left them running:\n" + "".join(killed))


def _left(mark: str, folder: Path) -> Iterator[psutil.Process]:
    """Processes that have the mark or the folder in their environment, or whose working directory is in the folder."""
    this = psutil.Process()
    spared = {this.pid, *(parent.pid for parent in this.parents())}
    # Python's own helper processes for multiprocessing end with this process.
    helpers = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
    spared |= {child.pid for child in this.children() if any(name in str(child.cmdline()) for name in helpers)}
    below = f"{folder}/"
    for process in psutil.process_iter():
        try:
            if process.pid in spared or process.status() == psutil.STATUS_ZOMBIE:
                continue
            variables = process.environ()
            used = (process.cwd(), *variables.values())
            # A user's shell may also be in the folder, but it has a terminal; launchers have none.
            detached = process.terminal() is None
            if variables.get(MARK) == mark or (detached and any(f"{value}/".startswith(below) for value in used)):
                yield process
        except psutil.Error:
            continue


def _kill(process: psutil.Process) -> str:
    line = f"{process.pid}"
    try:
        line += f" {' '.join(process.cmdline())[:200]}"
        process.kill()
    except psutil.Error:
        pass
    return f"{line}\n"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin in processes that run tests; with xdist the main process only waits for its workers."""
    worker = hasattr(config, "workerinput")
    if not worker and config.getoption("dist", "no") != "no":
        from xdist.workermanage import NodeManager

        NodeManager.EXIT_TIMEOUT = PATIENCE  # type: ignore[misc,unused-ignore]
        return
    os.environ[MARK] = mark = uuid.uuid4().hex
    # A private attribute, but the only way to get the folder that tmp_path will use.
    session = _Session(mark, config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    config.pluginmanager.register(session, "session-processes")
    if worker:
        _interrupt_once(session)


def _interrupt_once(session: _Session) -> None:
    """Replace execnet's handler in a worker for a main process that has closed the connection or has ended."""
    from execnet.gateway_base import WorkerGateway

    def terminate_execution(gateway: Any) -> None:
        pool = gateway._execpool
        pool.trigger_shutdown()
        if pool.waitall(1.0):
            return
        if not session.interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        if not pool.waitall(PATIENCE):
            os._exit(1)

    WorkerGateway._terminate_execution = terminate_execution  # type: ignore[assignment,method-assign,unused-ignore]

"""A pytest plugin: a run that is interrupted, or whose main process is killed, leaves no processes.

Fixtures stop what they have started when the session ends. In the worker processes of xdist that was cut short: when
the main process ends, execnet interrupts a worker after 5 s, also in the middle of a fixture's end, and ends it after
another 10 s; xdist itself kills it after 10 s. To stop an Airflow takes longer. Therefore a worker is interrupted
once, and has :data:`PATIENCE`.

Detached processes of tests that were interrupted before they could stop them, such as launchers of jobs, are killed
after the fixtures have ended.
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

PATIENCE = 180.0  # seconds for the end of all fixtures
MARK = "PYTEST_SESSION_MARK"  # a variable in the environment of processes that tests start


class _Session:
    """Kills what is left at the end of a session.

    :param folder: the session's temporary files. Launchers of jobs do not inherit the mark; their files are here.
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
    """Processes with the mark in their environment, or with the folder in it, or with a directory in the folder."""
    this = psutil.Process()
    spared = {this.pid, *(parent.pid for parent in this.parents())}
    # Python's own helper processes for multiprocessing end with this process.
    spared |= {child.pid for child in this.children() if "multiprocessing.resource_tracker" in str(child.cmdline())}
    below = f"{folder}/"
    for process in psutil.process_iter():
        try:
            if process.pid in spared or process.status() == psutil.STATUS_ZOMBIE:
                continue
            variables = process.environ()
            used = (process.cwd(), *variables.values())
            # A person's shell has a terminal, and launchers have none.
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
    """Active in the processes that run tests; the main process of xdist only waits for its workers."""
    worker = hasattr(config, "workerinput")
    if not worker and config.getoption("dist", "no") != "no":
        from xdist.workermanage import NodeManager

        NodeManager.EXIT_TIMEOUT = PATIENCE  # type: ignore[misc,unused-ignore]
        return
    os.environ[MARK] = mark = uuid.uuid4().hex
    # Not public, and the only way to know the folder that tmp_path will use.
    session = _Session(mark, config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    config.pluginmanager.register(session, "session-processes")
    if worker:
        _interrupt_once(session)


def _interrupt_once(session: _Session) -> None:
    """Replace what execnet does in a worker when the main process closes the connection, or is gone."""
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

"""A pytest plugin that lists the modules with the most CPU time at the end of a run.

On few cores, CPU time determines how long the suite takes; a test's duration depends more on the machine's other load.
Counts the process that runs the tests and all its descendants, both ended ones and those that still run, such as an
Airflow. Detached processes, such as replicas of the local backend, are not counted.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from typing import Any

import psutil
import pytest

_SHOWN = 10
_SHORT = 5.0  # seconds; running processes are counted only after a module that took longer
_OUTPUT = "cpu_seconds"


class CpuTime:
    """Counts seconds of CPU time by module, in a process that runs tests."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running = 0.0
        self._began, self._used = time.monotonic(), _ended()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
        result = yield
        module = item.nodeid.partition("::")[0]
        if nextitem is None or nextitem.nodeid.partition("::")[0] != module:
            self._count(module)
        return result

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[_OUTPUT] = dict(self.seconds)

    def _count(self, module: str) -> None:
        now = time.monotonic()
        if now - self._began > _SHORT:
            self._running = _running()
        used = _ended() + self._running
        self.seconds[module] = self.seconds.get(module, 0.0) + used - self._used
        self._began, self._used = now, used


class Summary:
    """Prints the summary, in the process that writes the report."""

    def __init__(self, own: CpuTime | None) -> None:
        self._own = own
        self._seconds: dict[str, float] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # A module runs in only one worker, as its tests form one group.
        self._seconds |= getattr(node, "workeroutput", {}).get(_OUTPUT, {})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        seconds = self._own.seconds if self._own else self._seconds
        if len(seconds) > 1:
            terminalreporter.section(f"CPU time: {sum(seconds.values()):.0f} s, of {len(seconds)} modules")
            for used, module in sorted(((used, module) for module, used in seconds.items()), reverse=True)[:_SHOWN]:
                terminalreporter.write_line(f"{used:8.1f} s  {module}")


def _ended() -> float:
    return sum(os.times()[:4])


def _running() -> float:
    """CPU seconds of the running descendants, including their children that have ended."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            seconds += sum(process.cpu_times()[:4])
    return seconds


def pytest_configure(config: pytest.Config) -> None:
    """Register the counter in processes that run tests, and the summary in the main process."""
    worker, main = hasattr(config, "workerinput"), config.getoption("dist", "no") != "no"
    counting = CpuTime() if worker or not main else None
    if counting:
        config.pluginmanager.register(counting, "cpu-time")
    if not worker:
        config.pluginmanager.register(Summary(counting), "cpu-time-summary")

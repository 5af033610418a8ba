"""A pytest plugin: the modules that cost the most CPU time, at the end of a run.

On few cores CPU time decides how long the suite takes; the duration of a test says more about the machine's other work.
The process that runs the tests is counted, with its children and theirs, whether they have ended or, as an Airflow, are
still running. Detached processes are not counted, such as replicas of the local backend.
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
_SHORT = 5.0  # seconds; after a module that took less, processes are not searched
_OUTPUT = "cpu_seconds"


class CpuTime:
    """In a process that runs tests: seconds of CPU time by module."""

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
    """In the process that prints the summary."""

    def __init__(self, own: CpuTime | None) -> None:
        self._own = own
        self._seconds: dict[str, float] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # A module runs in one worker: its tests are one group.
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
    """Seconds of the descendants that are running, with their children that have ended."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            seconds += sum(process.cpu_times()[:4])
    return seconds


def pytest_configure(config: pytest.Config) -> None:
    """Count where tests run, and print where the summary is."""
    worker, main = hasattr(config, "workerinput"), config.getoption("dist", "no") != "no"
    counting = CpuTime() if worker or not main else None
    if counting:
        config.pluginmanager.register(counting, "cpu-time")
    if not worker:
        config.pluginmanager.register(Summary(counting), "cpu-time-summary")

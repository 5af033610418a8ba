"""A pytest plugin: in CI, a test may be skipped only for a reason that ``tests/allowed_skips.txt`` lists.

A skipped test is not green: without this, a machine without a browser would pass without the browser's tests.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ALLOWED = Path(__file__).parents[1] / "allowed_skips.txt"


def allowed_reasons(path: Path = ALLOWED) -> list[re.Pattern[str]]:
    """The regular expressions in the file; empty lines and comments are ignored."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


class SkipPolicy:
    """Collects skips, and fails the session for those that are not allowed."""

    def __init__(self) -> None:
        self._reasons = allowed_reasons()
        self._forbidden: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report.nodeid, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report.nodeid, report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._forbidden and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._forbidden:
            terminalreporter.section("skips that tests/allowed_skips.txt does not list", red=True)
            for line in self._forbidden:
                terminalreporter.write_line(line)

    def _note(self, nodeid: str, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(allowed.search(reason) for allowed in self._reasons):
            self._forbidden.append(f"{nodeid}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    """Active where ``CI`` is set."""
    if os.environ.get("CI"):
        config.pluginmanager.register(SkipPolicy(), "skip-policy")

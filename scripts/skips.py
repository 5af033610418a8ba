"""A pytest plugin of ``make test``: lists each skipped test with its reason, and limits the reasons in CI.

Without it, the tests would pass on a machine without a browser, although the browser's tests did not run. In CI (where
``CI`` is set), the run fails if a test was skipped for a reason that ``tests/allowed_skips.txt`` does not list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ALLOWED = Path(__file__).parents[1] / "tests" / "allowed_skips.txt"
# The variable with the file to which a run appends its skips, one per line, for the summary of scripts.check.
FILE = "SKIPPED_TESTS_FILE"


def allowed_reasons(path: Path = ALLOWED) -> list[re.Pattern[str]]:
    """The regular expressions in the file; empty lines and comments are ignored."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


class Skips:
    """Collects skips. In CI, fails the session for those that are not allowed."""

    def __init__(self, *, ci: bool) -> None:
        self._ci = ci
        self._allowed = allowed_reasons()
        self._skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._ci and any(self._forbidden()) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        forbidden = list(self._forbidden()) if self._ci else []
        if forbidden:
            terminalreporter.section("skips that tests/allowed_skips.txt does not list", red=True)
            for line in forbidden:
                terminalreporter.write_line(line)
        if FILE in os.environ:
            with Path(os.environ[FILE]).open("a", encoding="utf-8") as file:
                for nodeid, reason in self._skipped.items():
                    line = f"{nodeid}: {reason}"
                    file.write(f"{line} (not allowed)\n" if line in forbidden else f"{line}\n")

    def _forbidden(self) -> Iterator[str]:
        for nodeid, reason in self._skipped.items():
            if not any(allowed.search(reason) for allowed in self._allowed):
                yield f"{nodeid}: {reason}"

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self._skipped[report.nodeid] = " ".join(reason.removeprefix("Skipped: ").split())


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin only in the process that prints the summary; workers of xdist send their reports there."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(ci=bool(os.environ.get("CI"))), "skips")

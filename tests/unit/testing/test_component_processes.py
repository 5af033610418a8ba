"""The last lines of a component's log."""

from __future__ import annotations

from pathlib import Path

from mlengine.testing.component_processes import tail


def test_the_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "scheduler.log"
    assert tail(log) == ""
    log.write_text("".join(f"line {number}: ü\n" for number in range(100_000)), encoding="utf-8")
    assert tail(log, 2) == "line 99998: ü\nline 99999: ü"
    log.write_text("one\ntwo\n", encoding="utf-8")
    assert tail(log) == "one\ntwo"

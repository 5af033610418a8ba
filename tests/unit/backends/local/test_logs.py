"""Paging through logs: each line is returned once and complete, for any content and any page size."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from mlengine.backends.local import logs
from mlengine.backends.local.record import Job
from mlengine.core import plaintext


@pytest.fixture
def job(tmp_path: Path) -> Job:
    job = Job(tmp_path)
    job.logs.mkdir()
    return job


def read_all(job: Job, *, limit: int = 1000, ended: bool = True, cursor: Any = None) -> list[tuple[str, str]]:
    lines = []
    cursor = cursor or {}
    while True:
        page = logs.page(job, cursor, limit, ended=ended)
        assert len(page.lines) <= limit
        lines += [(line.replica, line.text) for line in page.lines]
        if not page.more:
            return lines
        assert page.cursor != cursor
        cursor = page.cursor


def test_an_incomplete_line_is_held_back(job: Job) -> None:
    log = job.log("chief-0")
    log.write_bytes(b"one\ntw")
    page = logs.page(job, {}, 10, ended=False)
    assert [line.text for line in page.lines] == ["one"]
    with log.open("ab") as file:
        file.write(b"o\n")
    page = logs.page(job, page.cursor, 10, ended=False)
    assert [line.text for line in page.lines] == ["two"]
    assert logs.page(job, page.cursor, 10, ended=False).lines == ()


def test_lines_of_stderr_are_marked(job: Job) -> None:
    job.log("chief-0").write_bytes(b"out\n")
    job.stderr_log("chief-0").write_bytes(b"err\n")
    page = logs.page(job, {}, 10, ended=False)
    found = [(line.replica, line.text, line.stderr) for line in page.lines]
    assert found == [("chief-0", "out", False), ("chief-0", "err", True)]
    assert page.cursor == {"chief-0": 4, "chief-0.stderr": 4}


def test_a_progress_bar_is_shown_with_one_state_per_read(job: Job) -> None:
    log = job.log("chief-0")
    shown: list[str] = []
    cursor: Any = {}
    for written in (b"start\n\r 1 %", b"\r 2 %\r 3", b" %", b"\r 4 %", b"", b"\r100 %\n", b"done\n"):
        with log.open("ab") as file:
            file.write(written)
        page = logs.page(job, cursor, 10, ended=False)
        cursor = page.cursor
        assert not page.more
        shown.append(" | ".join(line.text for line in page.lines))
    assert shown == ["start", " 2 %", "", " 3 %", "", " 4 % | 100 %", "done"]


def test_a_line_that_ends_with_a_carriage_return_is_one_line(job: Job) -> None:
    log = job.log("chief-0")
    log.write_bytes(b"one\r")
    assert logs.page(job, {}, 10, ended=False).lines == ()
    log.write_bytes(b"one\r\ntwo\r\n")
    assert read_all(job) == [("chief-0", "one"), ("chief-0", "two")]


def test_a_progress_bar_that_is_read_late_is_thinned_and_keeps_its_last_state(job: Job) -> None:
    job.log("chief-0").write_bytes(b"".join(b"\rstep %d" % n for n in range(1000)) + b"\nend\n")
    texts = [text for _, text in read_all(job)]
    assert len(texts) == plaintext.MOST_STATES + 1
    assert texts[-2:] == ["step 999", "end"]
    assert read_all(job, limit=3)[-2:] == [("chief-0", "step 999"), ("chief-0", "end")]


def test_a_long_line_after_a_cleared_progress_bar_does_not_stop_the_log(job: Job) -> None:
    """A progress bar such as that of ``tqdm(leave=False)``, and a line that is longer than one read."""
    log = job.log("chief-0")
    log.write_bytes(b"100 %\r")
    with log.open("ab") as file:
        file.write(b"   \r" + b"x" * 700_000 + b"\nepoch 2\nValueError: boom\n")
    for ended in (False, True):
        texts = [text for _, text in read_all(job, ended=ended)]
        assert texts[-2:] == ["epoch 2", "ValueError: boom"]
    log.write_bytes(b"   \r" + b"x" * 300_000)
    page = logs.page(job, {}, 10, ended=False)
    with log.open("ab") as file:
        file.write(b"\nepoch 2\n")
    assert logs.page(job, page.cursor, 10, ended=False).lines[-1].text == "epoch 2"


def test_an_incomplete_last_line_is_read_after_the_end_of_the_job(job: Job) -> None:
    job.log("chief-0").write_bytes(b"one\nlast line")
    assert read_all(job, ended=True) == [("chief-0", "one"), ("chief-0", "last line")]


def test_a_chatty_replica_does_not_hide_the_others(job: Job) -> None:
    job.log("chief-0").write_bytes(b"".join(b"c%d\n" % n for n in range(1000)))
    job.log("worker-0").write_bytes(b"w0\nw1\n")
    page = logs.page(job, {}, 10, ended=False)
    assert [line.text for line in page.lines if line.replica == "worker-0"] == ["w0", "w1"]
    assert len(page.lines) == 10
    assert page.more
    assert len(read_all(job, limit=7)) == 1002


def test_the_launcher_comes_first_with_its_times(job: Job) -> None:
    job.log("chief-0").write_bytes(b"hello\n")
    job.launcher_log.write_bytes(b"2026-11-23T14:00:01.500Z chief-0 started\nTraceback of something\n")
    page = logs.page(job, {}, 10, ended=False)
    assert [(line.replica, line.text, line.time) for line in page.lines] == [
        ("launcher", "chief-0 started", 1795442401.5),
        ("launcher", "Traceback of something", None),
        ("chief-0", "hello", None),
    ]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link", "link"),
        (b"a\x1bMb", "ab"),
        (b"step 1\rstep 2\rstep 3\r", "step 3"),
        (b"tab\there", "tab\there"),
        (b"bell\x07 back\x08", "bell\\x07 back\\x08"),
        (b"bad \xff utf-8", "bad \ufffd utf-8"),
        ("gr\u00fcezi \u202eevil".encode(), "gr\u00fcezi \\x202eevil"),
        ("line\u2028other".encode(), "line\\x2028other"),
        (b"nul\0", "nul\\x00"),
    ],
)
def test_terminal_control_sequences_are_neutralised(raw: bytes, shown: str) -> None:
    assert logs.clean(raw) == shown


def test_a_long_line_is_cut_with_a_note() -> None:
    assert logs.clean(b"x" * 5000) == "x" * 4000 + " [1000 characters cut]"


def test_a_line_that_never_ends_is_read_in_parts(job: Job) -> None:
    job.log("chief-0").write_bytes(b"x" * (1 << 20))
    page = logs.page(job, {}, 10, ended=False)
    assert page.lines
    assert all(len(line.text) < 4100 for line in page.lines)
    job.log("worker-0").write_bytes(b"x" * 1000)
    assert logs.page(job, page.cursor, 10, ended=False).cursor.get("worker-0") is None


def test_an_invalid_cursor_starts_from_the_beginning(job: Job) -> None:
    job.log("chief-0").write_bytes(b"one\n")
    assert [line.text for line in logs.page(job, {"chief-0": "x", "ps-9": -5}, 10, ended=False).lines] == ["one"]
    assert logs.page(job, {"chief-0": 10_000}, 10, ended=False).lines == ()


def test_the_last_lines_of_a_log_are_read(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert logs.last_lines(log) == ()
    log.write_bytes(b"y" * 100_000 + b"\n" + b"".join(b"%d\n\n" % n for n in range(100)))
    assert logs.last_lines(log) == tuple(str(n) for n in range(80, 100))


_LINE = some.text(some.characters(codec="ascii", min_codepoint=33, max_codepoint=126), max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    some.dictionaries(some.sampled_from(["chief-0", "worker-0", "ps-0"]), some.lists(_LINE, max_size=30)),
    some.lists(some.integers(1, 40), min_size=1, max_size=30),
    some.integers(1, 9),
)
def test_no_line_is_lost_or_logged_twice(written: dict[str, list[str]], steps: list[int], limit: int) -> None:
    """Readers are replaced between writes of any size; together they read what was written."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder))
        job.logs.mkdir()
        left = {name: "".join(f"{line}\n" for line in lines).encode() for name, lines in written.items()}
        seen: dict[str, list[str]] = {name: [] for name in written}
        cursor: Any = {}
        for step in steps:
            for name in left:
                with job.log(name).open("ab") as file:
                    file.write(left[name][:step])
                left[name] = left[name][step:]
            page = logs.page(job, cursor, limit, ended=False)
            cursor = json.loads(json.dumps(dict(page.cursor)))  # a new reader continues from the saved cursor
            for line in page.lines:
                seen[line.replica].append(line.text)
        for name, data in left.items():
            with job.log(name).open("ab") as file:
                file.write(data)
        for replica, text in read_all(job, limit=limit, cursor=cursor):
            seen[replica].append(text)
        assert seen == written


@pytest.mark.parametrize("offset", [2**63, 2**70, -1, True, "3", None])
def test_an_offset_beyond_the_file_starts_from_the_beginning(job: Job, offset: Any) -> None:
    """The cursor may have any value, because it is stored in the job dir, where the job's code can write."""
    (job.logs / "chief-0.log").write_text("one\n")
    page = logs.page(job, {"chief-0": offset}, 10, ended=True)
    assert [line.text for line in page.lines] == ["one"]

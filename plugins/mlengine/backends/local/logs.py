"""Reads the logs of a job in pages, each line once.

A cursor is ``{log: byte offset}``. There is one log for each replica, and one for its stderr if the job keeps that
apart. An incomplete last line is returned only after the job has ended. A progress bar, which overwrites its line, is
returned while it changes: each read returns its latest state.

Control sequences (escapes, carriage returns, bidirectional marks) are removed or made visible, so that a trainer's
output can neither hide nor forge lines of the log that shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

from mlengine.backends import LogLine, LogPage
from mlengine.backends.local.record import STDERR, Job
from mlengine.core import plaintext

TAIL_LINES = 20
_CHUNK = 256 << 10  # bytes of one replica's log read for one page
_PARTIAL = 64 << 10  # a line longer than this is returned in parts

_STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ")


def page(job: Job, cursor: Mapping[str, Any], limit: int, *, ended: bool) -> LogPage:
    """At most ``limit`` lines after ``cursor``.

    :param ended: whether the job has ended, so that an incomplete last line is returned too.
    """
    names = replicas(job)
    offsets = {name: _offset(cursor, name) for name in names}
    follows = dict.fromkeys(names, False)
    lines: list[LogLine] = []
    open_names = list(names)
    while open_names and len(lines) < limit:
        # Each replica gets an equal share, so that one that logs a lot does not hide the others.
        share = max(1, (limit - len(lines)) // len(open_names))
        for name in list(open_names):
            share = min(share, limit - len(lines))
            if share <= 0:
                break
            texts, offsets[name], follows[name] = _read(job.log(name), offsets[name], share, ended)
            lines += _lines(name, texts)
            if len(texts) < share:
                open_names.remove(name)
    more = any(follows.values()) or any(_read(job.log(name), offsets[name], 1, ended)[0] for name in names)
    return LogPage(tuple(lines), {name: offset for name, offset in offsets.items() if offset}, more)


def replicas(job: Job) -> list[str]:
    """The names of all logs, the launcher's first."""
    names = sorted(path.stem for path in job.logs.glob("*.log")) if job.logs.is_dir() else []
    return [*(["launcher"] if job.launcher_log.exists() else []), *names]


def last_lines(path: Path, count: int = TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a log, for the report of a failure."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _PARTIAL))
            data = file.read()
    except FileNotFoundError:
        return ()
    lines = data.splitlines()
    if size > _PARTIAL:
        lines = lines[1:]
    return tuple(clean(line)[:500] for line in lines if line.strip())[-count:]


def clean(raw: bytes) -> str:
    """A line of a log without escapes and control characters, limited in length."""
    return plaintext.line(raw.decode("utf-8", "replace"))


def _read(path: Path, offset: int, limit: int, ended: bool) -> tuple[list[str], int, bool]:
    """At most ``limit`` lines from ``offset``, the offset after them, and whether another complete line follows."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(_CHUNK)
    except FileNotFoundError:
        return [], offset, False
    texts, begin = _plain(data, limit)
    while len(texts) < limit:
        end = data.find(b"\n", begin)
        if end >= 0:
            texts += _states(data[begin:end])[len(texts) - limit :]
            begin = end + 1
            continue
        rest = data[begin:]
        if rest and ((ended and len(data) < _CHUNK) or (len(rest) >= _PARTIAL and b"\r" not in rest)):
            texts += _states(rest)[len(texts) - limit :]
            begin = len(data)
        elif shown := plaintext.overwritten(rest):
            # Of a progress bar, keep its last complete state.
            texts.append(_states(rest[:shown])[-1])
            begin += shown
        elif len(rest) == _CHUNK:
            # These are blanks that were overwritten, or a line that is longer than what is read at once.
            texts += _states(rest)[len(texts) - limit :]
            begin = len(data)
        break
    return texts, offset + begin, data.find(b"\n", begin) >= 0


def _plain(data: bytes, limit: int) -> tuple[list[str], int]:
    """The lines before the first one that may contain something to remove, and their length in bytes."""
    if not data.isascii():
        return [], 0
    texts = data.decode("ascii").split("\n", limit)
    texts.pop()  # the part after the last line break
    for number, text in enumerate(texts):
        if not text.isprintable() or not text or text.isspace() or len(text) > plaintext.MOST_CHARACTERS:
            del texts[number:]
            break
    return texts, sum(map(len, texts)) + len(texts)


def _states(raw: bytes) -> list[str]:
    if raw.isascii() and len(raw) <= plaintext.MOST_CHARACTERS:
        text = raw.decode("ascii")
        # Most lines have nothing to remove.
        if text.isprintable() and not text.isspace() and text:
            return [text]
    return [clean(state.encode()) for state in plaintext.states(raw.decode("utf-8", "replace"))]


def _lines(name: str, texts: Sequence[str]) -> Iterable[LogLine]:
    if name == "launcher":
        return map(_launcher_line, texts)
    return map(LogLine, repeat(name.removesuffix(STDERR)), texts, repeat(None), repeat(name.endswith(STDERR)))


def _launcher_line(text: str) -> LogLine:
    stamp = _STAMP.match(text)
    if stamp is None:
        return LogLine("launcher", text)
    moment = datetime.strptime(stamp[1], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return LogLine("launcher", text[stamp.end() :], moment.timestamp())


def _offset(cursor: Mapping[str, Any], name: str) -> int:
    value = cursor.get(name, 0)
    return value if type(value) is int and 0 < value < 2**63 else 0

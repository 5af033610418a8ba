"""Output of commands: lines and tables for people, or one JSON document for programs. Notes go to stderr."""

from __future__ import annotations

import json
import select
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mlengine.core import plaintext, times
from mlengine.core.json_values import json_value

_GAP = "  "


class OutputClosedError(Exception):
    """The reader of stdout, such as ``| head``, has closed it."""


class OutputFailedError(Exception):
    """Stdout cannot be written, for example because the disk is full. The message says why."""


def say(text: str = "") -> None:
    """Print to stdout. Control characters are made visible, because text may come from a trainer or a service.

    :raises OutputClosedError: the reader has closed stdout.
    :raises OutputFailedError: stdout cannot be written.
    """
    if sys.stdout is None:  # the caller has closed stdout, as with >&-
        raise OutputFailedError("stdout is closed")
    try:
        sys.stdout.write(f"{plaintext.visible(text)}\n")
        # Print each line of a followed log immediately, even through a pipe.
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosedError from error
    except OSError as error:
        raise OutputFailedError(error.strerror or str(error)) from error


def check_reader() -> None:
    """Check that the reader of stdout has not closed it. A command that waits would notice it only when it prints.

    :raises OutputClosedError: the reader has closed stdout.
    """
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # stdout is closed, or is no file
        return
    poll = select.poll()
    poll.register(descriptor, 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        raise OutputClosedError


def note(text: str) -> None:
    """Print progress, or a remark that is not part of the result, to stderr."""
    if sys.stderr is None:
        return
    sys.stderr.write(f"{plaintext.visible(text)}\n")
    sys.stderr.flush()


def say_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print one JSON document, in ASCII. Values that JSON lacks are converted by :func:`json_value`.

    :raises OutputClosedError: the reader has closed stdout.
    """
    say(json.dumps(json_value(document), indent=2, allow_nan=False))


def say_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns. On a terminal, the last column is cut to the width of the terminal.

    :raises OutputClosedError: the reader has closed stdout.
    """
    cells = [[cell.partition("\n")[0] for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head) - 1)]
    limit = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
    for row in cells:
        columns = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        line = _GAP.join([*columns, row[-1]]).rstrip()
        say(line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…")


def local_time(seconds: float | None) -> str:
    """A time in seconds since the epoch in this machine's time zone, to the minute; empty for ``None``."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def utc(seconds: float | None) -> str | None:
    """A time in seconds since the epoch as RFC 3339 in UTC, for JSON."""
    return None if seconds is None else times.rfc3339(seconds)


def elapsed(started: float | None, ended: float | None) -> str:
    """The time from start to end, or until now, as ``H:MM:SS``; empty if there is no start."""
    if started is None:
        return ""
    seconds = max(0, int((ended or time.time()) - started))
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

"""``mlengine jobs logs``: the log lines of a job's replicas."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from mlengine.backends import LogPage
from mlengine.cli.jobs.lookup import add_job, find_job
from mlengine.cli.options import Commands, add_command
from mlengine.cli.output import say
from mlengine.core import plaintext

_POLL_SECONDS = 0.5
_PAGE_LINES = 500


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "logs", "print the logs of a job's replicas")
    add_job(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="continue until the job has ended")
    parser.add_argument("--replica", metavar="NAME", help="only this replica, such as worker-0, or launcher")
    parser.set_defaults(handler=_logs)


def _logs(args: argparse.Namespace) -> int:
    backend, handle = find_job(args)
    cursor: Mapping[str, Any] = {}
    while True:
        # Read the state before the logs: lines written between the two reads are then not missed.
        ended = backend.describe([handle])[0].state.terminal
        page = backend.logs(handle, cursor, _PAGE_LINES)
        cursor = page.cursor
        _print(page, args.replica)
        if not page.more:
            if ended or not args.follow:
                return 0
            time.sleep(_POLL_SECONDS)


def _print(page: LogPage, replica: str | None) -> None:
    for line in page.lines:
        if replica in {None, line.replica}:
            for text in plaintext.lines(line.text):
                say(text if replica else f"{line.replica:<11} | {text}")

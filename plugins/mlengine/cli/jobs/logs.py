"""``mlengine jobs logs``: the log lines of a job's replicas."""

from __future__ import annotations

import argparse

from mlengine.backends import LogPage
from mlengine.cli.jobs.lookup import add_job, find_job
from mlengine.cli.options import Commands, add_command
from mlengine.cli.output import check_reader, note, say
from mlengine.core import plaintext


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "logs", "print the logs of a job's replicas")
    add_job(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="continue until the job has ended")
    parser.add_argument("--replica", metavar="NAME", help="only this replica, such as worker-0, or launcher")
    parser.set_defaults(handler=_logs)


def _logs(args: argparse.Namespace) -> int:
    from mlengine.jobs.following import LogFollower

    backend, handle = find_job(args)
    seen: set[str] = set()
    for followed in LogFollower(backend, handle, {}, note).follow(to_end_of_job=args.follow):
        _print(followed.page, args.replica)
        check_reader()
        seen |= {line.replica for line in followed.page.lines}
    if not seen and not args.follow:
        where = f"those of an old job are in {handle.job_dir.rstrip('/')}/logs/"
        note(f"mlengine: {backend.name} has no log lines of this job; {where}")
    if args.replica and seen and args.replica not in seen:
        note(f"mlengine: no lines of {args.replica}; the log has lines of {', '.join(sorted(seen))}")
    return 0


def _print(page: LogPage, replica: str | None) -> None:
    for line in page.lines:
        if replica in {None, line.replica}:
            for text in plaintext.lines(line.text):
                say(text if replica else f"{line.replica:<11} | {text}")

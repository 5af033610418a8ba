"""``mlengine jobs tensorboard``: TensorBoard with the curves of jobs in the bucket, running or ended."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.options import Commands, add_bucket, add_command, add_port, bucket_of, count, seconds
from mlengine.cli.output import note, say
from mlengine.core.errors import MlengineError, UsageError
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage

_END_SECONDS = 5.0
_ABOUT = """\
Copy the event files of jobs from the bucket, update the copies at an interval, and run TensorBoard on them. Ctrl-C ends
it.
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "tensorboard", "show jobs in TensorBoard", _ABOUT)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="a job id, MODEL/JOB_ID, or the job dir as gs://…")
    parser.add_argument("--model", help="show the newest jobs of this model")
    parser.add_argument("--last", type=count, default=10, metavar="N", help="number of jobs with --model (default: 10)")
    add_port(parser, "--port", "port to listen on (default: 6006)", 6006)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--every", type=seconds, default=10.0, metavar="SECONDS", help="interval between updates (default: 10)"
    )
    parser.add_argument("--dir", type=Path, help="keep the copies in this directory (default: a temporary directory)")
    add_bucket(parser)
    parser.set_defaults(handler=_tensorboard)


def _tensorboard(args: argparse.Namespace) -> int:
    if bool(args.jobs) == bool(args.model):
        raise UsageError("pass either JOB or --model", hint="`mlengine jobs list` lists the jobs in the bucket")
    with tempfile.TemporaryDirectory(prefix="mlengine-tensorboard-") as scratch:
        return _show(args, Path(args.dir or scratch))


def _show(args: argparse.Namespace, folder: Path) -> int:
    from mlengine.clients.tensorboard import Mirror, find_job
    from mlengine.runtime.tensorboard import start

    storage, bucket = Storage(), bucket_of(args)
    named = [find_job(storage, bucket, word) for word in args.jobs]
    mirror = Mirror(storage, folder)
    jobs = _jobs(storage, bucket, args, named)
    files = mirror.sync(jobs)
    for job_dir in jobs:
        say(job_dir.uri)
    say(f"{files} event files; TensorBoard starts at http://{args.host}:{args.port}/ (Ctrl-C ends it)")
    # Containers are stopped with SIGTERM. Exit normally, so that TensorBoard is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.TERMINATED))
    process = start(folder, host=args.host, port=args.port, seconds=args.every)
    try:
        while True:
            try:
                return ExitCode.FAILED if process.wait(args.every) else ExitCode.OK
            except subprocess.TimeoutExpired:
                jobs = _jobs_now(storage, bucket, args, named) or jobs
                mirror.sync(jobs)
    finally:
        _end(process)


def _jobs(storage: Storage, bucket: str, args: argparse.Namespace, named: list[JobDir]) -> list[JobDir]:
    from mlengine.clients.tensorboard import newest_jobs

    return named or newest_jobs(storage, bucket, args.model, args.last)


def _jobs_now(storage: Storage, bucket: str, args: argparse.Namespace, named: list[JobDir]) -> list[JobDir]:
    """The jobs from :func:`_jobs`; empty while the bucket is temporarily unavailable."""
    try:
        return _jobs(storage, bucket, args, named)
    except MlengineError as error:
        if not error.retryable:
            raise
        note(f"mlengine: cannot list the jobs of {args.model}: {error.message}; retrying in {args.every:g} s")
        return []


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group, which is uv and TensorBoard."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            return

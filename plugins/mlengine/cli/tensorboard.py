"""``mlengine tensorboard JOB [JOB …]``: jobs of the bucket side by side in TensorBoard, while they run and after."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from mlengine.cli import say
from mlengine.cli.options import Commands, add_bucket, bucket_of
from mlengine.core.errors import MlengineError
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage

_END_SECONDS = 5.0


def register(commands: Commands) -> None:
    parser = commands.add_parser("tensorboard", help="jobs' curves in TensorBoard, several side by side")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="a job's id, model/id, or its dir as gs://…")
    parser.add_argument("--model", help="the newest jobs of this model, instead of naming them")
    parser.add_argument("--last", type=int, default=10, metavar="N", help="how many of them (default: 10)")
    parser.add_argument("--port", type=int, default=6006, help="port to listen on (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="who may look: by default this machine only")
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="how often news are fetched")
    parser.add_argument("--dir", type=Path, help="keep the copies here (default: a folder that goes with the command)")
    add_bucket(parser)
    parser.set_defaults(handler=_tensorboard)


def _tensorboard(args: argparse.Namespace) -> int:
    if bool(args.jobs) == bool(args.model):
        raise MlengineError("which jobs?", hint="name jobs, or a model with --model")
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
    say(f"{files} event files; TensorBoard comes up at http://{args.host}:{args.port}/ (Ctrl-C ends it)")
    # Told to end, as a container is: then TensorBoard ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    process = start(folder, host=args.host, port=args.port, seconds=args.every)
    try:
        while True:
            try:
                return process.wait(args.every)
            except subprocess.TimeoutExpired:
                mirror.sync(_jobs(storage, bucket, args, named))
    finally:
        _end(process)


def _jobs(storage: Storage, bucket: str, args: argparse.Namespace, named: list[JobDir]) -> list[JobDir]:
    from mlengine.clients.tensorboard import newest_jobs

    return named or newest_jobs(storage, bucket, args.model, args.last)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Uv and TensorBoard, whichever is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            return

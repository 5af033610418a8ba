"""``mlengine emulator``: the APIs of Vertex AI and ML Engine on loopback, for gcloud, Google's libraries and tests."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from mlengine import settings
from mlengine.cli import say
from mlengine.cli.options import Commands, add_bucket
from mlengine.core.errors import EmulatorError, MlengineError

_ABOUT = """\
Serves Vertex AI's custom jobs, ML Engine's projects.jobs and Cloud Logging's entries:list on one loopback port, and
runs the jobs as processes of this machine. Jobs continue when the emulator stops. An emulator that is started again on
the same --state-dir has the same jobs.
"""
_APIS = ("ML", "AIPLATFORM", "LOGGING")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def register(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "emulator", help="serve Vertex AI's and ML Engine's training APIs on loopback", description=_ABOUT
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=9000, help="the HTTP port; 0 selects a free one (9000)")
    parser.add_argument("--grpc-port", type=int, metavar="PORT", help="also serve Vertex AI over gRPC on this port")
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="where jobs are recorded (emulator/ in the local state dir)"
    )
    add_bucket(parser, "bucket for the logs of jobs that name none")
    parser.add_argument(
        "--backend",
        default="local",
        help="runs the jobs: local, or vertex, which forwards ML Engine's jobs to Vertex AI (local)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the backend, e.g. max_concurrent_jobs=4, max_workers=8, project=P; repeatable",
    )
    parser.add_argument("--faults", type=Path, metavar="FILE", help="YAML list of scripted faults: docs/emulator.md")
    parser.set_defaults(handler=_run)


def _run(args: argparse.Namespace) -> int:
    from mlengine.backends import get_backend
    from mlengine.emulator.server import Emulator
    from mlengine.runtime.state_dir import state_dir
    from mlengine.storage.client import Storage

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    emulator = Emulator(
        get_backend(args.backend, **settings_of(args.set)),
        args.state_dir or state_dir() / "emulator",
        storage=Storage(),
        bucket=settings.get("bucket", args.bucket) or None,
        host=args.host,
        port=args.port,
        grpc_port=args.grpc_port,
        faults=_faults(args.faults),
    )
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        emulator.start()
        _print_addresses(emulator.url, emulator.grpc.target if emulator.grpc else None, args.host)
        stopping.wait()
    finally:
        emulator.stop()
    unused = emulator.script.unused()
    for fault in unused:
        say(f"fault not triggered: {fault.method} {fault.action}, {fault.times} times left")
    return 1 if unused else 0


def _print_addresses(url: str, grpc_target: str | None, host: str) -> None:
    say(f"emulator on {url}; Ctrl-C stops it, its jobs continue")
    if host not in _LOOPBACK:
        say(f"  WARNING: {host} is not a loopback address; every client of this port can run programs as you")
    if grpc_target:
        say(f"  gRPC:      {grpc_target}")
    say("  gcloud:    " + "  ".join(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}={url}/" for api in _APIS))
    say("             CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true")
    say(f"  mlengine:  AIRFLOW__MLENGINE__VERTEX_ENDPOINT={url}, or 'vertex_endpoint' in the connection's extra")


def settings_of(pairs: list[str]) -> dict[str, str]:
    """The settings in a list of ``NAME=VALUE``.

    :raises MlengineError: an item has another form.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise MlengineError(f"not NAME=VALUE: {pair!r}", hint="for example --set max_concurrent_jobs=4")
        found[name] = value
    return found


def _faults(path: Path | None) -> list[Any]:
    if path is None:
        return []
    import yaml

    from mlengine.emulator.faults import read_faults

    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise EmulatorError(f"cannot read faults from {path}: {error}", hint="write a YAML list of faults") from error
    return read_faults([] if data is None else data, str(path))

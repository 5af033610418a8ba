"""``mlengine emulator``: serve the training APIs of Vertex AI and ML Engine on loopback."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from mlengine import settings
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.options import Commands, add_backend, add_bucket, add_command, add_port, add_set, unique
from mlengine.cli.output import say
from mlengine.core.errors import EmulatorError
from mlengine.core.plural import number_of

_ABOUT = """\
Serve the APIs of Vertex AI (custom jobs, training pipelines, models), ML Engine (jobs) and Cloud Logging (entries:list)
on one loopback port, and run the jobs as processes of this machine. Jobs continue when the emulator stops, and a new
emulator with the same --state-dir has the same jobs.
"""
_APIS = ("ML", "AIPLATFORM", "LOGGING")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def register(commands: Commands) -> None:
    """Add the command's parser."""
    parser = add_command(commands, "emulator", "serve the training APIs of Vertex AI and ML Engine on loopback", _ABOUT)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add_port(parser, "--port", "HTTP port; 0 selects a free one (default: 9000)", 9000)
    add_port(parser, "--grpc-port", "also serve Vertex AI over gRPC on this port")
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="directory of the emulator's records (default: emulator/ in the state directory of the local backend)",
    )
    add_bucket(parser, "bucket for the logs of jobs that do not set one")
    add_backend(parser, "local, or vertex, which forwards ML Engine's jobs to Vertex AI (default: local)", "local")
    add_set(parser, "an option of the backend, such as max_concurrent_jobs=4 or project=P; repeatable")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="YAML list of scripted faults (docs/emulator.md)")
    parser.set_defaults(handler=_run)


def _run(args: argparse.Namespace) -> int:
    from mlengine.backends import get_backend
    from mlengine.emulator import messages
    from mlengine.emulator.server import Emulator
    from mlengine.runtime.state_dir import state_dir
    from mlengine.storage.client import Storage

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    emulator = Emulator(
        get_backend(args.backend, **unique("--set", args.set)),
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
        threading.Thread(target=messages.load, daemon=True).start()
        _print_addresses(emulator.url, emulator.grpc.target if emulator.grpc else None, args.host)
        stopping.wait()
    finally:
        emulator.stop()
    unused = emulator.script.unused()
    for fault in unused:
        say(f"fault not triggered: {fault.method} {fault.action}, {number_of(fault.times, 'time')} left")
    return ExitCode.FAILED if unused else ExitCode.OK


def _print_addresses(url: str, grpc_target: str | None, host: str) -> None:
    say(f"emulator on {url}; Ctrl-C stops it, its jobs continue")
    if host not in _LOOPBACK:
        say(f"  WARNING: {host} is not a loopback address; every client of this port can run programs as you")
    if grpc_target:
        say(f"  gRPC:      {grpc_target}")
    gcloud = [f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}={url}/" for api in _APIS]
    say("  gcloud:    " + f"\n{'':<13}".join([*gcloud, "CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true"]))
    say(f"  mlengine:  AIRFLOW__MLENGINE__VERTEX_ENDPOINT={url}")
    say("             (or vertex_endpoint in the extra of the connection)")


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

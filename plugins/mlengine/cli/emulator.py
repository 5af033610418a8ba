"""``mlengine serve``: a training service on loopback, for gcloud, Google's libraries and tests of DAGs."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from mlengine.cli import say
from mlengine.core.errors import MlengineError

_ABOUT = """\
Serves Vertex AI's custom jobs, ML Engine's projects.jobs and the read side of Cloud Logging on one loopback port, and
runs the jobs for real. Jobs outlive the service; started again on the same --state-dir, it has the same jobs.
"""


def register(commands: Any) -> None:
    parser = commands.add_parser(
        "serve", help="a training service that gcloud and Google's libraries accept", description=_ABOUT
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free one (9000)")
    parser.add_argument("--grpc-port", type=int, metavar="PORT", help="serve Vertex AI's methods over gRPC there, too")
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="what it remembers (the local state dir's service/)"
    )
    parser.add_argument(
        "--bucket", default=os.environ.get("AIRFLOW__MLENGINE__BUCKET"), help="for jobs that name no bucket"
    )
    parser.add_argument(
        "--backend", default="local", help="where jobs run: local, or vertex, which passes ML Engine's jobs on (local)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the backend, e.g. max_concurrent_jobs=4, max_workers=8, project=P; may be repeated",
    )
    parser.add_argument("--faults", type=Path, metavar="FILE", help="scripted faults, YAML: docs/service.md")
    parser.set_defaults(handler=_serve)


def _serve(args: argparse.Namespace) -> int:
    from mlengine.backends import get_backend
    from mlengine.backends.local.settings import state_dir
    from mlengine.emulator.server import Service
    from mlengine.storage.client import Storage

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    service = Service(
        get_backend(args.backend, **settings_of(args.set)),
        args.state_dir or state_dir() / "service",
        storage=Storage(),
        bucket=args.bucket,
        host=args.host,
        port=args.port,
        grpc_port=args.grpc_port,
        faults=_faults(args.faults),
    )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    service.start()
    _welcome(service.url, args.host)
    ended.wait()
    service.stop()
    unused = service.script.unused()
    for fault in unused:
        say(f"scripted, and never struck: {fault.method} {fault.action}, {fault.times} times")
    return 1 if unused else 0


def _welcome(url: str, host: str) -> None:
    say(f"training service on {url}; Ctrl-C ends it, its jobs go on")
    if host not in {"127.0.0.1", "localhost", "::1"}:
        say(f"  {host} is not loopback: whoever reaches this port runs programs as you")
    say("  gcloud:    " + "  ".join(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}={url}/" for api in _APIS))
    say("             CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true")
    say(f"  mlengine:  AIRFLOW__MLENGINE__VERTEX_ENDPOINT={url}, or the connection's extra 'vertex_endpoint'")


_APIS = ("ML", "AIPLATFORM", "LOGGING")


def settings_of(pairs: list[str]) -> dict[str, str]:
    """:raises MlengineError: for what is not NAME=VALUE."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise MlengineError(f"not NAME=VALUE: {pair!r}", remedy="for example --set max_concurrent_jobs=4")
        found[name] = value
    return found


def _faults(path: Path | None) -> list[Any]:
    if path is None:
        return []
    import yaml

    from mlengine.emulator.faults import Fault

    try:
        data = yaml.safe_load(path.read_text("utf-8")) or []
    except (OSError, yaml.YAMLError) as error:
        raise MlengineError(f"{path} cannot be read: {error}", remedy="write a YAML list of faults") from error
    return [Fault.from_json(item) for item in data]

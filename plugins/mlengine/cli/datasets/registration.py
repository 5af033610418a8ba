"""``mlengine datasets add`` and ``announce``: register a version, and start the DAGs that wait for it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from mlengine.cli.datasets.add_arguments import add_arguments, register_version
from mlengine.cli.datasets.arguments import add_dataset_command
from mlengine.cli.datasets.description import one_line, version_document
from mlengine.cli.options import Commands, add_airflow_url, add_json, bucket_of
from mlengine.cli.output import note, say, say_json
from mlengine.core.dataset import Manifest
from mlengine.core.errors import UsageError

if TYPE_CHECKING:
    from mlengine.clients.airflow_api import AirflowServer


def register(verbs: Commands) -> None:
    """Add the commands."""
    add = add_dataset_command(verbs, "add", "check and register a version", _add)
    add_arguments(add)
    add_json(add)
    add.add_argument("--announce", action="store_true", help="then start the DAGs that wait for this dataset")
    add_airflow_url(add)

    event = add_dataset_command(verbs, "announce", "start the DAGs that wait for this dataset version", _announce)
    event.add_argument("version", metavar="VERSION", help="a registered version")
    add_airflow_url(event)


def _add(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.datasets.version_hints import note_versions
    from mlengine.storage.client import Storage

    if args.allow and not args.reason:
        raise UsageError("--allow requires a reason", hint='add --reason "…"; the manifest records it')
    if args.announce:
        _server(args)  # reports an invalid URL before anything is registered
    storage, bucket = Storage(), bucket_of(args)
    manifest = register_version(storage, bucket, args)
    if args.json:
        say_json(version_document(bucket, manifest))
    else:
        say(f"registered {one_line(manifest)}")
        for exception in manifest.exceptions:
            say(
                f"  accepted although the check {exception.check} failed: {exception.found}. Reason: {exception.reason}"
            )
    if "AIRFLOW_HOME" in os.environ:  # so that the trigger form of that Airflow suggests the version
        note_versions(args.name, datasets.list_versions(storage, bucket, args.name))
    if args.announce:
        _send_event(args, manifest)
    return 0


def _announce(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    _send_event(args, datasets.load_manifest(Storage(), bucket_of(args), args.name, args.version))
    return 0


def _server(args: argparse.Namespace) -> AirflowServer:
    from mlengine.clients.airflow_api import AirflowServer

    return AirflowServer.from_environment(args.airflow_url)


def _send_event(args: argparse.Namespace, manifest: Manifest) -> None:
    from mlengine.datasets.events import announce

    server = _server(args)
    extra = {"dataset": manifest.name, "version": manifest.version, "digest": manifest.digest}
    event = announce(server, manifest.name, manifest.version, {**extra, "rows": manifest.train.rows})
    note(f"announced {manifest.name}/{manifest.version} to {server.url}: asset event {event}")

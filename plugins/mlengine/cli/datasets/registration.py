"""``mlengine datasets add`` and ``announce``: register a version, and start the DAGs that wait for it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mlengine.cli.datasets.arguments import add_dataset_command
from mlengine.cli.options import Commands, add_airflow_url, bucket_of, count
from mlengine.cli.output import say
from mlengine.core.dataset import Manifest
from mlengine.core.errors import UsageError


def register(verbs: Commands) -> None:
    """Add the commands."""
    add = add_dataset_command(verbs, "add", "check and register a version", _add)
    add.add_argument("version", metavar="VERSION", help="a new version, such as 2026-11-01 or v12")
    add.add_argument(
        "directory", metavar="DIR", type=Path, help="train-… and heldout-… (or t10k-…) images and labels in IDX format"
    )
    add.add_argument("--license", required=True, help="license of the data")
    add.add_argument("--source", required=True, help="origin of the data")
    add.add_argument("--classes", type=count, default=10, metavar="N", help="number of classes (default: 10)")
    add.add_argument(
        "--drift-bound",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="largest accepted change of a label's share (default: 0.05)",
    )
    add.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CHECK",
        help='accept a failure of this check, duplicates or "class balance"; needs --reason',
    )
    add.add_argument("--reason", default="", help="why the failure is accepted; recorded in the manifest")
    add.add_argument("--discard-partial", action="store_true", help="delete what an interrupted registration left")
    add.add_argument("--announce", action="store_true", help="then start the DAGs that wait for this dataset")
    add_airflow_url(add)

    event = add_dataset_command(verbs, "announce", "start the DAGs that wait for this dataset version", _announce)
    event.add_argument("version", metavar="VERSION", help="a registered version")
    add_airflow_url(event)


def _add(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.datasets.version_hints import note_versions
    from mlengine.storage.client import Storage

    if args.allow and not args.reason.strip():
        raise UsageError("--allow needs a reason", hint='add --reason "…"; the manifest records it')
    storage, bucket = Storage(), bucket_of(args)
    manifest = datasets.add(
        storage,
        bucket,
        args.name,
        args.version,
        args.directory,
        license=args.license,
        source=args.source,
        classes=args.classes,
        drift_bound=args.drift_bound,
        allow=args.allow,
        reason=args.reason,
        discard_partial=args.discard_partial,
    )
    say(
        f"registered {manifest.name}/{manifest.version}: {manifest.train.rows} training rows, "
        f"{manifest.heldout.rows} held-out rows, digest {manifest.digest[:12]}"
    )
    for exception in manifest.exceptions:
        say(f"  accepted although the check {exception.check} failed: {exception.found} Reason: {exception.reason}")
    if "AIRFLOW_HOME" in os.environ:  # the trigger form of that Airflow then offers the version
        note_versions(args.name, datasets.list_versions(storage, bucket, args.name))
    if args.announce:
        _send_event(args, manifest)
    return 0


def _announce(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    _send_event(args, datasets.load_manifest(Storage(), bucket_of(args), args.name, args.version))
    return 0


def _send_event(args: argparse.Namespace, manifest: Manifest) -> None:
    from mlengine.clients.airflow_api import AirflowServer
    from mlengine.datasets.events import announce

    server = AirflowServer.from_environment(args.airflow_url)
    extra = {"dataset": manifest.name, "version": manifest.version, "digest": manifest.digest}
    event = announce(server, manifest.name, manifest.version, {**extra, "rows": manifest.train.rows})
    say(f"announced {manifest.name}/{manifest.version} to {server.url}: asset event {event}")

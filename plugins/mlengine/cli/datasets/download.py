"""``mlengine datasets fetch``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlengine.cli.datasets.arguments import add_dataset_command
from mlengine.cli.options import Commands, bucket_of
from mlengine.cli.output import say
from mlengine.core.layout import dataset_dir


def register(verbs: Commands) -> None:
    """Add the command."""
    fetch = add_dataset_command(verbs, "fetch", "download a version, verify it and print its directory", _fetch)
    fetch.add_argument("version", metavar="VERSION", nargs="?", help="a version (default: the newest)")
    fetch.add_argument(
        "--to", type=Path, default=Path("datasets"), metavar="DIR", help="download directory (default: ./datasets)"
    )


def _fetch(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    version = datasets.resolve(storage, bucket, args.name, version=args.version)
    say(str(datasets.fetch(storage, dataset_dir(bucket, args.name, version), args.to)))
    return 0

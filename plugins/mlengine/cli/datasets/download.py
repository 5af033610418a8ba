"""``mlengine datasets fetch``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlengine.cli.datasets.arguments import add_dataset_command
from mlengine.cli.documents import FetchDocument
from mlengine.cli.options import Commands, add_json, bucket_of
from mlengine.cli.output import say, say_json
from mlengine.core.layout import dataset_dir


def register(verbs: Commands) -> None:
    """Add the command."""
    fetch = add_dataset_command(verbs, "fetch", "download a version, verify it and print its directory", _fetch)
    fetch.add_argument("version", metavar="VERSION", nargs="?", help="a version (default: the newest)")
    fetch.add_argument(
        "--to", type=Path, default=Path("datasets"), metavar="DIR", help="download directory (default: ./datasets)"
    )
    add_json(fetch)


def _fetch(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    version = datasets.resolve(storage, bucket, args.name, version=args.version)
    folder = str(datasets.fetch(storage, dataset_dir(bucket, args.name, version), args.to))
    if args.json:
        document: FetchDocument = {"name": args.name, "version": version, "directory": folder}
        say_json(document)
    else:
        say(folder)
    return 0

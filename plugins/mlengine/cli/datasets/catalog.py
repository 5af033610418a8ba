"""``mlengine datasets list`` and ``show``."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mlengine.cli.datasets.arguments import add_dataset_command
from mlengine.cli.datasets.description import describe, rows_text, version_document
from mlengine.cli.documents import DatasetDocument
from mlengine.cli.options import Commands, add_json, bucket_of
from mlengine.cli.output import say, say_json, say_table
from mlengine.cli.partial_lists import read_each

if TYPE_CHECKING:
    from mlengine.storage.client import Storage


def register(verbs: Commands) -> None:
    """Add the commands."""
    listing = add_dataset_command(verbs, "list", "list the datasets, or the versions of one", _list, optional_name=True)
    add_json(listing)

    show = add_dataset_command(verbs, "show", "show one version: schema, splits, statistics and checks", _show)
    show.add_argument("version", metavar="VERSION", nargs="?", help="a version (default: the newest)")
    add_json(show)


def _list(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    if args.name is None:
        return _list_datasets(args, storage, bucket)
    versions = datasets.list_versions(storage, bucket, args.name)
    with ThreadPoolExecutor(8) as pool:
        reading = {one: pool.submit(datasets.load_manifest, storage, bucket, args.name, one) for one in versions}
        manifests, code = read_each(versions, lambda version: reading[version].result())
    if args.json:
        say_json([version_document(bucket, one) for one in manifests])
    elif versions:
        head = ("VERSION", "FORMAT", "TRAINING ROWS", "HELD-OUT ROWS", "REGISTERED", "DIGEST")
        rows = [
            (
                one.version,
                one.format,
                rows_text(one.train),
                rows_text(one.splits["heldout"]) if "heldout" in one.splits else "-",
                one.created[:16].replace("T", " "),
                one.digest[:12],
            )
            for one in manifests
        ]
        say_table(head, rows)
    else:
        say(f"dataset {args.name} has no versions in {bucket}")
    return code


def _list_datasets(args: argparse.Namespace, storage: Storage, bucket: str) -> int:
    from mlengine import datasets

    names = datasets.list_datasets(storage, bucket)
    found: list[DatasetDocument] = [
        {"name": name, "versions": datasets.list_versions(storage, bucket, name)} for name in names
    ]
    if args.json:
        say_json(found)
    elif found:
        rows = [
            (one["name"], str(len(one["versions"])), one["versions"][-1] if one["versions"] else "-") for one in found
        ]
        say_table(("DATASET", "VERSIONS", "NEWEST"), rows)
    else:
        say(f"no datasets in {bucket}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    version = datasets.resolve(storage, bucket, args.name, version=args.version)
    manifest = datasets.load_manifest(storage, bucket, args.name, version)
    if args.json:
        say_json(version_document(bucket, manifest))
        return 0
    for line in describe(bucket, manifest):
        say(line)
    return 0

"""``mlengine datasets``: register dataset versions, look at them, compare and verify them."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlengine.cli import say
from mlengine.cli.options import Commands, add_bucket, bucket_of
from mlengine.core.dataset import Manifest
from mlengine.core.errors import DatasetError

if TYPE_CHECKING:
    from mlengine.storage.client import Storage


def register(commands: Commands) -> None:
    noun = commands.add_parser("datasets", help="dataset versions: add, list, verify, diff, fetch")
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)

    add = _verb(verbs, "add", "register a version, all of it or nothing", _add)
    add.add_argument("name", help="the dataset's name")
    add.add_argument("version", help="2026-11-01, v12, …")
    add.add_argument("directory", type=Path, help="train-… and heldout-… (or t10k-…) images and labels in IDX")
    add.add_argument("--license", required=True, help="under which terms the data may be used")
    add.add_argument("--source", required=True, help="where the data comes from, in words")
    add.add_argument("--classes", type=int, default=10, help="number of classes (%(default)s)")
    add.add_argument("--drift-bound", type=float, default=0.05, help="largest change of a label's share (0.05)")
    add.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CHECK",
        help='register it though this check fails: duplicates, or "class balance"; needs --reason',
    )
    add.add_argument("--reason", default="", help="why that does no harm; kept in the manifest")
    add.add_argument("--discard-partial", action="store_true", help="remove what a registration that died left")

    _announcing(add.add_argument_group("telling Airflow"))
    add.add_argument("--announce", action="store_true", help="then start the DAGs that wait for this dataset")

    tell = _verb(
        verbs, "announce", "start the DAGs that wait for this dataset, about a version that is there", _announce
    )
    tell.add_argument("name", help="the dataset's name")
    tell.add_argument("version", help="the version that is announced")
    _announcing(tell)

    listing = _verb(verbs, "list", "the versions of a dataset, or the datasets", _list)
    listing.add_argument("name", nargs="?", help="the dataset's name; without it, all datasets")
    listing.add_argument("--json", action="store_true", help="print JSON")

    verify = _verb(verbs, "verify", "compare every byte with the manifest", _verify)
    verify.add_argument("name", help="the dataset's name")
    verify.add_argument("version", nargs="*", help="default: all")

    difference = _verb(verbs, "diff", "what changed between two versions; exit code 1 if anything did", _diff)
    difference.add_argument("name", help="the dataset's name")
    difference.add_argument("old", help="the earlier version")
    difference.add_argument("new", help="the later version")
    difference.add_argument("--rows", action="store_true", help="read both, and count rows that came, went, changed")

    fetch = _verb(verbs, "fetch", "a verified local copy; prints its directory", _fetch)
    fetch.add_argument("name", help="the dataset's name")
    fetch.add_argument("version", nargs="?", help="default: the newest")
    fetch.add_argument("--to", type=Path, default=Path("datasets"), help="the cache that it is kept in (./datasets)")


def _verb(verbs: Commands, name: str, text: str, handler: object) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    add_bucket(parser)
    parser.set_defaults(handler=handler)
    return parser


def _announcing(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--airflow-url",
        metavar="URL",
        help="of its API server (MLENGINE_AIRFLOW_URL); logs in with MLENGINE_AIRFLOW_TOKEN, or _USER and _PASSWORD",
    )


def _add(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.datasets.version_hints import note_versions
    from mlengine.storage.client import Storage

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
    say(_line(manifest))
    for exception in manifest.exceptions:
        say(f"  in spite of the check {exception.check}: {exception.found} Reason: {exception.reason}")
    if "AIRFLOW_HOME" in os.environ:  # the trigger forms of that Airflow propose it from now on
        note_versions(args.name, datasets.list_versions(storage, bucket, args.name))
    if args.announce:
        _tell(args, manifest)
    return 0


def _announce(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    _tell(args, datasets.load_manifest(Storage(), bucket_of(args), args.name, args.version))
    return 0


def _tell(args: argparse.Namespace, manifest: Manifest) -> None:
    from mlengine.clients.airflow_api import AirflowServer
    from mlengine.datasets.events import announce

    server = AirflowServer.from_environment(args.airflow_url)
    extra = {"dataset": manifest.name, "version": manifest.version, "digest": manifest.digest}
    event = announce(server, manifest.name, manifest.version, {**extra, "rows": manifest.train.rows})
    say(f"announced {manifest.name}/{manifest.version} to {server.url}: asset event {event}")


def _list(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    if args.name is None:
        names = datasets.list_datasets(storage, bucket)
        say(json.dumps(names) if args.json else "\n".join(names) or f"no dataset in {bucket}")
        return 0
    manifests = datasets.load_manifests(storage, bucket, args.name, datasets.list_versions(storage, bucket, args.name))
    if args.json:
        say(json.dumps([{**manifest.to_json(), "digest": manifest.digest} for manifest in manifests], indent=2))
    else:
        say("\n".join(map(_line, manifests)) or f"no version of {args.name} in {bucket}")
    return 0


def _line(manifest: Manifest) -> str:
    return (
        f"{manifest.name}/{manifest.version}  {manifest.train.rows} training rows, {manifest.heldout.rows} held out, "
        f"digest {manifest.digest[:12]}, registered {manifest.created}"
    )


def _verify(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    chosen = args.version or datasets.list_versions(storage, bucket, args.name)
    if not chosen:
        raise DatasetError(f"dataset {args.name!r} has no version in {bucket}")
    bad = 0
    for version in chosen:
        try:
            problems = [f"{one.uri} {one.reason}" for one in datasets.verify(storage, bucket, args.name, version)]
        except DatasetError as error:
            problems = [error.message]
        bad += bool(problems)
        say(f"{args.name}/{version}: {'damaged' if problems else 'ok'}")
        for problem in problems:
            say(f"  {problem}")
    return 1 if bad else 0


def _diff(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    old, new = datasets.load_manifests(storage, bucket, args.name, [args.old, args.new])
    differences = datasets.diff(old, new)
    if not differences:
        say(f"{args.name}: {args.old} and {args.new} hold the same (digest {old.digest[:12]})")
        return 0
    width = max(len(one.field) for one in differences)
    for one in differences:
        say(f"{one.field:<{width}}  {one.old} -> {one.new}")
    if args.rows:
        say(_row_line(storage, bucket, old, new))
    return 1


def _row_line(storage: Storage, bucket: str, old: Manifest, new: Manifest) -> str:
    from mlengine import datasets
    from mlengine.core.layout import dataset_dir

    with tempfile.TemporaryDirectory(prefix="mlengine-dataset-") as scratch:
        before, after = (
            datasets.fetch(storage, dataset_dir(bucket, one.name, one.version), Path(scratch)) for one in (old, new)
        )
        rows = datasets.diff_rows(old, before, new, after)
    return f"training rows: {rows.kept} kept, {rows.added} added, {rows.removed} removed, {rows.relabelled} relabelled"


def _fetch(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.core.layout import dataset_dir
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    version = datasets.resolve(storage, bucket, args.name, version=args.version)
    say(str(datasets.fetch(storage, dataset_dir(bucket, args.name, version), args.to)))
    return 0

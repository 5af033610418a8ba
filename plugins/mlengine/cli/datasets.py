"""``mlengine datasets``: register dataset versions, list and show them, compare, verify and fetch them."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlengine.cli import say
from mlengine.cli.datasets_add import add_arguments, register_version
from mlengine.cli.datasets_show import one_line, shown
from mlengine.cli.options import Commands, add_bucket, bucket_of
from mlengine.core.dataset import Manifest
from mlengine.core.errors import DatasetError

if TYPE_CHECKING:
    from mlengine.datasets import RowDiff
    from mlengine.storage.client import Storage


def register(commands: Commands) -> None:
    noun = commands.add_parser("datasets", help="dataset versions: add, list, show, verify, diff, fetch")
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)

    add = _verb(verbs, "add", "register a version, all of it or nothing", _add)
    add_arguments(add)
    _announcing(add.add_argument_group("Airflow"))
    add.add_argument("--announce", action="store_true", help="then start the DAGs that wait for this dataset")

    tell = _verb(
        verbs, "announce", "start the DAGs that wait for this dataset, about a version that is there", _announce
    )
    tell.add_argument("name", help="the dataset's name")
    tell.add_argument("version", help="the version that is announced")
    _announcing(tell)

    listing = _verb(verbs, "list", "the versions of a dataset, or the datasets", _list)
    listing.add_argument("name", nargs="?", help="the dataset's name; without it, all datasets")
    _json(listing)

    show = _verb(verbs, "show", "schema, splits, statistics and checks of a version", _show)
    show.add_argument("name", help="the dataset's name")
    show.add_argument("version", nargs="?", help="default: the newest")
    _json(show)

    verify = _verb(verbs, "verify", "compare the files with the manifest; exit code 1 if one differs", _verify)
    verify.add_argument("name", help="the dataset's name")
    verify.add_argument("version", nargs="*", help="default: all")
    _json(verify)

    difference = _verb(verbs, "diff", "what changed between two versions; exit code 1 if anything did", _diff)
    difference.add_argument("name", help="the dataset's name")
    difference.add_argument("old", help="the earlier version")
    difference.add_argument("new", help="the later version")
    difference.add_argument("--rows", action="store_true", help="read both, and count rows that came, went, changed")
    _json(difference)

    fetch = _verb(verbs, "fetch", "a verified local copy; prints its directory", _fetch)
    fetch.add_argument("name", help="the dataset's name")
    fetch.add_argument("version", nargs="?", help="default: the newest")
    fetch.add_argument("--to", type=Path, default=Path("datasets"), help="the cache that it is kept in (./datasets)")
    _json(fetch)


def _verb(verbs: Commands, name: str, text: str, handler: object) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    add_bucket(parser)
    parser.set_defaults(handler=handler)
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


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
    manifest = register_version(storage, bucket, args)
    if args.json:
        say(json.dumps({**manifest.to_json(), "digest": manifest.digest}, indent=2))
    else:
        say(one_line(manifest))
        for exception in manifest.exceptions:
            say(f"  failed and allowed: {exception.check}: {exception.found} Reason: {exception.reason}")
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
        say("\n".join(map(one_line, manifests)) or f"no version of {args.name} in {bucket}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    version = datasets.resolve(storage, bucket, args.name, version=args.version)
    manifest = datasets.load_manifest(storage, bucket, args.name, version)
    say(json.dumps({**manifest.to_json(), "digest": manifest.digest}, indent=2) if args.json else shown(manifest))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    chosen = args.version or datasets.list_versions(storage, bucket, args.name)
    if not chosen:
        raise DatasetError(f"dataset {args.name!r} has no version in {bucket}")
    found: dict[str, list[str]] = {}
    for version in chosen:
        try:
            found[version] = [f"{one.uri} {one.reason}" for one in datasets.verify(storage, bucket, args.name, version)]
        except DatasetError as error:
            found[version] = [error.message]
        if not args.json:
            say(f"{args.name}/{version}: {'damaged' if found[version] else 'ok'}")
            for problem in found[version]:
                say(f"  {problem}")
    if args.json:
        say(json.dumps([{"version": version, "problems": problems} for version, problems in found.items()], indent=2))
    return 1 if any(found.values()) else 0


def _diff(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    old, new = datasets.load_manifests(storage, bucket, args.name, [args.old, args.new])
    differences = datasets.diff(old, new)
    rows = _row_diff(storage, bucket, old, new) if args.rows and differences else None
    if args.json:
        listed = [{"field": one.field, "old": one.old, "new": one.new} for one in differences]
        say(json.dumps({"differences": listed, "rows": None if rows is None else asdict(rows)}, indent=2))
        return 1 if differences else 0
    if not differences:
        say(f"{args.name}: {args.old} and {args.new} hold the same (digest {old.digest[:12]})")
        return 0
    width = max(len(one.field) for one in differences)
    for one in differences:
        say(f"{one.field:<{width}}  {one.old} -> {one.new}")
    if rows is not None:
        say(
            f"training rows: {rows.kept} kept, {rows.added} added, {rows.removed} removed, {rows.relabelled} relabelled"
        )
    return 1


def _row_diff(storage: Storage, bucket: str, old: Manifest, new: Manifest) -> RowDiff:
    from mlengine import datasets
    from mlengine.core.layout import dataset_dir

    with tempfile.TemporaryDirectory(prefix="mlengine-dataset-") as scratch:
        before, after = (
            datasets.open_split(storage, one, dataset_dir(bucket, one.name, one.version), "train", Path(scratch))
            for one in (old, new)
        )
        return datasets.diff_rows(before, after)


def _fetch(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.core.layout import dataset_dir
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    version = datasets.resolve(storage, bucket, args.name, version=args.version)
    folder = str(datasets.fetch(storage, dataset_dir(bucket, args.name, version), args.to))
    say(json.dumps({"version": version, "directory": folder}) if args.json else folder)
    return 0

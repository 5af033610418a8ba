"""``mlengine datasets verify`` and ``diff``."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlengine.cli.datasets.arguments import add_dataset_command
from mlengine.cli.documents import DifferenceDocument, VerificationDocument
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.options import Commands, add_json, bucket_of
from mlengine.cli.output import note, say, say_json
from mlengine.core import plaintext
from mlengine.core.dataset import Difference, Manifest
from mlengine.core.errors import DatasetError
from mlengine.core.layout import dataset_dir

if TYPE_CHECKING:
    from mlengine.datasets import RowDiff
    from mlengine.storage.client import Storage


def register(verbs: Commands) -> None:
    """Add the commands."""
    verify = add_dataset_command(
        verbs, "verify", "compare all files with the manifest; exit code 5 if any is damaged", _verify
    )
    verify.add_argument("version", metavar="VERSION", nargs="*", help="versions (default: all)")
    add_json(verify)

    difference = add_dataset_command(verbs, "diff", "compare two versions; exit code 5 if they differ", _diff)
    difference.add_argument("old", metavar="OLD", help="the earlier version")
    difference.add_argument("new", metavar="NEW", help="the later version")
    difference.add_argument(
        "--rows", action="store_true", help="download both and count added, removed, relabelled and changed rows"
    )
    add_json(difference)


def _verify(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    there = datasets.list_versions(storage, bucket, args.name)
    if not there:
        raise DatasetError(
            f"dataset {args.name!r} has no versions in {bucket}", hint="`mlengine datasets list` lists the datasets"
        )
    for version in args.version:
        if version not in there:
            datasets.resolve(storage, bucket, args.name, version=version)  # its error lists the versions
    documents: list[VerificationDocument] = []
    for version in args.version or there:
        try:
            problems = [f"{one.uri} {one.reason}" for one in datasets.verify(storage, bucket, args.name, version)]
        except DatasetError as error:
            problems = [f"{error.message}; {error.hint}" if error.hint else error.message]
        documents.append({"name": args.name, "version": version, "ok": not problems, "problems": problems})
        if not args.json:
            shown = map(plaintext.escaped, problems)
            say("\n  ".join([f"{args.name}/{version}: {'damaged' if problems else 'ok'}", *shown]))
    if args.json:
        say_json(documents)
    return ExitCode.OK if all(one["ok"] for one in documents) else ExitCode.DIFFERENT


def _diff(args: argparse.Namespace) -> int:
    from mlengine import datasets
    from mlengine.storage.client import Storage

    storage, bucket = Storage(), bucket_of(args)
    old, new = datasets.load_manifests(storage, bucket, args.name, [args.old, args.new])
    differences = datasets.diff(old, new)
    rows = None
    if args.rows and differences:
        if reason := datasets.incomparable(old, new):
            note(f"rows are not compared: {reason}")
        else:
            rows = _compare_rows(storage, bucket, old, new)
    if args.json:
        document: DifferenceDocument = {
            "name": args.name,
            "old": args.old,
            "new": args.new,
            "identical": not differences,
            "fields": [asdict(one) for one in differences],
            "rows": None if rows is None else {name: n for name, n in asdict(rows).items() if n is not None},
        }
        say_json(document)
    else:
        _print_differences(args, differences, rows, old.digest)
    return ExitCode.DIFFERENT if differences else ExitCode.OK


def _print_differences(
    args: argparse.Namespace, differences: list[Difference], rows: RowDiff | None, digest: str
) -> None:
    if not differences:
        say(f"{args.name}: {args.old} and {args.new} have the same content (digest {digest[:12]})")
    names = [plaintext.escaped(one.field) for one in differences]
    width = max(map(len, names), default=0)
    for name, one in zip(names, differences, strict=True):
        say(plaintext.escaped(f"{name:<{width}}  {one.old} -> {one.new}"))
    if rows is not None:
        changed = "" if rows.changed is None else f", {rows.changed} with other features"
        say(
            f"training rows: {rows.kept} kept, {rows.added} added, {rows.removed} removed, "
            f"{rows.relabelled} relabelled{changed}"
        )


def _compare_rows(storage: Storage, bucket: str, old: Manifest, new: Manifest) -> RowDiff:
    from mlengine import datasets

    with tempfile.TemporaryDirectory(prefix="mlengine-dataset-") as scratch:
        before, after = (
            datasets.open_split(storage, one, dataset_dir(bucket, one.name, one.version), "train", Path(scratch))
            for one in (old, new)
        )
        return datasets.diff_rows(before, after)

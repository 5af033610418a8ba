"""``mlengine predict``: the champion, or a job's model, asked about held-out digits, as one used to do by hand."""

from __future__ import annotations

import argparse
import base64
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlengine.champions.history import current
from mlengine.cli import say
from mlengine.cli.models import job_dir
from mlengine.cli.options import Commands, add_bucket, bucket_of
from mlengine.core.errors import MlengineError, ModelError
from mlengine.core.layout import JobDir
from mlengine.promotion.rules import check_published_files
from mlengine.storage.client import Storage
from mlengine.validation.job import FinishedJob, load_job
from mlengine.validation.plots import ascii_art
from mlengine.validation.prediction import predict


def register(commands: Commands) -> None:
    parser = commands.add_parser("predict", help="ask the champion about held-out digits")
    parser.add_argument("model", help="the model's name")
    parser.add_argument("--job", help="this job's model instead of the champion: its id, or gs://…")
    parser.add_argument("--count", type=int, default=10, help="how many digits (default: 10)")
    parser.add_argument("--first", type=int, default=0, metavar="ROW", help="begin at this held-out row (default: 0)")
    parser.add_argument("--draw", action="store_true", help="draw the digits")
    parser.add_argument("--dataset", help="the dataset version's URI (default: what the model was trained on)")
    parser.add_argument("--package", action="append", default=[], help="a package of the model's environment")
    add_bucket(parser)
    parser.set_defaults(handler=_predict)


def _predict(args: argparse.Namespace) -> int:
    if args.count < 1 or args.first < 0:
        raise MlengineError("nothing to predict", hint="--count is 1 or more, --first is 0 or more")
    storage = Storage()
    subject, model_uri = _subject(storage, args)
    rows = tuple(range(args.first, args.first + args.count))
    with tempfile.TemporaryDirectory(prefix="mlengine-predict-") as scratch:
        found, shape = predict(storage, subject, model_uri, rows, Path(scratch))
    if not found:
        raise MlengineError(f"the held-out set has no row {args.first}")
    say(f"{model_uri}")
    _print(found, shape, draw=args.draw)
    right = sum(row["label"] == row["predicted"] for row in found)
    say(f"{right} of {len(found)} right")
    return 0


def _subject(storage: Storage, args: argparse.Namespace) -> tuple[FinishedJob, str]:
    """Whose model, and where it lies."""
    bucket = bucket_of(args)
    if args.job:
        folder = job_dir(bucket, args.model, args.job)
        return load_job(storage, folder.uri, package_uris=args.package, dataset=args.dataset), folder.model
    champion = current(storage, bucket, args.model)
    if champion is None:
        raise ModelError(f"{args.model} has no champion in {bucket}", hint="publish one, or name a job with --job")
    check_published_files(storage, champion)
    packages: Sequence[str] = args.package or champion.lineage.get("package_uris", ())
    dataset = args.dataset or champion.dataset
    subject = load_job(storage, JobDir(champion.job_dir).uri, package_uris=packages, dataset=dataset)
    return subject, champion.model_uri


def _print(found: Sequence[Mapping[str, Any]], shape: Sequence[int], *, draw: bool) -> None:
    say(f"{'key':>6}  {'prediction':>10}  {'label':>5}  {'score':>6}")
    for row in found:
        said = "-" if row["predicted"] is None else row["predicted"]
        score = f"{row['score']:.4f}" if isinstance(row["score"], float) else "-"
        wrong = "" if row["predicted"] == row["label"] else "  wrong"
        say(f"{row['row']:>6}  {said:>10}  {row['label']:>5}  {score:>6}{wrong}")
        if draw and len(shape) == 2:
            for line in ascii_art(base64.b64decode(row["pixels"]), width=shape[1]):
                say(f"        {line}")

"""``mlengine models predict``: predictions of the champion, or of a job's model, for held-out rows."""

from __future__ import annotations

import argparse
import base64
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlengine.champions.history import current
from mlengine.cli.documents import PredictionDocument
from mlengine.cli.models.arguments import add_model, job_dir
from mlengine.cli.options import Commands, add_bucket, add_command, add_json, bucket_of, count, index
from mlengine.cli.output import say, say_json
from mlengine.core.errors import ModelError, UsageError
from mlengine.core.layout import JobDir
from mlengine.promotion.rules import check_published_files
from mlengine.storage.client import Storage
from mlengine.validation.job import FinishedJob, load_job
from mlengine.validation.plots import ascii_art
from mlengine.validation.prediction import predict


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "predict", "print predictions of the champion for held-out rows")
    add_model(parser)
    parser.add_argument("--job", metavar="JOB", help="use this job's model instead: job id, or the job dir as gs://…")
    parser.add_argument("--count", type=count, default=10, metavar="N", help="number of rows (default: 10)")
    parser.add_argument("--first", type=index, default=0, metavar="ROW", help="first held-out row (default: 0)")
    parser.add_argument("--draw", action="store_true", help="draw the images")
    parser.add_argument("--dataset", metavar="GS", help="URI of the dataset version (default: the model's)")
    parser.add_argument(
        "--package", action="append", default=[], metavar="URI", help="a package of the model's environment; repeatable"
    )
    add_bucket(parser, "bucket of the model")
    add_json(parser)
    parser.set_defaults(handler=_predict)


def _predict(args: argparse.Namespace) -> int:
    storage = Storage()
    subject, model_uri = _subject(storage, args)
    rows = tuple(range(args.first, args.first + args.count))
    with tempfile.TemporaryDirectory(prefix="mlengine-predict-") as scratch:
        found, shape = predict(storage, subject, model_uri, rows, Path(scratch))
    if not found:
        raise UsageError(f"--first: the held-out set has no row {args.first}", hint="give a smaller number")
    correct = sum(row["label"] == row["predicted"] for row in found)
    if args.json:
        say_json(_document(args.model, model_uri, found, correct))
    else:
        say(f"{model_uri}")
        _print(found, shape, draw=args.draw)
        say(f"{correct} of {len(found)} correct")
    return 0


def _document(model: str, model_uri: str, found: Sequence[Mapping[str, Any]], correct: int) -> PredictionDocument:
    keys = ("row", "label", "predicted", "score")
    rows = [{key: row[key] for key in keys} for row in found]
    return {"model": model, "model_uri": model_uri, "correct": correct, "rows": rows}


def _subject(storage: Storage, args: argparse.Namespace) -> tuple[FinishedJob, str]:
    """The job to predict with, and the URI of its model."""
    bucket = bucket_of(args)
    if args.job:
        folder = job_dir(bucket, args.model, args.job)
        return load_job(storage, folder.uri, package_uris=args.package, dataset=args.dataset), folder.model
    champion = current(storage, bucket, args.model)
    if champion is None:
        raise ModelError(f"model {args.model} has no champion in {bucket}", hint="publish one, or give --job")
    check_published_files(storage, champion)
    packages: Sequence[str] = args.package or champion.lineage.get("package_uris", ())
    dataset = args.dataset or champion.dataset
    subject = load_job(storage, JobDir(champion.job_dir).uri, package_uris=packages, dataset=dataset)
    return subject, champion.model_uri


def _print(found: Sequence[Mapping[str, Any]], shape: Sequence[int], *, draw: bool) -> None:
    say(f"{'row':>6}  {'prediction':>10}  {'label':>5}  {'score':>6}")
    for row in found:
        predicted = "-" if row["predicted"] is None else row["predicted"]
        score = f"{row['score']:.4f}" if isinstance(row["score"], float) else "-"
        wrong = "" if row["predicted"] == row["label"] else "  wrong"
        say(f"{row['row']:>6}  {predicted:>10}  {row['label']:>5}  {score:>6}{wrong}")
        if draw and len(shape) == 2:
            for line in ascii_art(base64.b64decode(row["pixels"]), width=shape[1]):
                say(f"        {line}")

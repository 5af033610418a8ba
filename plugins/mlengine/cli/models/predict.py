"""``mlengine models predict``: predictions of the champion, or of a job's model, for held-out rows."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlengine.champions.history import current
from mlengine.cli.documents import PredictionDocument
from mlengine.cli.models.arguments import add_model, job_dir
from mlengine.cli.options import Commands, add_bucket, add_command, add_json, bucket_of, count, index
from mlengine.cli.output import say, say_json, say_table
from mlengine.core.errors import ModelError, UsageError
from mlengine.core.layout import JobDir
from mlengine.promotion.rules import check_published_files
from mlengine.storage.client import Storage
from mlengine.validation.images import ascii_art
from mlengine.validation.job import FinishedJob, load_job
from mlengine.validation.prediction import PredictedRow, predict

_COLUMNS = 6  # number of a row's columns that are printed


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
        found = predict(storage, subject, model_uri, rows, Path(scratch))
    if not found:
        raise UsageError(f"--first: the held-out set has no row {args.first}", hint="use a smaller number")
    if args.json:
        say_json(_document(args.model, model_uri, found))
    else:
        say(f"{model_uri}")
        _print(found, draw=args.draw)
        correct = _correct(found)
        if correct is not None:
            say(f"{correct} of {len(found)} correct")
    return 0


def _correct(found: Sequence[PredictedRow]) -> int | None:
    """The number of correct predictions; ``None`` if predictions are not classes."""
    if any(
        row.target is None or (isinstance(row.prediction, (float, list)) and row.probability is None) for row in found
    ):
        return None
    return sum(bool(row.prediction == row.target) for row in found)


def _document(model: str, model_uri: str, found: Sequence[PredictedRow]) -> PredictionDocument:
    rows = [
        {
            "row": row.row,
            "key": row.key,
            "target": row.target,
            "prediction": row.prediction,
            "probability": row.probability,
            "columns": {name: value for name, value in row.columns.items() if not getattr(value, "shape", ())},
        }
        for row in found
    ]
    return {"model": model, "model_uri": model_uri, "correct": _correct(found), "rows": rows}


def _subject(storage: Storage, args: argparse.Namespace) -> tuple[FinishedJob, str]:
    """The job whose model predicts, and the URI of the model."""
    bucket = bucket_of(args)
    if args.job:
        folder = job_dir(bucket, args.model, args.job)
        return load_job(storage, folder.uri, package_uris=args.package, dataset=args.dataset), folder.model
    champion = current(storage, bucket, args.model)
    if champion is None:
        raise ModelError(f"model {args.model} has no champion in {bucket}", hint="publish one, or pass --job")
    check_published_files(storage, champion)
    packages: Sequence[str] = args.package or champion.lineage.get("package_uris", ())
    dataset = args.dataset or champion.dataset
    subject = load_job(storage, JobDir(champion.job_dir).uri, package_uris=packages, dataset=dataset)
    return subject, champion.model_uri


def _print(found: Sequence[PredictedRow], *, draw: bool) -> None:
    head = ["ROW", *(["KEY"] if found[0].key is not None else []), "PREDICTION", "PROBABILITY", "TARGET"]
    scalars = [name for name, value in found[0].columns.items() if not getattr(value, "shape", ())][:_COLUMNS]
    rows = []
    for row in found:
        cells = [str(row.row), *([str(row.key)] if row.key is not None else []), _shown(row.prediction)]
        cells += [_shown(row.probability), _shown(row.target), *(_shown(row.columns[name]) for name in scalars)]
        rows.append(tuple(cells))
    say_table((*head, *scalars), rows)
    for row in found if draw else ():
        for name, value in row.columns.items():
            if getattr(value, "ndim", 0) == 2 and value.dtype.name == "uint8":
                say(f"row {row.row}, {name}:")
                for line in ascii_art(value.tobytes(), width=value.shape[1]):
                    say(f"  {line}")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"

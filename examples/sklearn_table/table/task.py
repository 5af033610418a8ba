"""``python -m table.task --table gs://… --target COLUMN --key COLUMN --job-dir gs://…``: fit and store the model."""

from __future__ import annotations

import argparse
import csv
import io
import json
import pickle

from google.cloud import storage
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--key", help="the column that identifies a row; not a feature")
    parser.add_argument("--job-dir", required=True)
    args = parser.parse_args()
    rows = list(csv.DictReader(io.StringIO(blob(args.table).download_as_text())))
    target = [row.pop(args.target) for row in rows]
    model = make_pipeline(DictVectorizer(), LogisticRegression(max_iter=1000))
    features = [{name: number(value) for name, value in row.items() if name != args.key} for row in rows]
    score = float(cross_val_score(model, features, target, cv=3).mean())
    print(f"accuracy {score:.3f} in 3-fold cross-validation", flush=True)
    model.fit(features, target)
    blob(f"{args.job_dir}/model/model.pickle").upload_from_string(pickle.dumps(model))
    # There is no dataset version, so validation has no rows to run the model on. Your own extra checks read this file.
    blob(f"{args.job_dir}/model/metrics.json").upload_from_string(json.dumps({"accuracy": score}))


def number(value: str) -> float | str:
    """Parse a value: numbers are numeric features, and other values are categories."""
    try:
        return float(value)
    except ValueError:
        return value


def blob(uri: str) -> storage.Blob:
    """The object at ``gs://bucket/path``. The client finds the server of ``make run`` by ``STORAGE_EMULATOR_HOST``."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    return storage.Client().bucket(bucket).blob(path)


if __name__ == "__main__":
    main()

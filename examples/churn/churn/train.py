"""``python -m churn.train --dataset gs://… --job-dir gs://…``: fit a pipeline on a dataset version, and store it."""

from __future__ import annotations

import argparse
import io
import json

import joblib
import pandas as pd
from google.cloud import storage
from sklearn.compose import make_column_transformer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBClassifier


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)  # gs://BUCKET/datasets/churn/2026-11-01
    parser.add_argument("--job-dir", required=True)  # gs://BUCKET/churn/JOB
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    args = parser.parse_args()
    manifest = json.loads(blob(f"{args.dataset}/manifest.json").download_as_bytes())
    schema = manifest["schema"]
    rows = read(args.dataset, manifest["splits"]["train"])
    features = rows.drop(columns=[schema["target"], schema["key"]])  # never train on the target or the key
    print(f"training on {len(features)} rows with {list(features)}", flush=True)
    model = build(features, args.trees, args.learning_rate)
    model.fit(features, rows[schema["target"]])
    content = io.BytesIO()
    joblib.dump(model, content)
    blob(f"{args.job_dir}/model/model.joblib").upload_from_string(content.getvalue())


def build(features: pd.DataFrame, trees: int, learning_rate: float) -> Pipeline:
    """The preprocessing is part of the model, so validation and serving need no other code."""
    strings = [name for name in features if not pd.api.types.is_numeric_dtype(features[name])]
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), strings), remainder="passthrough")
    return make_pipeline(columns, XGBClassifier(n_estimators=trees, learning_rate=learning_rate, max_depth=4))


def read(dataset: str, split: dict) -> pd.DataFrame:
    """All rows of a split whose files are Parquet."""
    uris = [file.get("uri") or f"{dataset}/{file['path']}" for file in split["files"]]
    return pd.concat([pd.read_parquet(io.BytesIO(blob(uri).download_as_bytes())) for uri in uris])


def blob(uri: str) -> storage.Blob:
    """The object at ``gs://bucket/path``. The client finds the server of ``make run`` by ``STORAGE_EMULATOR_HOST``."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    return storage.Client().bucket(bucket).blob(path)


if __name__ == "__main__":
    main()

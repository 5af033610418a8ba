"""``python -m digits.task --dataset gs://… --job-dir gs://…``: train on a dataset version and export a SavedModel."""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
from google.cloud import storage


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)  # gs://BUCKET/datasets/mnist/2026-11-01
    parser.add_argument("--job-dir", required=True)  # gs://BUCKET/digits/JOB
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    split = json.loads(blob(f"{args.dataset}/manifest.json").download_as_bytes())["splits"]["train"]
    paths = {file["column"]: file["path"] for file in split["files"]}
    images = read_idx(f"{args.dataset}/{paths['image']}").reshape(split["rows"], -1).astype(np.float32)
    labels = read_idx(f"{args.dataset}/{paths['label']}")
    model = build()
    model.fit({"pixels": images}, {"digit": labels}, epochs=args.epochs, batch_size=64, verbose=2)
    # TensorFlow cannot write to the Cloud Storage server of `make run`, so export to a directory and upload that.
    with tempfile.TemporaryDirectory() as export:
        model.export(export)
        for path in sorted(Path(export).rglob("*")):
            if path.is_file():
                name = path.relative_to(export).as_posix()
                blob(f"{args.job_dir}/model/{name}").upload_from_filename(path)


def build() -> keras.Model:
    """The model: bytes in, probabilities out. Name the input and the output, because validation uses these names."""
    pixels = keras.Input((784,), name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Dense(64, activation="relu")(x)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(x)
    model = keras.Model({"pixels": pixels}, {"digit": digit})
    model.compile("adam", {"digit": "sparse_categorical_crossentropy"})
    return model


def read_idx(uri: str) -> np.ndarray:
    """The bytes of an IDX file after its header, which has 4 bytes and 4 for each dimension. It may be gzipped."""
    content = blob(uri).download_as_bytes()
    content = gzip.decompress(content) if uri.endswith(".gz") else content
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])


def blob(uri: str) -> storage.Blob:
    """The object at ``gs://bucket/path``. The client finds the server of ``make run`` by ``STORAGE_EMULATOR_HOST``."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    return storage.Client().bucket(bucket).blob(path)


if __name__ == "__main__":
    main()

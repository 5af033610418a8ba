"""``python -m digits.task --dataset FOLDER --job-dir FOLDER``: train, and export a SavedModel."""

from __future__ import annotations

import argparse
import gzip
import tempfile
from pathlib import Path

import keras
import numpy as np

from digits.bucket import download, upload


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)  # gs://…/datasets/mnist/2026-11-01
    parser.add_argument("--job-dir", required=True)  # gs://…/mnist/<job id>
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = download(args.dataset, Path(scratch, "data"))
        model = build()
        model.fit(images(data), labels(data), epochs=args.epochs, batch_size=64, verbose=2)
        model.export(str(Path(scratch, "model")))
        upload(Path(scratch, "model"), f"{args.job_dir}/model")


def build() -> keras.Model:
    """Bytes in, probabilities out. Name the input and the output: validation calls the model by these names."""
    pixels = keras.Input((784,), name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Dense(64, activation="relu")(x)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(x)
    model = keras.Model({"pixels": pixels}, {"digit": digit})
    model.compile("adam", {"digit": "sparse_categorical_crossentropy"})
    return model


def images(data: Path) -> dict[str, np.ndarray]:
    """Float32 ``[rows, 784]`` of 0 to 255."""
    return {"pixels": read(data, "train-images-idx3-ubyte", header=16).reshape(-1, 784).astype(np.float32)}


def labels(data: Path) -> dict[str, np.ndarray]:
    """Integers ``[rows]`` of 0 to 9."""
    return {"digit": read(data, "train-labels-idx1-ubyte", header=8).astype(np.int64)}


def read(data: Path, name: str, header: int) -> np.ndarray:
    """The bytes of an IDX file, packed or not."""
    packed = data / f"{name}.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else (data / name).read_bytes()
    return np.frombuffer(content, np.uint8, offset=header)


if __name__ == "__main__":
    main()

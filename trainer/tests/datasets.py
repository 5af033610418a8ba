"""Dataset versions for the tests, made from MNIST's IDX files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "heldout": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def make(target: Path, source: Path, *, train: int = 60_000, heldout: int = 10_000) -> Path:
    """Write a version with the first examples of each split. Returns ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    splits = {}
    for split, rows in (("train", train), ("heldout", heldout)):
        images_name, labels_name = NAMES[split]
        images = np.fromfile(source / images_name, np.uint8)[16:].reshape(-1, 28, 28)[:rows]
        labels = np.fromfile(source / labels_name, np.uint8)[8:][:rows]
        files = {
            "images": (
                f"{split}-images-idx3-ubyte.gz",
                struct.pack(">4I", 2051, len(images), 28, 28) + images.tobytes(),
            ),
            "labels": (f"{split}-labels-idx1-ubyte.gz", struct.pack(">2I", 2049, len(labels)) + labels.tobytes()),
        }
        entry: dict[str, object] = {"rows": len(labels)}
        for kind, (name, content) in files.items():
            data = gzip.compress(content, 1, mtime=0)
            (target / name).write_bytes(data)
            entry[kind] = {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        splits[split] = entry
    manifest = {
        "format": 1,
        "name": "mnist",
        "version": target.name,
        "created": "2026-11-01T00:00:00Z",
        "file_format": "idx",
        "license": "CC BY-SA 3.0",
        "source": "MNIST",
        "splits": splits,
        "shape": [28, 28],
        "dtype": "uint8",
        "classes": 10,
    }
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


if __name__ == "__main__":
    make(Path(os.environ["TARGET"]), Path(os.environ["SOURCE"]))

"""Derives the split of a file from its path.

A file belongs to the split that is named by a folder of its path (``train/part-1.parquet``), or else by the beginning
of its own name (``train-images-idx3-ubyte.gz``, ``train.csv``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# The names that folders and files of each split can have.
NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "heldout": ("heldout", "held-out", "holdout", "test", "testing", "t10k"),
    "validation": ("validation", "valid", "val", "eval", "dev"),
}
_SPLITS = {name: split for split, names in NAMES.items() for name in names}
_PREFIX = re.compile(rf"^({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(?=[-_.])")


def split_of(path: str) -> str | None:
    """The split that a path names; ``None`` if it names none."""
    *folders, name = path.lower().split("/")
    for folder in folders:
        if folder in _SPLITS:
            return _SPLITS[folder]
    match = _PREFIX.match(name)
    return _SPLITS[match[1]] if match else None


def split_of_folder(name: str) -> str | None:
    """The split whose folder has this name."""
    return _SPLITS.get(name.lower())

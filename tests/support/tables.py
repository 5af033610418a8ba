"""Tables in each format that tests register as dataset versions."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

COLUMNS = ("id", "age", "income", "city", "left")


def people(rows: int, seed: int = 0, first: int = 0) -> pa.Table:
    """A table with a binary target ``left``, a key ``id``, an integer, a float, and a string column with nulls."""
    random = np.random.default_rng(seed)
    income = random.normal(40_000, 9_000, rows)
    nulls = random.random(rows) < 0.02
    return pa.table(
        {
            "id": [f"p{first + row}" for row in range(rows)],
            "age": pa.array(random.integers(18, 80, rows), pa.int64()),
            "income": income,
            "city": pa.array(np.array(["Bern", "Lyon", "Oslo"])[random.integers(0, 3, rows)], mask=nulls),
            "left": pa.array(random.integers(0, 2, rows), pa.int64()),
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    """Write the table in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name
    if name.endswith(".parquet"):
        parquet.write_table(table, path, row_group_size=500)
    elif name.endswith((".csv", ".csv.gz")):
        with gzip.open(path, "wb") if name.endswith(".gz") else path.open("wb") as sink:
            csv.write_csv(table, sink)
    elif name.endswith((".jsonl", ".jsonl.gz")):
        import json as text

        lines = "".join(text.dumps(row) + "\n" for row in table.to_pylist()).encode()
        path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    else:
        path.write_bytes(tfrecord(table.to_pylist()))
    return path


def version(folder: Path, suffix: str, train: int = 1_000, heldout: int = 300, seed: int = 0) -> Path:
    """A directory with both splits. Their rows differ, and the held-out rows are the same for each seed."""
    write(people(train, seed + 1), folder / "train" / f"part-0.{suffix}")
    write(people(heldout, 99, first=train), folder / "heldout" / f"part-0.{suffix}")
    return folder


def tfrecord(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """``tf.train.Example`` records, encoded by hand according to the documentation of protocol buffers."""
    return b"".join(_framed(_example(row)) for row in rows)


def _framed(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + _masked(length) + record + _masked(record)


def _masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _example(row: Mapping[str, Any]) -> bytes:
    entries = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, _feature(value)))
        for name, value in row.items()
        if value is not None
    )
    return _field(1, entries)


def _feature(value: Any) -> bytes:
    values = value if isinstance(value, list) else [value]
    if not values:
        return _field(2, b"")  # an empty list of floats
    if isinstance(values[0], str | bytes):
        return _field(1, b"".join(_field(1, one.encode() if isinstance(one, str) else one) for one in values))
    if isinstance(values[0], float):
        return _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))
    return _field(3, _field(1, b"".join(_varint(one & (1 << 64) - 1) for one in values)))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

"""Splits a share of the rows off as held-out rows.

A row is selected by the hash of its key, so that it is in the same split in every version. Without a key, the hash of
the row is used. The rows are written as Parquet.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.dataset import Column, Schema
from mlengine.core.errors import DatasetError
from mlengine.core.plural import number_of
from mlengine.datasets.arrow import arrow_schema, column_of
from mlengine.datasets.discovery import Found
from mlengine.datasets.role_types import check_key
from mlengine.datasets.row_hashes import row_hashes
from mlengine.datasets.scan import Progress

if TYPE_CHECKING:
    import pyarrow as pa

_TABLES = ("parquet", "csv", "jsonl", "tfrecord")


def can_split(found: Found) -> bool:
    """Whether rows can be held out: the data are a table in a directory, without held-out rows."""
    return not found.by_reference and found.format.name in _TABLES and set(found.splits) == {"train"}


def split_share(
    found: Found, share: float, folder: Path, *, key: str | None, dtypes: Mapping[str, str], progress: Progress
) -> None:
    """Write ``train/part-0.parquet`` and ``heldout/part-0.parquet`` into ``folder``.

    :param share: the share of rows to hold out, between 0 and 1.
    :param key: the column that identifies a row.
    :raises DatasetError: the data are not a table in a directory, or already have held-out rows; or a split would be
        empty.
    """
    from pyarrow import parquet

    if not 0 < share < 1:
        raise DatasetError(f"--heldout {share:g} is not a share of the rows", hint="write a number such as 0.1")
    if not can_split(found):
        why = "is recorded by reference" if found.by_reference else f"has the format {found.format.name}"
        why = "has several splits already" if set(found.splits) != {"train"} else why
        raise DatasetError(
            f"{found.root} {why}, so that no share of its rows can be held out",
            hint="give the held-out rows in a place of their own: --heldout PATH",
        )
    files = found.splits["train"]
    inferred = found.format.infer(files, dtypes)
    check_key(found.format, inferred, key)
    columns = tuple(column_of(field, files[0].where) for field in inferred)
    schema = arrow_schema(Schema(columns))
    if key is not None and key not in schema.names:
        raise DatasetError(f"there is no column {key!r} for --key; columns: {', '.join(schema.names)}")
    chosen = tuple(column for column in columns if key in (None, column.name))
    rows, held_out = 0, 0
    with ExitStack() as stack:
        writers: dict[str, Any] = {}
        for split in ("train", "heldout"):
            (folder / split).mkdir(parents=True)
            writers[split] = stack.enter_context(
                parquet.ParquetWriter(folder / split / "part-0.parquet", schema, compression="zstd")
            )
        for batch in found.format.batches(files, schema, 1 << 16, strict=True):
            held = _held(batch, chosen, share)
            held_out += held.true_count
            writers["heldout"].write_batch(batch.filter(held))
            writers["train"].write_batch(batch.filter(_inverted(held)))
            rows += len(batch)
            progress(f"{number_of(rows, 'row')} split")
    if held_out in {0, rows}:
        by = f"; the hash of {key!r} decides, and it may have few different values" if key else ""
        raise DatasetError(
            f"--heldout {share:g} holds out {'none' if held_out == 0 else 'all'} of {number_of(rows, 'row')}{by}",
            hint="use another share, or more rows; or give the held-out rows in a place of their own: --heldout PATH",
        )


def _held(batch: pa.RecordBatch, columns: tuple[Column, ...], share: float) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    mixed = row_hashes(batch, columns) * np.uint64(0xD1B54A32D192ED03)
    return pa.array((mixed >> np.uint64(11)).astype(np.float64) / 2.0**53 < share)


def _inverted(mask: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.invert(mask)

"""Reads the rows of a split of a registered version as Arrow record batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlengine.core.dataset import Manifest, Schema, Split
from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import arrow_schema
from mlengine.datasets.download import fetch_split
from mlengine.datasets.formats import format_named
from mlengine.datasets.sources import LocalFile
from mlengine.storage.client import Storage

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class SplitReader:
    """Reads the rows of one split, any number of times.

    :param rows: the number of rows; ``None`` if they were not counted when the version was registered.
    :param folder: the local copy of the split's files.
    """

    schema: Schema
    rows: int | None
    format: str
    split: Split
    folder: Path

    def batches(self, rows: int = 8192, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in the order of the files, in batches of at most ``rows``, with the types of the schema.

        :param columns: only these columns, in this order.
        :raises DatasetError: the version has no rows (format ``files``), there is no such column, or a file does not
            fit the schema (the error names the file).
        """
        unknown = [name for name in columns or () if name not in self.schema.names]
        if unknown:
            raise DatasetError(f"no column {', '.join(unknown)}; columns: {', '.join(self.schema.names)}")
        files = [LocalFile(file.path, self.folder / file.path) for file in self.split.files]
        for batch in format_named(self.format).batches(files, arrow_schema(self.schema, columns), rows):
            for begin in range(0, len(batch), rows):
                yield batch.slice(begin, rows)


def open_split(storage: Storage, manifest: Manifest, root_uri: str, split: str, cache_dir: Path) -> SplitReader:
    """A reader of one split, from a verified local copy of its files, which are downloaded once per machine.

    :param root_uri: the version's folder in the bucket.
    :param cache_dir: the directory in which versions are kept between runs.
    :raises DatasetError: there is no such split, or an object is missing, was replaced or is damaged (the error names
        the object).
    """
    if split not in manifest.splits:
        raise DatasetError(
            f"{manifest.name}/{manifest.version} has no split {split!r}; splits: {', '.join(manifest.splits)}",
            hint="register a version that has it: mlengine datasets add",
        )
    folder = fetch_split(storage, manifest, root_uri, split, cache_dir)
    found = manifest.splits[split]
    return SplitReader(manifest.schema, found.rows, manifest.format, found, folder)

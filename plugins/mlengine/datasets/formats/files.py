"""Opaque files, which are listed and checked. mlengine cannot read rows from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats.base import Format
from mlengine.datasets.sources import SourceFile

if TYPE_CHECKING:
    import pyarrow as pa


class Files(Format):
    """The format of opaque files; see :class:`~mlengine.datasets.formats.base.Format`."""

    name = "files"

    def owns(self, path: str) -> bool:
        del path
        return True

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        import pyarrow as pa

        del files, dtypes
        return pa.schema([])

    def batches(
        self,
        files: Sequence[SourceFile],
        schema: pa.Schema,
        rows: int,
        *,
        sample_bytes: int | None = None,
        strict: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        del schema, rows, sample_bytes, strict
        raise DatasetError(
            f"files of format 'files' have no rows that mlengine can read ({files[0].where}, …)",
            hint="register the data as Parquet, CSV, JSON Lines, TFRecord, IDX or folders of images",
        )


FORMAT = Files()

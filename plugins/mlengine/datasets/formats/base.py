"""The interface of a file format, which infers the columns and reads rows as Arrow record batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from mlengine.core.dataset import ColumnStatistics
from mlengine.core.errors import DatasetError
from mlengine.datasets.sources import SourceFile

if TYPE_CHECKING:
    import pyarrow as pa


class NarrowTypeError(DatasetError):
    """A value does not fit the type that was inferred from earlier rows, but fits another type.

    :param column: the column's name.
    :param dtype: the type that fits the value.
    """

    def __init__(self, message: str, column: str, dtype: str) -> None:
        super().__init__(message, hint=f"correct the value; or set the column's type: --dtype {column}={dtype}")
        self.column, self.dtype = column, dtype


class Format:
    """One file format. Instances have no state.

    :cvar name: the format's name in manifests and on the command line.
    :cvar suffixes: the suffixes of file names; ``.gz`` may follow if ``compressible``.
    :cvar typed: whether files contain the types of their columns; otherwise, types are inferred from values.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    compressible: ClassVar[bool] = False
    typed: ClassVar[bool] = True

    def owns(self, path: str) -> bool:
        """Whether a file of this name has this format."""
        name = path.rsplit("/", 1)[-1].lower()
        return name.removesuffix(".gz" if self.compressible else "").endswith(self.suffixes)

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        """Infer the columns of a split's files.

        :param dtypes: types that the user set, by column.
                :raises DatasetError: a file does not have this format, or the files' columns differ.
        """
        raise NotImplementedError

    def batches(
        self,
        files: Sequence[SourceFile],
        schema: pa.Schema,
        rows: int,
        *,
        sample_bytes: int | None = None,
        strict: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a split's files in order, as batches of about ``rows``.

        :param schema: the columns to read, with their types.
        :param sample_bytes: stop after about this many bytes. They are read from several places of the files if the
            format allows that.
        :param strict: reject rows with columns that are not in the schema, in formats where each row names its columns.
        :raises DatasetError: a file is damaged, or does not fit the schema; the error names the file.
        """
        raise NotImplementedError

    def row_counts(self, files: Sequence[SourceFile]) -> list[int] | None:
        """The number of rows in each file, if it can be determined without reading rows; otherwise ``None``."""
        del files
        return None

    def count_rows(self, files: Sequence[SourceFile]) -> int | None:
        """The number of rows in a split, if it can be determined without reading rows; otherwise ``None``."""
        counts = self.row_counts(files)
        return None if counts is None else sum(counts)

    def footer_statistics(self, files: Sequence[SourceFile]) -> Mapping[str, ColumnStatistics]:
        """Statistics of columns that the files contain as metadata; empty for most formats."""
        del files
        return {}


def check_names(names: Sequence[str], where: str) -> None:
    """Check the names of a file's columns.

    :raises DatasetError: a column has no name, or two columns have the same name.
    """
    for place, name in enumerate(names, start=1):
        if not name.strip():
            raise DatasetError(
                f"{where}: column {place} has no name",
                hint="name it, or leave it out; pandas writes such a column without index=False",
            )
    if repeated := [name for name, rows in Counter(names).items() if rows > 1]:
        raise DatasetError(
            f"{where}: several columns are named {', '.join(map(repr, repeated))}", hint="give each its own name"
        )


def check_dtypes(schema: pa.Schema, dtypes: Mapping[str, str], where: str) -> None:
    """Check that the columns whose types the user set exist.

    :raises DatasetError: a type was set for a column that does not exist.
    """
    for name in dtypes:
        if name not in schema.names:
            raise DatasetError(
                f"{where}: --dtype names the column {name!r}, which does not exist; columns: {', '.join(schema.names)}"
            )

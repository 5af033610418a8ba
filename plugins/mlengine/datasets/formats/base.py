"""What a file format does: name its columns, and read rows as Arrow record batches."""

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
    """A value does not fit the type that was inferred from the rows before it, and fits another.

    :param column: its name.
    :param dtype: the type that fits.
    """

    def __init__(self, message: str, column: str, dtype: str) -> None:
        super().__init__(message, hint=f"correct the value; or set the column's type: --dtype {column}={dtype}")
        self.column, self.dtype = column, dtype


class Format:
    """One file format. Holds no state.

    :cvar name: in manifests and on the command line.
    :cvar suffixes: of file names; ``.gz`` may follow where ``compressible``.
    :cvar typed: whether the files say which types their columns have; else they are inferred from values.
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
        """The columns of a split's files.

        :param dtypes: types that the user set, by column.
        :raises DatasetError: a file is not of this format, or the files' columns differ.
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

        :param schema: the columns that are wanted, with their types.
        :param sample_bytes: stop when about so many bytes were read, which come from several places of the files where
            the format allows.
        :param strict: rows may not have other columns than the schema, in formats where each row names its own.
        :raises DatasetError: a file is damaged, or does not fit the schema; names it.
        """
        raise NotImplementedError

    def row_counts(self, files: Sequence[SourceFile]) -> list[int] | None:
        """The rows of each file as far as they can be known without reading rows; ``None`` if they cannot."""
        del files
        return None

    def count_rows(self, files: Sequence[SourceFile]) -> int | None:
        """The rows of a split as far as they can be known without reading rows."""
        counts = self.row_counts(files)
        return None if counts is None else sum(counts)

    def footer_statistics(self, files: Sequence[SourceFile]) -> Mapping[str, ColumnStatistics]:
        """What the files say of their columns without reading rows; empty for most formats."""
        del files
        return {}


def check_names(names: Sequence[str], where: str) -> None:
    """:raises DatasetError: a column has no name, or two have the same."""
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
    """:raises DatasetError: a type was set for a column that does not exist."""
    for name in dtypes:
        if name not in schema.names:
            raise DatasetError(
                f"{where}: --dtype names the column {name!r}, which does not exist; columns: {', '.join(schema.names)}"
            )

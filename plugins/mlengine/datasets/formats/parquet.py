"""Parquet. The number of rows, the nulls and the ranges are in each file's footer, which is read without the rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from mlengine.core.dataset import ColumnStatistics
from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import column_of, conform, scalar_type
from mlengine.datasets.formats.base import Format, check_dtypes, check_names
from mlengine.datasets.sources import SourceFile

if TYPE_CHECKING:
    import pyarrow as pa

_THREADS = 16
_BUFFER = 1 << 20  # bytes of a column that are buffered, instead of the whole row group
_INDEX = re.compile(r"__index_level_\d+__")  # the name that pandas gives to a level of an index without a name
# A cache of footers, each kept as long as its file object exists.
_FOOTERS: WeakKeyDictionary[SourceFile, Any] = WeakKeyDictionary()


class Parquet(Format):
    """The Parquet format; see :class:`~mlengine.datasets.formats.base.Format`."""

    name = "parquet"
    suffixes = (".parquet", ".pq", ".parq")

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        import pyarrow as pa

        schemas = _typed([_columns(metadata.schema.to_arrow_schema(), dtypes) for metadata in self.footers(files)])
        first = schemas[0]
        check_names(first.names, files[0].where)
        check_dtypes(first, dtypes, files[0].where)
        types = {field.name: (column := column_of(field, files[0].where)).dtype + str(column.shape) for field in first}
        for file, schema in zip(files[1:], schemas[1:], strict=True):
            _same_columns(file, schema, files[0], types)
        nullable = {name for schema in schemas for name in schema.names if schema.field(name).nullable}
        return pa.schema([pa.field(field.name, field.type, field.name in nullable) for field in first])

    def footers(self, files: Sequence[SourceFile]) -> list[Any]:
        """The ``pyarrow.parquet.FileMetaData`` of each file. Footers are read concurrently."""

        def footer(file: SourceFile) -> Any:
            if file not in _FOOTERS:
                with _opened(file) as parquet:
                    _FOOTERS[file] = parquet.metadata
            return _FOOTERS[file]

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(footer, files))

    def row_counts(self, files: Sequence[SourceFile]) -> list[int] | None:
        return [metadata.num_rows for metadata in self.footers(files)]

    def footer_statistics(self, files: Sequence[SourceFile]) -> Mapping[str, ColumnStatistics]:
        """Nulls and ranges of those scalar columns for which every row group has them."""
        found: dict[str, _Footer] = {}
        for metadata in self.footers(files):
            for group in range(metadata.num_row_groups):
                row_group = metadata.row_group(group)
                for index in range(row_group.num_columns):
                    chunk = row_group.column(index)
                    found.setdefault(chunk.path_in_schema, _Footer()).add(chunk.statistics)
        return {
            name: footer.statistics()
            for name, footer in found.items()
            if "." not in name and not _INDEX.fullmatch(name)
        }

    def batches(
        self,
        files: Sequence[SourceFile],
        schema: pa.Schema,
        rows: int,
        *,
        sample_bytes: int | None = None,
        strict: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        del strict  # the columns are those of the file
        if sample_bytes is not None:
            yield from self._sample(files, schema, rows, sample_bytes)
            return
        for file in files:
            with _opened(file) as parquet:
                for batch in _iterate(parquet, file, schema, rows, None):
                    yield conform(batch, schema, file.where)

    def _sample(
        self, files: Sequence[SourceFile], schema: pa.Schema, rows: int, sample_bytes: int
    ) -> Iterator[pa.RecordBatch]:
        """Read a sample of row groups that are evenly spread over the files.

        At least one row group is read, and as many as fit into ``sample_bytes``.
        """
        groups = [
            (file, group, metadata.row_group(group).total_byte_size)
            for file, metadata in zip(files, self.footers(files), strict=True)
            for group in range(metadata.num_row_groups)
        ]
        if not groups:
            return
        mean = max(1, sum(size for *_, size in groups) // len(groups))
        count = max(1, min(len(groups), sample_bytes // mean))
        for index in range(count):
            file, group, _ = groups[index * len(groups) // count]
            with _opened(file) as parquet:
                for batch in _iterate(parquet, file, schema, rows, [group]):
                    yield conform(batch, schema, file.where)


@dataclass
class _Footer:
    """The statistics of one column in the row groups."""

    nulls: int | None = 0
    values: list[Any] | None = field(default_factory=list)

    def add(self, statistics: Any) -> None:
        known = statistics is not None and statistics.has_null_count and self.nulls is not None
        self.nulls = self.nulls + statistics.null_count if known and self.nulls is not None else None
        if self.values is None or statistics is None or not statistics.has_min_max:
            self.values = None
            return
        try:
            self.values = [min([*self.values, statistics.min]), max([*self.values, statistics.max])]
        except OverflowError:  # a time that Python's types cannot represent
            self.values = None

    def statistics(self) -> ColumnStatistics:
        low, high = self.values or (None, None)
        if not isinstance(low, int | float):
            low, high = None, None
        return ColumnStatistics(nulls=self.nulls, min=low, max=high)


def _columns(schema: pa.Schema, dtypes: Mapping[str, str]) -> pa.Schema:
    """The columns of a file, with the types that the user set, whatever type they replace.

    An index of pandas without a name is no column: no two rows would be equal, and a model would get row numbers.
    """
    import pyarrow as pa

    fields = [field for field in schema if not _INDEX.fullmatch(field.name)]
    return pa.schema([f.with_type(scalar_type(dtypes[f.name])) if f.name in dtypes else f for f in fields])


def _typed(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
    """The schemas, in which a column without any value in its file has the type that it has in another file."""
    import pyarrow as pa

    def unknown(kind: pa.DataType) -> bool:
        return bool(pa.types.is_null(kind) or (pa.types.is_list(kind) and pa.types.is_null(kind.value_type)))

    types = {f.name: f.type for schema in reversed(schemas) for f in schema if not unknown(f.type)}
    return [
        pa.schema([f.with_type(types.get(f.name, f.type)) if unknown(f.type) else f for f in schema])
        for schema in schemas
    ]


def _same_columns(file: SourceFile, schema: pa.Schema, first: SourceFile, types: Mapping[str, str]) -> None:
    """Check that a file has the columns of the first one. Columns are compared by name; their order may differ."""
    found = {field.name: (column := column_of(field, file.where)).dtype + str(column.shape) for field in schema}
    if found == types:
        return
    wrong = [f"{name!r} is missing" for name in types if name not in found]
    wrong += [f"{name!r} is not in the first file" for name in found if name not in types]
    wrong += [
        f"{name!r} is {schema.field(name).type} and {types[name].removesuffix('()')} in the first file"
        for name in types
        if name in found and found[name] != types[name]
    ]
    raise DatasetError(
        f"{file.where} has other columns than {first.where}: {'; '.join(wrong)}",
        hint="all files of a split need the same columns and types: write this file again; or, if only types differ,"
        " set one that fits all values: --dtype COLUMN=TYPE, such as float64 for integers with missing values",
    )


def _iterate(
    parquet: Any, file: SourceFile, schema: pa.Schema, rows: int, groups: list[int] | None
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    there = parquet.schema_arrow.names
    columns = [name for name in schema.names if name in there]
    try:
        yield from parquet.iter_batches(batch_size=rows, columns=columns, row_groups=groups)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


@contextmanager
def _opened(file: SourceFile) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    with file.open() as stream:
        try:
            reader = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error
        yield reader


def _damaged(file: SourceFile, error: Exception) -> DatasetError:
    return DatasetError(f"{file.where} is not a readable Parquet file: {error}", hint="write the file again")


FORMAT = Parquet()

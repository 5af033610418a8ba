"""CSV with a header line. The delimiter is comma, semicolon or tab. Files may be compressed with gzip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import conform, scalar_type
from mlengine.datasets.formats.base import Format, check_dtypes, check_names
from mlengine.datasets.formats.csv_errors import check_closed, explained
from mlengine.datasets.formats.csv_header import delimiter
from mlengine.datasets.formats.csv_header import names as header_names
from mlengine.datasets.formats.csv_nulls import MISSING, values_of, with_nulls
from mlengine.datasets.formats.text_encoding import check_encoding, not_utf8
from mlengine.datasets.sources import SourceFile, uncompressed

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 4 << 20  # bytes that are parsed into one batch, and from which types are inferred
_SEARCHED = 64 << 20  # bytes that are searched for the first values of a column


class Csv(Format):
    """The CSV format; see :class:`~mlengine.datasets.formats.base.Format`."""

    name = "csv"
    suffixes = (".csv", ".tsv")
    compressible = True
    typed = False

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        """Infer the columns. Types are inferred from the beginning of each file. Every column may have empty fields."""
        import pyarrow as pa

        headers = [_header(file) for file in files]
        first, found = _first_with_rows(files)
        check_names(found.names, first.where)
        check_dtypes(found, dtypes, first.where)
        types = {field.name: _read_as(field.type) for field in found}
        if any(pa.types.is_binary(kind) for name, kind in types.items() if name not in dtypes):
            raise not_utf8(first)
        for file, names in zip(files, headers, strict=True):
            if names != found.names:
                raise DatasetError(
                    f"{file.where} has the columns {', '.join(names)}; {first.where} has {', '.join(found.names)}",
                    hint="all files of a version need the same header line",
                )
            if file != first:
                types = {name: _common(types[name], kind) for name, kind in _beginning(file).items()} or types
        types |= {name: scalar_type(dtype) for name, dtype in dtypes.items()}
        empty = [name for name, kind in types.items() if pa.types.is_null(kind)]
        return pa.schema(list({**types, **(_first_values(files, empty) if empty else {})}.items()))

    def batches(
        self,
        files: Sequence[SourceFile],
        schema: pa.Schema,
        rows: int,
        *,
        sample_bytes: int | None = None,
        strict: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows. With ``strict``, the last row is also checked for an unclosed quote."""
        import pyarrow as pa

        left = sample_bytes
        for file in files:
            try:
                with uncompressed(file) as stream:
                    batch = None
                    for batch in _reader(stream, file, schema):
                        for begin in range(0, len(batch), rows):
                            yield conform(with_nulls(batch.slice(begin, rows), schema), schema, file.where)
                        if left is not None and (left := left - batch.nbytes) <= 0:
                            return
            except (pa.ArrowInvalid, OSError) as error:
                raise explained(file, error) from error
            if strict and batch is not None and _ends_with_line_break(batch):
                check_closed(file)


def _header(file: SourceFile) -> list[str]:
    """The column names in a file's header line.

    :raises DatasetError: the file is damaged or not UTF-8.
    """
    try:
        with uncompressed(file) as stream:
            data = stream.read(_BLOCK)
        check_encoding(data, file)
        return header_names(data, file)
    except OSError as error:
        raise explained(file, error) from error


def _ends_with_line_break(batch: pa.RecordBatch) -> bool:
    """Whether a value of the last row has a line break, because all lines after an unclosed quote are one value."""
    import pyarrow as pa

    last = [array[-1].as_py() for array in batch.columns if len(array) and pa.types.is_string(array.type)]
    return any("\n" in value or "\r" in value for value in last if value is not None)


def _reader(stream: pa.NativeFile, file: SourceFile, schema: pa.Schema | None) -> Any:
    from pyarrow import csv

    types = None if schema is None else {f.name: f.type for f in schema if not _needs_cast(f.type)}
    try:
        if schema is not None and any(_is_time(field.type) for field in schema):
            types = {**(types or {}), **_times(file, schema)}
        return csv.open_csv(
            stream,
            csv.ReadOptions(block_size=_BLOCK),
            csv.ParseOptions(delimiter=delimiter(file), newlines_in_values=True),
            csv.ConvertOptions(
                column_types=types,
                include_columns=None if schema is None else schema.names,
                null_values=list(MISSING),
            ),
        )
    except Exception as error:
        if type(error).__module__.startswith("pyarrow") or isinstance(error, OSError | KeyError):
            raise explained(file, error) from error
        raise


def _times(file: SourceFile, schema: pa.Schema) -> dict[str, pa.DataType]:
    """The types with which columns of times are parsed.

    Whether times have a zone is inferred from the beginning of the file. Fractions of a second are always accepted,
    because they may first occur later.
    """
    import pyarrow as pa

    found = _beginning(file)
    times = {f.name: found[f.name] for f in schema if _is_time(f.type) and f.name in found and _is_time(found[f.name])}
    return {name: pa.timestamp("ns" if kind.unit == "ns" else "us", kind.tz) for name, kind in times.items()}


def _beginning(file: SourceFile) -> dict[str, pa.DataType]:
    """The column types in the first block of a file; empty if the file has no rows."""
    import pyarrow as pa

    with uncompressed(file) as stream:
        reader = _reader(stream, file, None)
        try:
            found = {f.name: _read_as(f.type) for f in reader.schema}
            return found if any(len(batch) for batch in islice(reader, 1)) else {}
        except pa.ArrowInvalid as error:
            raise explained(file, error) from error


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type of a column that has ``one`` in the first file and ``other`` in another."""
    import pyarrow as pa

    if pa.types.is_null(one):
        return other
    numbers = pa.types.is_integer(one) and pa.types.is_floating(other)
    # A file in which a column has another type, such as string, is reported when its rows are read.
    return other if numbers else one


def _first_with_rows(files: Sequence[SourceFile]) -> tuple[SourceFile, pa.Schema]:
    """The first file that has more than its header line, and its columns."""
    import pyarrow as pa

    for file in files:
        with uncompressed(file) as stream:
            reader = _reader(stream, file, None)
            try:
                if any(len(batch) for batch in islice(reader, 1)):
                    return file, reader.schema
            except pa.ArrowInvalid as error:
                raise explained(file, error) from error
    raise DatasetError(f"{files[0].where} has no rows, only a header line", hint="write rows, or remove the file")


def _needs_cast(kind: pa.DataType) -> bool:
    """Whether the CSV reader cannot parse a type itself."""
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) or pa.types.is_float16(kind) or pa.types.is_nested(kind))


def _read_as(kind: pa.DataType) -> pa.DataType:
    """The type of a column for which pyarrow infers ``kind``.

    Times of day are strings, because no dtype exists for them.
    """
    import pyarrow as pa

    return pa.string() if pa.types.is_time(kind) else kind


def _is_time(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind))


def _first_values(files: Sequence[SourceFile], columns: Sequence[str]) -> dict[str, pa.DataType]:
    """The types of columns that have no value in the first block of any file.

    They are inferred from the first values in the first :data:`_SEARCHED` bytes. A column without any is ``string``.
    """
    import pyarrow as pa

    found: dict[str, pa.DataType] = {}
    left = _SEARCHED
    for file in files:
        schema = pa.schema([(name, pa.string()) for name in columns])
        try:
            with uncompressed(file) as stream:
                for batch in _reader(stream, file, schema):
                    for name in columns:
                        values = values_of(batch.column(name))
                        if name not in found and len(values):
                            found[name] = _type_of(values)
                    left -= _BLOCK
                    if left <= 0 or len(found) == len(columns):
                        return {name: found.get(name, pa.string()) for name in columns}
        except pa.ArrowInvalid as error:
            raise explained(file, error) from error
    return {name: found.get(name, pa.string()) for name in columns}


def _type_of(values: pa.Array) -> pa.DataType:
    """The type that pyarrow infers for these strings."""
    import io

    import pyarrow as pa
    from pyarrow import csv

    buffer = io.BytesIO()
    csv.write_csv(pa.table({"x": values}), buffer, csv.WriteOptions(quoting_style="needed"))
    buffer.seek(0)
    kind = _read_as(csv.read_csv(buffer).schema.field("x").type)
    return pa.string() if pa.types.is_null(kind) else kind


FORMAT = Csv()

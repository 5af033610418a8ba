"""CSV with a header line: comma, semicolon or tab; may be compressed with gzip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import conform, scalar_type
from mlengine.datasets.formats.base import Format, check_dtypes
from mlengine.datasets.sources import SourceFile, uncompressed

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 4 << 20  # bytes that one batch is parsed from, and that types are inferred from
_DELIMITERS = (",", "\t", ";", "|")


class Csv(Format):
    """See :class:`~mlengine.datasets.formats.base.Format`."""

    name = "csv"
    suffixes = (".csv", ".tsv")
    compressible = True

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        """Types are inferred from the beginning of the first file. Every column may have empty fields."""
        import pyarrow as pa

        first, found = _first_with_rows(files)
        check_dtypes(found, dtypes, first.where)
        for file in files:
            with uncompressed(file) as stream:
                names = _header(stream.read(_BLOCK), file)
            if names != found.names:
                raise DatasetError(
                    f"{file.where} has the columns {', '.join(names)}; {first.where} has {', '.join(found.names)}",
                    hint="all files of a version need the same header line",
                )
        return pa.schema([pa.field(f.name, scalar_type(dtypes[f.name]) if f.name in dtypes else f.type) for f in found])

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
        import pyarrow as pa

        left = sample_bytes
        for file in files:
            try:
                with uncompressed(file) as stream:
                    for batch in _reader(stream, file, schema):
                        for begin in range(0, len(batch), rows):
                            yield conform(batch.slice(begin, rows), schema, file.where)
                        if left is not None and (left := left - batch.nbytes) <= 0:
                            return
            except (pa.ArrowInvalid, OSError) as error:
                raise _explained(file, schema, error) from error


def _reader(stream: pa.NativeFile, file: SourceFile, schema: pa.Schema | None) -> Any:
    from pyarrow import csv

    types = None if schema is None else {f.name: f.type for f in schema if not _needs_cast(f.type)}
    try:
        return csv.open_csv(
            stream,
            csv.ReadOptions(block_size=_BLOCK),
            csv.ParseOptions(delimiter=_delimiter(file), newlines_in_values=False),
            csv.ConvertOptions(
                column_types=types,
                include_columns=None if schema is None else schema.names,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=["", "NA", "NaN", "nan", "null", "NULL"],
            ),
        )
    except Exception as error:
        if type(error).__module__.startswith("pyarrow") or isinstance(error, OSError | KeyError):
            raise _explained(file, schema, error) from error
        raise


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
                raise _explained(file, None, error) from error
    raise DatasetError(f"{files[0].where} has no rows, only a header line", hint="write rows, or remove the file")


def _needs_cast(kind: pa.DataType) -> bool:
    """Types that the CSV reader does not parse itself."""
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) or pa.types.is_float16(kind) or pa.types.is_nested(kind))


def _delimiter(file: SourceFile) -> str:
    """The delimiter that occurs most often in the header line."""
    with uncompressed(file) as stream:
        header = stream.read(64 << 10).split(b"\n", 1)[0].decode(errors="replace")
    return max(_DELIMITERS, key=lambda delimiter: (header.count(delimiter), delimiter == ","))


def _header(data: bytes, file: SourceFile) -> list[str]:
    import csv

    line = data.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").rstrip("\r")
    return next(csv.reader([line], delimiter=_delimiter(file)), [])


def _explained(file: SourceFile, schema: pa.Schema | None, error: Exception) -> DatasetError:
    """What is wrong with a file, with the row that it is wrong in."""
    text = str(error)
    hint = "correct the file"
    if "Empty CSV" in text:
        return DatasetError(f"{file.where} is empty", hint="remove it, or write a header line and rows")
    if "Expected" in text and "columns, got" in text:
        row = _row_of_wrong_width(file)
        return DatasetError(f"{file.where}: {row or text}", hint="quote fields that contain the delimiter")
    if "conversion error" in text and schema is not None:
        hint = "correct the value; or set the column's type: --dtype COLUMN=string"
        if "CSV column #" in text:
            number = int(text.split("CSV column #")[1].split(":", maxsplit=1)[0])
            name = schema.names[number] if number < len(schema.names) else f"#{number}"
            hint = f"correct the value; or set the column's type: --dtype {name}=string (or float64)"
            text = text.replace(f"In CSV column #{number}", f"column {name!r}")
    return DatasetError(f"{file.where}: {text}", hint=hint)


def _row_of_wrong_width(file: SourceFile) -> str:
    """Reads the file again: the streaming reader does not count rows."""
    import csv
    import io

    with uncompressed(file) as stream:
        lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", errors="replace", newline="")
        reader = csv.reader(lines, delimiter=_delimiter(file))
        width = len(next(reader, []))
        for number, row in enumerate(reader, 1):
            if row and len(row) != width:
                return f"row {number:,} has {len(row)} fields, the header {width}: {str(row)[:200]}"
    return ""


FORMAT = Csv()

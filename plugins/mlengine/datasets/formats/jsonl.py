"""JSON Lines: one object per line. Files may be compressed with gzip."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import conform, scalar_type
from mlengine.datasets.formats.base import Format
from mlengine.datasets.formats.jsonl_errors import misfit, mixed, unexpected, unreadable
from mlengine.datasets.formats.text_encoding import check_encoding, not_utf8
from mlengine.datasets.sources import SourceFile, uncompressed

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 8 << 20  # bytes; no line may be longer
_SEARCHED = 64 << 20  # bytes that are searched for the first values of a column


class JsonLines(Format):
    """The JSON Lines format; see :class:`~mlengine.datasets.formats.base.Format`."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson", ".json")
    compressible = True
    typed = False

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        """Infer columns and types from the beginning of the first file, and from ``dtypes``.

        A field may be missing in any line. A column that is null at the beginning gets the type of its first values.
        """
        import pyarrow as pa

        first = files[0]
        try:
            with uncompressed(first) as stream:
                check_encoding(stream.read(4), first)
            with uncompressed(first) as stream:
                fields = {field.name: field.type for field in _reader(stream, None).schema}
        except UnicodeDecodeError as error:
            raise not_utf8(first) from error
        except (pa.ArrowException, OSError) as error:
            found = mixed(first) if "changed from" in str(error) else None
            raise found or _explained(first, error) from error
        fields |= {name: scalar_type(dtype) for name, dtype in dtypes.items()}
        if unknown := {name for name, kind in fields.items() if _unknown(kind)}:
            fields |= _first_values(files, unknown)
        return pa.schema(list(fields.items()))

    def batches(
        self,
        files: Sequence[SourceFile],
        schema: pa.Schema,
        rows: int,
        *,
        sample_bytes: int | None = None,
        strict: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        left = sample_bytes
        for file in files:
            try:
                with uncompressed(file) as stream:
                    for batch in _reader(stream, schema, strict=strict):
                        batch.validate(full=True)  # checks that strings are UTF-8, which the reader does not check
                        for begin in range(0, len(batch), rows):
                            yield conform(batch.slice(begin, rows), schema, file.where)
                        if left is not None and (left := left - batch.nbytes) <= 0:
                            return
            except (pa.ArrowException, OSError) as error:
                wrong_type = "changed from" in str(error) or "Failed to convert" in str(error)
                found = misfit(file, schema) if wrong_type else None
                if "unexpected field" in str(error):
                    found = unexpected(file, schema)
                raise found or _explained(file, error) from error


def _unknown(kind: pa.DataType) -> bool:
    """Whether the type is that of a column with no value so far, or with empty lists only."""
    import pyarrow as pa

    return bool(pa.types.is_null(kind) or (pa.types.is_list(kind) and pa.types.is_null(kind.value_type)))


def _first_values(files: Sequence[SourceFile], columns: set[str]) -> dict[str, pa.DataType]:
    """The types of these columns' first values, for columns that have any in the first :data:`_SEARCHED` bytes."""
    import pyarrow as pa
    from pyarrow import json

    found: dict[str, pa.DataType] = {}
    try:
        for lines in _blocks(files):
            kinds = json.read_json(pa.BufferReader(lines), json.ReadOptions(block_size=2 * _BLOCK)).schema
            new = {field.name: field.type for field in kinds if field.name in columns - found.keys()}
            found |= {name: kind for name, kind in new.items() if not _unknown(kind)}
            if len(found) == len(columns):
                break
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        pass  # the error is reported when the rows are read
    return found


def _blocks(files: Sequence[SourceFile]) -> Iterator[bytes]:
    """The first :data:`_SEARCHED` bytes of the files, in blocks of complete lines."""
    left = _SEARCHED
    for file in files:
        rest = b""
        with uncompressed(file) as stream:
            while left > 0 and (data := stream.read(_BLOCK)):
                left -= len(data)
                lines, _, rest = (rest + data).rpartition(b"\n")
                if lines.strip():
                    yield lines
        if left > 0 and rest.strip():
            yield rest


def _reader(stream: pa.NativeFile, schema: pa.Schema | None, *, strict: bool = False) -> Any:
    from pyarrow import json

    return json.open_json(
        stream,
        json.ReadOptions(block_size=_BLOCK),
        json.ParseOptions(
            explicit_schema=None if schema is None else _parsed(schema),
            unexpected_field_behavior="infer" if schema is None else "error" if strict else "ignore",
        ),
    )


def _parsed(schema: pa.Schema) -> pa.Schema:
    """The schema to request from the JSON reader, which returns one-dimensional tensors as lists."""
    import pyarrow as pa

    def parsed(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_fixed_size_list(kind):
            return pa.list_(kind.value_type)
        return pa.string() if pa.types.is_binary(kind) else kind

    return pa.schema([pa.field(field.name, parsed(field.type)) for field in schema])


_ROW = re.compile(r"\.? in row \d+$")  # pyarrow counts rows from the beginning of a block


def _explained(file: SourceFile, error: Exception) -> DatasetError:
    text = _ROW.sub("", str(error))
    if "Empty JSON" in text:
        return DatasetError(f"{file.where} is empty", hint="remove it, or write rows")
    if "UTF8" in text:
        return not_utf8(file)
    if "straddling" not in text and (found := unreadable(file)) is not None:
        return found
    hint = "write one JSON object a line; set a column's type with --dtype COLUMN=TYPE"
    if "unexpected field" in text:
        hint = "name the field and its type, so that it becomes a column: --dtype FIELD=TYPE"
    if "straddling" in text:
        text, hint = f"a line is longer than {_BLOCK >> 20} MiB", "write the data as Parquet"
    return DatasetError(f"{file.where}: {text}", hint=hint)


FORMAT = JsonLines()

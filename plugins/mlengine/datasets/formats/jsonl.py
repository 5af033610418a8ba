"""JSON Lines: one object a line; may be compressed with gzip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import conform, scalar_type
from mlengine.datasets.formats.base import Format
from mlengine.datasets.formats.jsonl_errors import misfit
from mlengine.datasets.sources import SourceFile, uncompressed

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 8 << 20  # no line may be longer


class JsonLines(Format):
    """See :class:`~mlengine.datasets.formats.base.Format`."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson", ".json")
    compressible = True
    typed = False

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        """Columns and types are those of the beginning of the first file, and those in ``dtypes``.

        A field may be missing in any line.
        """
        import pyarrow as pa

        first = files[0]
        try:
            with uncompressed(first) as stream:
                found: pa.Schema = _reader(stream, None).schema
        except (pa.ArrowException, OSError) as error:
            raise _explained(first, error) from error
        fields = {field.name: field.type for field in found}
        fields |= {name: scalar_type(dtype) for name, dtype in dtypes.items()}
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
                        for begin in range(0, len(batch), rows):
                            yield conform(batch.slice(begin, rows), schema, file.where)
                        if left is not None and (left := left - batch.nbytes) <= 0:
                            return
            except (pa.ArrowException, OSError) as error:
                wrong_type = "changed from" in str(error) or "Failed to convert" in str(error)
                found = misfit(file, schema) if wrong_type else None
                raise found or _explained(file, error) from error


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
    """The types that the JSON reader is asked for; tensors of one dimension arrive as lists."""
    import pyarrow as pa

    def parsed(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_fixed_size_list(kind):
            return pa.list_(kind.value_type)
        return pa.string() if pa.types.is_binary(kind) else kind

    return pa.schema([pa.field(field.name, parsed(field.type)) for field in schema])


def _explained(file: SourceFile, error: Exception) -> DatasetError:
    text = str(error)
    if "Empty JSON" in text:
        return DatasetError(f"{file.where} is empty", hint="remove it, or write rows")
    hint = "write one JSON object a line; set a column's type with --dtype COLUMN=TYPE"
    if "unexpected field" in text:
        hint = "name the field and its type, so that it becomes a column: --dtype FIELD=TYPE"
    if "straddling" in text:
        text, hint = f"a line is longer than {_BLOCK >> 20} MiB", "write the data as Parquet"
    return DatasetError(f"{file.where}: {text}", hint=hint)


FORMAT = JsonLines()

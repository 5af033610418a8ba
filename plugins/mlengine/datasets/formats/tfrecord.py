"""TFRecord files of ``tf.train.Example``, optionally compressed with gzip. TensorFlow is not needed.

::

    length as uint64 · masked CRC32C of the length · record · masked CRC32C of the record      little endian, repeated

A feature with one value in every row is a scalar. One with ``n`` values in every row is a list of ``n``, otherwise a
list of any length. For rows without a value, scalars and lists of ``n`` are null.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import scalar_type
from mlengine.datasets.formats.base import Format, check_dtypes
from mlengine.datasets.sources import SourceFile, uncompressed

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"\.(tfrecords?|tfrec)(\.gz)?(-\d+-of-\d+)?(\.gz)?$|\.tfrecords?-\d+$")
_INFER_ROWS, _INFER_FILES = 256, 8  # the columns are inferred from this many rows of each of this many files
_MOST_BYTES = 1 << 30  # of one record; a larger length means that the file is damaged
_BATCH_BYTES = 16 << 20


class TfRecord(Format):
    """The TFRecord format; see :class:`~mlengine.datasets.formats.base.Format`."""

    name = "tfrecord"
    compressible = True

    def owns(self, path: str) -> bool:
        return _NAME.search(path.lower()) is not None

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        import pyarrow as pa

        rows: list[dict[str, tuple[str, list[Any]]]] = []
        for file in files[:_INFER_FILES]:
            with uncompressed(file) as stream:
                rows += [_features(record, file) for record in islice(_records(stream, file), _INFER_ROWS)]
        if not rows:
            raise DatasetError(f"{files[0].where} has no records", hint="write at least one row")
        names = sorted({name for row in rows for name in row})
        found = pa.schema([_field(name, rows, dtypes.get(name), files[0].where) for name in names])
        check_dtypes(found, dtypes, files[0].where)
        return found

    def batches(
        self,
        files: Sequence[SourceFile],
        schema: pa.Schema,
        rows: int,
        *,
        sample_bytes: int | None = None,
        strict: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        left = sample_bytes
        for file in files:
            with uncompressed(file) as stream:
                for records in _grouped(_records(stream, file), rows):
                    features = [_features(record, file) for record in records]
                    if strict:
                        _check_names(features, schema, file.where)
                    yield _batch(features, schema, file.where)
                    if left is not None and (left := left - sum(map(len, records))) <= 0:
                        return


def _records(stream: pa.NativeFile, file: SourceFile) -> Iterator[bytes]:
    """The records of a file.

    :raises DatasetError: the file is truncated, or a checksum differs; the error names the record.
    """
    import google_crc32c

    number = 0
    while head := _read(stream, 12, file, number):
        length, length_crc = struct.unpack("<QI", head) if len(head) == 12 else (0, 0)
        if len(head) < 12 or _masked(google_crc32c.value(head[:8])) != length_crc or length > _MOST_BYTES:
            raise _damaged(file, number, "its header is damaged" if len(head) == 12 else "the file is cut short")
        body = _read(stream, length + 4, file, number)
        if len(body) < length + 4:
            raise _damaged(file, number, "the file is cut short")
        record = body[:length]
        if _masked(google_crc32c.value(record)) != struct.unpack("<I", body[length:])[0]:
            raise _damaged(file, number, "its checksum differs")
        number += 1
        yield record


def _read(stream: pa.NativeFile, size: int, file: SourceFile, number: int) -> bytes:
    try:
        return bytes(stream.read(size))
    except (OSError, zlib.error) as error:
        raise _damaged(file, number, str(error)) from error


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _damaged(file: SourceFile, number: int, why: str) -> DatasetError:
    return DatasetError(
        f"{file.where}: record {number:,}: {why}", hint="write TFRecord files of tf.train.Example, complete"
    )


def _grouped(records: Iterator[bytes], rows: int) -> Iterator[list[bytes]]:
    held: list[bytes] = []
    size = 0
    for record in records:
        held.append(record)
        size += len(record)
        if len(held) >= rows or size >= _BATCH_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _features(record: bytes, file: SourceFile) -> dict[str, tuple[str, list[Any]]]:
    """The features of an Example by name, each as the kind of its list and the values."""
    from google.protobuf.message import DecodeError

    example = _example_class()()
    try:
        example.ParseFromString(record)
    except DecodeError as error:
        raise DatasetError(
            f"{file.where}: a record is not a tf.train.Example: {error}", hint="register the data with --format files"
        ) from error
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind is not None:
            found[name] = (kind, list(getattr(feature, kind).value))
    return found


@cache
def _example_class() -> Any:
    """The protobuf class of ``tf.train.Example``, built from its definition in tensorflow/core/example."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    proto = descriptor_pb2.FileDescriptorProto(name="mlengine/example.proto", package="mlengine", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    repeated, optional, message = field.LABEL_REPEATED, field.LABEL_OPTIONAL, field.TYPE_MESSAGE
    for name, kind in (
        ("BytesList", field.TYPE_BYTES),
        ("FloatList", field.TYPE_FLOAT),
        ("Int64List", field.TYPE_INT64),
    ):
        proto.message_type.add(name=name).field.add(name="value", number=1, label=repeated, type=kind)
    feature = proto.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        kind_name = ".mlengine." + name.title().replace("_", "")
        feature.field.add(name=name, number=number, label=optional, type=message, type_name=kind_name, oneof_index=0)
    features = proto.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=optional, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=optional, type=message, type_name=".mlengine.Feature")
    features.field.add(
        name="feature", number=1, label=repeated, type=message, type_name=".mlengine.Features.FeatureEntry"
    )
    example = proto.message_type.add(name="Example")
    example.field.add(name="features", number=1, label=optional, type=message, type_name=".mlengine.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mlengine.Example"))


def _field(name: str, rows: list[dict[str, tuple[str, list[Any]]]], dtype: str | None, where: str) -> pa.Field:
    import pyarrow as pa

    kinds = {row[name][0] for row in rows if name in row}
    if len(kinds) > 1:
        raise DatasetError(
            f"{where}: the feature {name!r} is of several kinds: {', '.join(sorted(kinds))}",
            hint="write a feature as the same kind of list in each row",
        )
    kind = kinds.pop()
    lengths = {len(row[name][1]) for row in rows if name in row}
    values = [value for row in rows if name in row for value in row[name][1]]
    types = {"int64_list": pa.int64(), "float_list": pa.float32(), "bytes_list": _text_or_bytes(values)}
    value = scalar_type(dtype) if dtype else types[kind]
    nullable = any(name not in row for row in rows) or 0 in lengths
    longest = max(lengths)
    if longest <= 1:
        return pa.field(name, value, nullable)
    return pa.field(name, pa.list_(value, longest) if len(lengths - {0}) == 1 else pa.list_(value), nullable)


def _text_or_bytes(values: list[Any]) -> pa.DataType:
    import pyarrow as pa

    try:
        return pa.string() if all(value.decode().isprintable() for value in values) else pa.binary()
    except (UnicodeDecodeError, AttributeError):
        return pa.binary()


def _check_names(rows: list[dict[str, tuple[str, list[Any]]]], schema: pa.Schema, where: str) -> None:
    """Check that rows have no unknown features.

    :raises DatasetError: a row has a feature that the first rows do not have.
    """
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise DatasetError(
            f"{where}: a row has features that the first rows do not have: {', '.join(sorted(unknown))}",
            hint="write every feature in the first rows too, if only as an empty list",
        )


def _batch(rows: list[dict[str, tuple[str, list[Any]]]], schema: pa.Schema, where: str) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = []
    for field in schema:
        values: list[Any] = [row.get(field.name, ("", None))[1] for row in rows]
        if not pa.types.is_list(field.type):
            size = field.type.list_size if pa.types.is_fixed_size_list(field.type) else 1
            wrong = next((value for value in values if value and len(value) != size), None)
            if wrong is not None:
                raise DatasetError(
                    f"{where}: the feature {field.name!r} has {len(wrong)} values in a row, {size} in the first rows",
                    hint="write as many values in each row",
                )
            if not pa.types.is_fixed_size_list(field.type):
                values = [value[0] if value else None for value in values]
            else:
                values = [value or None for value in values]
        try:
            arrays.append(_array(values, field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{where}: the feature {field.name!r} is not {field.type} in each row: {error}",
                hint=f"set its type when the version is registered: --dtype {field.name}=TYPE",
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_string(kind):
        values = [None if value is None else value.decode() for value in values]
    return pa.array(values, kind)


FORMAT = TfRecord()

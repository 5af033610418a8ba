"""The objects (shards) of the job index. The hash of model and job id determines the object that has a job's row. Each
object is compressed JSON with columns.

Each change reads one object and writes it conditionally. Therefore, writers never lose each other's rows, and a writer
that dies leaves the object unchanged. The number of objects is fixed. There are enough of them that jobs that end at
the same time rarely write to the same object, and few enough that a server reads all of them at once.
"""

from __future__ import annotations

import gzip
import json
import logging
import random
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mlengine.core import layout
from mlengine.core.errors import ObjectMissingError, StorageConflictError
from mlengine.job_index.rows import Row, from_columns, to_columns
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

FORMAT = 1
SHARDS = 16
ATTEMPTS = 6  # maximum number of attempts of a write, if other processes write the same object
_FIRST_PAUSE = 0.05  # maximum of the random pause after the first attempt, in seconds; doubled for each attempt
_CLOCK_SKEW = 3600.0  # seconds; a row with a time further in the future is invalid
_MAX_BYTES = 64 << 20  # maximum size of an uncompressed object; a larger one is invalid

Key = tuple[str, str]  # model and job id
Change = Callable[[Mapping[Key, Row]], Mapping[Key, Row | None]]


@dataclass
class Shard:
    """One object of the index, as it was read.

    :param generation: the object's generation; 0 if the object does not exist.
    :param newer: whether a newer version of mlengine wrote the object. Such an object is neither read nor replaced.
    """

    generation: int = 0
    rows: dict[Key, Row] = field(default_factory=dict)
    newer: bool = False


def number_of(model: str, job_id: str) -> int:
    """The number of the object that contains the job's row."""
    return zlib.crc32(f"{model}/{job_id}".encode()) % SHARDS


def load(storage: Storage, bucket: str, number: int) -> Shard:
    """Read one object. A missing or invalid object has no rows.

    Rows that mlengine cannot have written to this object are ignored, because others can also write to the bucket.
    """
    uri = layout.job_index_shard(bucket, number)
    try:
        data, generation = storage.read_with_generation(uri)
    except ObjectMissingError:
        return Shard()
    try:
        shard = _decode(data, generation)
        latest = time.time() + _CLOCK_SKEW
        shard.rows = {key: row for key, row in shard.rows.items() if number_of(*key) == number and row.seen <= latest}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, RecursionError, zlib.error) as error:
        log.warning("Ignoring an invalid part of the job index: %s: %r", uri, error)
        return Shard(generation)
    return shard


def update(storage: Storage, bucket: str, number: int, change: Change) -> Shard | None:
    """Change rows of one object.

    The object is read, and written if no other process has written it in the meantime. Otherwise, both are repeated.

    :param change: receives the current rows and returns the rows to change, where ``None`` deletes a row. If it returns
        no rows, nothing is written.
    :returns: the new content; ``None`` if a newer version of mlengine wrote the object.
    :raises StorageConflictError: other processes wrote the object first in all :data:`ATTEMPTS` attempts.
    """
    uri = layout.job_index_shard(bucket, number)
    pause = _FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        shard = load(storage, bucket, number)
        if shard.newer:
            return None
        changes = change(shard.rows)
        if not changes:
            return shard
        for key, row in changes.items():
            if row is None:
                shard.rows.pop(key, None)
            else:
                shard.rows[key] = row
        data = encode(shard.rows)
        try:
            shard.generation = (
                storage.replace(uri, data, shard.generation) if shard.generation else storage.create(uri, data)
            )
        except StorageConflictError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(random.uniform(0.0, pause))  # noqa: S311 not for cryptography
            pause *= 2
        else:
            return shard
    raise AssertionError("unreachable")


def merged(old: Row | None, new: Row) -> Row:
    """The newer of two rows of a job. If it does not have the user, the user is copied from the older row."""
    if old is None:
        return new
    newest, other = (old, new) if old.version > new.version else (new, old)
    same_run = (newest.dag_id, newest.run_id) == (other.dag_id, other.run_id)
    return newest._replace(by=other.by) if not newest.by and same_run else newest


def encode(rows: Mapping[Key, Row]) -> bytes:
    """Encode rows as the content of an object."""
    content = {"format": FORMAT, "columns": to_columns(rows.values())}
    return gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 5, mtime=0)


def _decode(data: bytes, generation: int) -> Shard:
    """Decode the content of an object.

    :raises ValueError: the content is invalid.
    """
    unpacker = zlib.decompressobj(wbits=31)
    text = unpacker.decompress(data, _MAX_BYTES)
    if not unpacker.eof:
        raise ValueError("truncated or too large")
    content = json.loads(text)
    if isinstance(content["format"], int) and content["format"] > FORMAT:
        return Shard(generation, newer=True)
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r}")
    return Shard(generation, {(row.model, row.job_id): row for row in from_columns(content["columns"])})

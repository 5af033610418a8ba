"""The objects of the job index: rows by the hash of model and job id, each object compressed JSON with columns.

Every change is a read and a conditional write of one object. So writers never lose each other's rows, and a writer that
dies leaves the object as it was. The number of objects is constant: many jobs that end together rarely write the same
object, and a server reads all of them at once.
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
ATTEMPTS = 6  # of a write, if other processes write the same object
_FIRST_PAUSE = 0.05  # seconds, at random up to this; doubled for each attempt
_CLOCK_SKEW = 3600.0  # seconds; a row that was read later than this is not valid
_MAX_BYTES = 64 << 20  # of an uncompressed object; a larger one is invalid

Key = tuple[str, str]  # model and job id
Change = Callable[[Mapping[Key, Row]], Mapping[Key, Row | None]]


@dataclass
class Shard:
    """One object of the index as it was read.

    :param generation: 0 if the object does not exist.
    :param newer: a newer version of mlengine wrote it. It is not read, and not replaced.
    """

    generation: int = 0
    rows: dict[Key, Row] = field(default_factory=dict)
    newer: bool = False


def number_of(model: str, job_id: str) -> int:
    """The number of the object that has the job's row."""
    return zlib.crc32(f"{model}/{job_id}".encode()) % SHARDS


def load(storage: Storage, bucket: str, number: int) -> Shard:
    """Read one object. A missing or invalid one has no rows.

    Rows that no writer can have written there are ignored: others may write to the bucket, too.
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
        log.warning("Ignoring the invalid job index %s: %r", uri, error)
        return Shard(generation)
    return shard


def update(storage: Storage, bucket: str, number: int, change: Change) -> Shard | None:
    """Change rows of one object: read, then write if no other process has written it since; else again.

    :param change: gets the present rows, and returns those that change; ``None`` deletes a row. If it returns none,
        nothing is written.
    :returns: the new content; ``None`` if a newer version of mlengine wrote the object.
    :raises StorageConflictError: other processes were faster, :data:`ATTEMPTS` times.
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
    """The newer of two rows of a job, with the user if only one of them has it."""
    if old is None:
        return new
    newest, other = (old, new) if old.version > new.version else (new, old)
    same_run = (newest.dag_id, newest.run_id) == (other.dag_id, other.run_id)
    return newest._replace(by=other.by) if not newest.by and same_run else newest


def encode(rows: Mapping[Key, Row]) -> bytes:
    """The content of an object."""
    content = {"format": FORMAT, "columns": to_columns(rows.values())}
    return gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 5, mtime=0)


def _decode(data: bytes, generation: int) -> Shard:
    """:raises ValueError: the content is invalid."""
    unpacker = zlib.decompressobj(wbits=31)
    text = unpacker.decompress(data, _MAX_BYTES)
    if not unpacker.eof:
        raise ValueError("truncated, or too large")
    content = json.loads(text)
    if isinstance(content["format"], int) and content["format"] > FORMAT:
        return Shard(generation, newer=True)
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r}")
    return Shard(generation, {(row.model, row.job_id): row for row in from_columns(content["columns"])})

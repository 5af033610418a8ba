"""Champions and their histories for the page, read in parallel and cached in memory.

Every viewer of the list of models requests all champions every few seconds. Therefore, a pointer is read at most once
in :data:`MAX_AGE` seconds. Entries of a history never change, so each is read once. Permissions do not depend on this
cache.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from mlengine.champions import history
from mlengine.champions.history import Champion
from mlengine.core import layout
from mlengine.core.errors import MlengineError
from mlengine.job_index.reading import INVALID
from mlengine.storage.client import Storage

MAX_AGE = 4.0  # seconds
_THREADS = 8
_CACHED = 2000  # maximum number of cached history entries
_NEVER = (float("-inf"), None)

Pointer = Champion | MlengineError | None
Item = TypeVar("Item")
Result = TypeVar("Result")


class Champions:
    """The champions that this process has read, by bucket and model."""

    def __init__(self) -> None:
        self._pointers: dict[tuple[str, str], tuple[float, Pointer]] = {}
        self._changes: Counter[tuple[str, str]] = Counter()
        self._entries: OrderedDict[tuple[str, str, int], Champion] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    def current(self, storage: Storage, bucket: str, models: Sequence[str]) -> dict[str, Pointer]:
        """The champion of each model, or the error with which reading it failed.

        :raises MlengineError: the bucket does not respond.
        """
        with self._reading:  # only one of several concurrent requests reads
            oldest = time.monotonic() - MAX_AGE
            with self._lock:
                known = {model: self._pointers.get((bucket, model), _NEVER) for model in models}
                changes = {model: self._changes[bucket, model] for model in models}
            stale = [model for model, (read_at, _) in known.items() if read_at < oldest]
            read = dict(zip(stale, _together(lambda model: _pointer(storage, bucket, model), stale), strict=True))
            with self._lock:
                for model, found in read.items():
                    if self._changes[bucket, model] == changes[model]:  # otherwise, it may be outdated
                        self._pointers[bucket, model] = (time.monotonic(), found)
            return {model: read.get(model, pointer) for model, (_, pointer) in known.items()}

    def changed(self, bucket: str, model: str) -> None:
        """Remove the champion of a model from the cache, because it has changed."""
        with self._lock:
            self._changes[bucket, model] += 1
            self._pointers.pop((bucket, model), None)

    def clear(self) -> None:
        """Clear the cache. Used by tests."""
        self._pointers.clear()
        self._changes.clear()
        self._entries.clear()

    def history(self, storage: Storage, bucket: str, model: str, limit: int) -> list[Champion]:
        """The newest ``limit`` champions, newest first.

        :raises PublishError: an entry is missing or invalid.
        """
        champion = history.current(storage, bucket, model)
        if champion is not None and champion.previous is not None:
            self._prefetch(storage, bucket, champion.model, champion.previous, limit)
        return list(islice(history.chain(storage, bucket, champion, self._entry), limit))

    def _prefetch(self, storage: Storage, bucket: str, model: str, newest: int, limit: int) -> None:
        """Read the entries in parallel, because following the chain would read them one after the other."""
        with self._lock:
            if (bucket, model, newest) in self._entries:
                return
        serials = [
            serial
            for stat in storage.ls(layout.champion_entries(bucket, model))
            if (serial := _serial(stat.uri)) is not None and serial <= newest
        ]
        wanted = sorted(serials, reverse=True)[:limit]

        def read(serial: int) -> None:
            try:
                self._entry(storage, bucket, model, serial)
            except MlengineError as error:
                if error.retryable:
                    raise
                # An entry that is not in the chain does not matter. For others, following the chain raises the error.

        _together(read, wanted)

    def _entry(self, storage: Storage, bucket: str, model: str, serial: int) -> Champion:
        key = (bucket, model, serial)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        found = history.entry(storage, bucket, model, serial)
        with self._lock:
            self._entries[key] = found
            while len(self._entries) > _CACHED:
                self._entries.popitem(last=False)
        return found


def _pointer(storage: Storage, bucket: str, model: str) -> Pointer:
    try:
        return history.current(storage, bucket, model)
    except MlengineError as error:
        if error.retryable:
            raise
        return error
    except INVALID as error:
        return MlengineError(f"champion.json is invalid: {error!r}")


def _serial(uri: str) -> int | None:
    name = uri.rpartition("/")[2].removesuffix(".json")
    return int(name) if name.isascii() and name.isdigit() else None


def _together(read: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    if len(items) <= 1:
        return list(map(read, items))
    with ThreadPoolExecutor(min(_THREADS, len(items)), thread_name_prefix="mlengine-champions") as pool:
        return list(pool.map(read, items))

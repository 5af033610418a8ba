"""Operations on buckets that tests need and the product does not have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mlengine.storage.client import Storage


def delete_below(storage: Storage, folder: str) -> int:
    """Delete everything in a folder and return the number of deleted objects."""
    stats = storage.ls(folder.rstrip("/") + "/")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda stat: storage.delete(stat.uri), stats))
    return len(stats)

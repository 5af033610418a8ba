"""What tests do to buckets and the product does not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mlengine.storage.client import Storage


def delete_below(storage: Storage, folder: str) -> int:
    """Delete everything in a folder; returns how many objects there were."""
    stats = storage.ls(folder.rstrip("/") + "/")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda stat: storage.delete(stat.uri), stats))
    return len(stats)

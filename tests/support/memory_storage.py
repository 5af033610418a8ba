"""The storage methods that creating a job needs, with objects in memory."""

from __future__ import annotations

from mlengine.storage.client import ObjectStat


class MemoryStorage:
    """The objects of a bucket, by URI."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def exists(self, uri: str) -> bool:
        return uri in self.objects

    def stat(self, uri: str) -> ObjectStat | None:
        return ObjectStat(uri, len(self.objects[uri]), 1) if uri in self.objects else None

    def ls(self, prefix: str) -> list[ObjectStat]:
        return [ObjectStat(uri, len(data), 1) for uri, data in sorted(self.objects.items()) if uri.startswith(prefix)]

    def create(self, uri: str, data: bytes) -> None:
        assert uri not in self.objects
        self.objects[uri] = data

"""Tests the fast path for small objects with a real server: the same results as the library, with less overhead."""

from __future__ import annotations

import pytest

from mlengine.core.errors import ObjectMissingError
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration


def test_an_object_is_written_and_read(storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"{bucket}/m/j/logs/a b%2F?#ü.json"
    storage.write_small(uri, b'{"a": 1}')
    assert storage.read(uri) == b'{"a": 1}'
    stat = storage.stat(uri)
    assert stat is not None
    assert stat.size == 8
    storage.write(uri, b'{"a": 22}')
    monkeypatch.delattr(Storage, "read_with_generation")
    assert storage.read_small(uri) == b'{"a": 22}'
    with pytest.raises(ObjectMissingError):
        storage.read_small(f"{bucket}/m/j/logs/none.json")


def test_failed_requests_fall_back_to_the_client_library(storage: Storage, bucket: str) -> None:
    uri = f"{bucket}/m/j/logs/cursor.json"
    small = storage._small_objects()
    small._server = "http://127.0.0.1:9"
    assert small.read("b", "p") is None
    assert small.write("b", "p", b"x", "text/plain") is False
    storage.write_small(uri, b"x")
    assert storage.read_small(uri) == b"x"
    again = Storage()._small_objects()
    assert again.write("no-such-bucket-here", "p", b"x", "text/plain") is False


def test_requests_behind_a_proxy_use_the_client_library(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    small = Storage()._small_objects()
    assert small.read(bucket.removeprefix("gs://"), "p") is None
    assert small._open() is None

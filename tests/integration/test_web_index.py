"""Tests the page's index on a real bucket: restarts, damaged objects, and the cost of a view."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlengine.core import layout
from mlengine.core.layout import JobDir
from mlengine.job_index import bucket_rows, shards
from mlengine.job_index.bucket_rows import BucketRows
from mlengine.storage.client import Storage
from mlengine.web import index, routes
from mlengine.web.index import Index
from tests.support.buckets import delete_below
from tests.support.sample_jobs import BACKEND, SampleJobs

pytestmark = pytest.mark.integration


def test_a_restarted_server_reads_the_index_and_not_the_jobs(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_jobs.many(30)
    client = visit()
    first = client.get("api/jobs?limit=200").json()
    assert first["total"] == 30
    routes._index().refresh()  # writes the index
    routes.clear_caches()
    reads: list[str] = []
    real = Storage.read_with_generation

    def counted(self: Storage, uri: str) -> tuple[bytes, int]:
        reads.append(uri)
        return real(self, uri)

    monkeypatch.setattr(Storage, "read_with_generation", counted)
    assert client.get("api/jobs?limit=200").json()["jobs"] == first["jobs"]
    routes._index().refresh()
    assert {uri.rsplit("/", 2)[1] for uri in reads} == {layout.JOB_INDEX}
    assert len(reads) <= shards.SHARDS, "an object of the index was read twice, although it has not changed"


@pytest.mark.parametrize("content", [b"{", b"\x1f\x8b", shards.encode({})[:-4], b"", gzip.compress(b"[" * 200_000)])
def test_a_damaged_index_is_replaced(sample_jobs: SampleJobs, visit: Callable[..., TestClient], content: bytes) -> None:
    sample_jobs.job("mnist_1")
    for number in range(shards.SHARDS):
        sample_jobs.storage.write(layout.job_index_shard(sample_jobs.bucket, number), content)
    assert [job["job_id"] for job in visit().get("api/jobs").json()["jobs"]] == ["mnist_1"]
    routes._index().refresh()
    found = shards.load(sample_jobs.storage, sample_jobs.bucket, shards.number_of("mnist", "mnist_1"))
    assert list(found.rows) == [("mnist", "mnist_1")]


def test_an_index_of_a_newer_version_is_neither_read_nor_replaced(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    sample_jobs.job("mnist_1")
    uri = layout.job_index_shard(sample_jobs.bucket, shards.number_of("mnist", "mnist_1"))
    content = gzip.compress(b'{"format": 99}')
    sample_jobs.storage.write(uri, content)
    assert [job["job_id"] for job in visit().get("api/jobs").json()["jobs"]] == ["mnist_1"]
    routes._index().refresh()
    assert sample_jobs.storage.read(uri) == content


def test_a_new_server_shows_jobs_while_it_reads_the_rest(
    sample_jobs: SampleJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without stored rows, the first listing of a thousand jobs takes longer than a user would wait."""
    for at in range(12):
        sample_jobs.job(f"mnist_{at:02}")
    go_on = threading.Event()
    parts: list[int] = []
    real = BucketRows._read_batch

    def slow(self: BucketRows, keys: Sequence[Any], pool: Any) -> None:
        if parts:
            assert go_on.wait(30)
        parts.append(len(keys))
        real(self, keys, pool)

    monkeypatch.setattr(bucket_rows, "BATCH", 5)
    monkeypatch.setattr(BucketRows, "_read_batch", slow)
    asked = Index(sample_jobs.storage, sample_jobs.bucket, lambda _: BACKEND)
    view = asked.view()
    assert (len(view.rows), view.at) == (5, None)
    go_on.set()
    with asked._refreshing:
        assert (len(asked._view.rows), parts) == (12, [5, 5, 2])


def test_a_stale_list_is_refreshed_when_it_is_viewed(sample_jobs: SampleJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Index(sample_jobs.storage, sample_jobs.bucket, lambda _: BACKEND)
    assert asked.view().rows == ()
    sample_jobs.job("mnist_1")
    assert asked.view().rows == (), "the bucket was listed just now"
    monkeypatch.setattr(index, "REFRESH_INTERVAL", 0.0)
    monkeypatch.setattr(index, "STALE", 0.0)
    monkeypatch.setattr(index, "_STALE_WAIT", 60.0)
    assert [row.job_id for row in asked.view().rows] == ["mnist_1"]


def test_text_that_utf_8_cannot_encode_does_not_hide_a_job(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient]
) -> None:
    sample_jobs.job("mnist_1")
    broken = sample_jobs.job("mnist_2")
    raw = json.loads(sample_jobs.storage.read(broken.claim))
    changed = {**raw, "inputs": {"dataset": {"version": "\ud800x"}}}
    sample_jobs.storage.write(broken.claim, json.dumps(changed).encode())
    found = {job["job_id"]: job["dataset"] for job in visit().get("api/jobs").json()["jobs"]}
    assert found == {"mnist_1": found["mnist_1"], "mnist_2": "\ud800x"}
    assert visit().get("api/jobs/mnist/mnist_2").status_code == 200


def test_one_damaged_job_does_not_hide_the_others(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    sample_jobs.job("mnist_1")
    raw = json.loads(sample_jobs.storage.read(JobDir.of(sample_jobs.bucket, "mnist", "mnist_1").claim))
    shown: list[dict[str, Any]] = [
        {"history": [{"time": "now"}]},
        {"history": [{"time": 1e999}]},
        {"history": [{"time": 10**400}]},
        {"history": [{"time": float("nan")}]},
        {"history": [{"time": 1e15}]},
        {"inputs": {"dataset": 7}},
        {"spec": {"pools": [{"role": 7}]}},
    ]
    hidden: list[dict[str, Any]] = [{"backend": []}, {"name": 5}, {"owner": "x"}, {"attempt": "many"}]
    for at, change in enumerate([*shown, *hidden]):
        broken = sample_jobs.job(f"broken_{at:02}")
        sample_jobs.storage.write(broken.claim, json.dumps({**raw, **change}).encode())
    sample_jobs.storage.write(JobDir.of(sample_jobs.bucket, "mnist", "mnist_3").claim, b"\xff{")
    found = {job["job_id"]: job["state"] for job in visit().get("api/jobs").json()["jobs"]}
    assert found.pop("mnist_1") == "SUCCEEDED"
    # The spec is only needed for the price of the machines, which this backend does not have.
    assert found.pop("broken_06") == "SUCCEEDED"
    assert found == {f"broken_{at:02}": "UNKNOWN" for at in range(len(shown) - 1)}


def test_a_deleted_job_disappears_from_the_list(sample_jobs: SampleJobs, visit: Callable[..., TestClient]) -> None:
    sample_jobs.job("mnist_1")
    gone = sample_jobs.job("mnist_2")
    client = visit()
    assert client.get("api/jobs").json()["total"] == 2
    delete_below(sample_jobs.storage, gone.uri)
    routes._index().refresh()
    assert client.get("api/jobs").json()["total"] == 1


def test_an_unavailable_bucket_is_reported(
    sample_jobs: SampleJobs, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", "gs://there-is-no-such-bucket")
    found = visit().get("api/jobs").json()
    assert "no bucket" in found["error"]
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", "")
    routes.clear_caches()
    answer = visit().get("api/jobs")
    assert answer.status_code == 400
    assert "AIRFLOW__MLENGINE__BUCKET" in answer.json()["hint"]

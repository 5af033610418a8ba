"""The page's index on a real bucket: restarts, damage, and what a view costs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlengine.core.layout import JobDir, jobs_index
from mlengine.storage.client import Storage
from mlengine.web import index, routes
from mlengine.web.index import Index
from tests.integration.page_lab import BACKEND, Lab
from tests.integration.page_server import lab, visit
from tests.support.buckets import delete_below

pytestmark = pytest.mark.integration
__all__ = ["lab", "visit"]


def test_a_restarted_server_reads_the_index_and_not_the_jobs(
    lab: Lab, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.many(30)
    client = visit()
    first = client.get("api/jobs?limit=200").json()
    assert first["total"] == 30
    assert lab.storage.exists(jobs_index(lab.bucket, "mnist"))
    routes.clear_caches()
    reads: list[str] = []
    real = Storage.read

    def counted(self: Storage, uri: str) -> bytes:
        reads.append(uri)
        return real(self, uri)

    monkeypatch.setattr(Storage, "read", counted)
    second = client.get("api/jobs?limit=200").json()
    keep = ("job_id", "state", "verdict", "accuracy", "final")
    assert [[job[name] for name in keep] for job in second["jobs"]] == [
        [job[name] for name in keep] for job in first["jobs"]
    ]
    assert len([uri for uri in reads if uri.endswith("job.json")]) <= 5
    reads.clear()
    for _ in range(5):
        client.get("api/jobs")
    assert len([uri for uri in reads if uri.endswith("job.json")]) <= 5, "views read the bucket"


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"format": 2, "rows": [{"state": "DONE"}]}', b'{"format": 9, "rows": []}']
)
def test_a_damaged_index_is_made_anew(lab: Lab, visit: Callable[..., TestClient], content: bytes) -> None:
    lab.job("mnist_1")
    lab.storage.write(jobs_index(lab.bucket, "mnist"), content)
    assert [job["job_id"] for job in visit().get("api/jobs").json()["jobs"]] == ["mnist_1"]
    assert json.loads(lab.storage.read(jobs_index(lab.bucket, "mnist")))["rows"][0]["job_id"] == "mnist_1"


def test_a_server_that_knows_nothing_yet_shows_what_it_has(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without kept rows, a first look at a thousand jobs takes longer than a person waits."""
    for at in range(12):
        lab.job(f"mnist_{at:02}")
    go_on = threading.Event()
    parts: list[int] = []
    real = Index._read_batch

    def slow(self: Index, uris: Sequence[str], pool: Any) -> None:
        if parts:
            assert go_on.wait(30)
        parts.append(len(uris))
        real(self, uris, pool)

    monkeypatch.setattr(index, "BATCH", 5)
    monkeypatch.setattr(Index, "_read_batch", slow)
    asked = Index(lab.storage, lab.bucket, lambda _: BACKEND)
    view = asked.view()
    assert (len(view.rows), view.at) == (5, None)
    go_on.set()
    with asked._refreshing:
        assert (len(asked._view.rows), parts) == (12, [5, 5, 2])


def test_who_comes_back_after_a_while_sees_what_is_now(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Index(lab.storage, lab.bucket, lambda _: BACKEND)
    assert asked.view().rows == ()
    lab.job("mnist_1")
    assert asked.view().rows == (), "a look was taken just now"
    monkeypatch.setattr(index, "REFRESH_INTERVAL", 0.0)
    monkeypatch.setattr(index, "STALE", 0.0)
    monkeypatch.setattr(index, "_STALE_WAIT", 60.0)
    assert [row.job_id for row in asked.view().rows] == ["mnist_1"]


def test_one_damaged_job_does_not_hide_the_others(lab: Lab, visit: Callable[..., TestClient]) -> None:
    lab.job("mnist_1")
    broken = lab.job("mnist_2")
    raw = json.loads(lab.storage.read(broken.claim))
    lab.storage.write(broken.claim, json.dumps({**raw, "history": [{"time": "now"}], "attempt": "many"}).encode())
    lab.storage.write(JobDir.of(lab.bucket, "mnist", "mnist_3").claim, b"\xff{")
    found = {job["job_id"]: job["state"] for job in visit().get("api/jobs").json()["jobs"]}
    assert found == {"mnist_1": "SUCCEEDED", "mnist_2": "UNKNOWN"}


def test_a_removed_job_goes_from_the_list(lab: Lab, visit: Callable[..., TestClient]) -> None:
    lab.job("mnist_1")
    gone = lab.job("mnist_2")
    client = visit()
    assert client.get("api/jobs").json()["total"] == 2
    delete_below(lab.storage, gone.uri)
    routes._index().refresh()
    assert client.get("api/jobs").json()["total"] == 1


def test_a_bucket_that_does_not_answer_is_said(
    lab: Lab, visit: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", "gs://there-is-no-such-bucket")
    found = visit().get("api/jobs").json()
    assert "no bucket" in found["error"]
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", "")
    routes.clear_caches()
    answer = visit().get("api/jobs")
    assert answer.status_code == 400
    assert "AIRFLOW__MLENGINE__BUCKET" in answer.json()["hint"]

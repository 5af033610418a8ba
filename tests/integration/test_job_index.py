"""Tests the job index on a real bucket: its writers, and the servers that add what it lacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import requests

from mlengine.core import layout
from mlengine.core.errors import StorageConflictError
from mlengine.core.job import JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.job_index import bucket_rows, shards
from mlengine.job_index.recording import record_end, record_report
from mlengine.job_index.rows import Row
from mlengine.storage.client import Storage
from mlengine.storage.small_objects import SmallObjects
from mlengine.validation.report import load_report
from mlengine.web.index import Index
from tests.support.buckets import delete_below
from tests.support.sample_jobs import BACKEND, NOW, SampleJobs

pytestmark = pytest.mark.integration

DAY = 86_400.0


@pytest.fixture
def requests_sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs of all HTTP requests of the client."""
    sent: list[str] = []
    real = requests.Session.send

    def counted(self: requests.Session, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        sent.append(f"{request.method} {request.url}")
        return real(self, request, **kwargs)

    small = SmallObjects.read

    def counted_small(self: SmallObjects, bucket: str, path: str) -> bytes | None:
        sent.append(f"GET {path}")
        return small(self, bucket, path)

    monkeypatch.setattr(requests.Session, "send", counted)
    monkeypatch.setattr(SmallObjects, "read", counted_small)
    return sent


@pytest.fixture
def dirs_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the jobs whose ``job.json`` was read."""
    read: list[str] = []
    real = Storage.read_with_generation

    def counted(self: Storage, uri: str) -> tuple[bytes, int]:
        if uri.endswith("/job.json"):
            read.append(uri.split("/")[-2])
        return real(self, uri)

    monkeypatch.setattr(Storage, "read_with_generation", counted)
    return read


def new_server(sample_jobs: SampleJobs) -> Index:
    return Index(sample_jobs.storage, sample_jobs.bucket, lambda _: BACKEND)


def end(sample_jobs: SampleJobs, job_dir: JobDir, storage: Storage | None = None) -> None:
    """Write the row as the wait does."""
    record = JobRecord.from_bytes(sample_jobs.storage.read(job_dir.claim))
    handle = record.handle(job_dir.uri)
    assert handle is not None
    record_end(storage or sample_jobs.storage, sample_jobs.bucket, BACKEND, BACKEND.describe([handle])[0])


def validated(sample_jobs: SampleJobs, job_dir: JobDir, storage: Storage | None = None) -> None:
    """Write the row as the validation does after the report."""
    record_report(storage or sample_jobs.storage, sample_jobs.bucket, load_report(sample_jobs.storage, job_dir))


def stored(sample_jobs: SampleJobs) -> dict[str, Row]:
    found = [shards.load(sample_jobs.storage, sample_jobs.bucket, number) for number in range(shards.SHARDS)]
    return {row.job_id: row for shard in found for row in shard.rows.values()}


def without_times(row: Row) -> Row:
    return row._replace(seen=0.0)


def test_the_first_list_of_a_new_server_reads_no_jobs(sample_jobs: SampleJobs, dirs_read: list[str]) -> None:
    """The list is complete without any earlier server: the tasks that ended and validated the jobs wrote the rows."""
    for at, state in enumerate((JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)):
        job_dir = sample_jobs.job(f"mnist_{at}", state=state)
        end(sample_jobs, job_dir)
        if state is JobState.SUCCEEDED:
            validated(sample_jobs, job_dir)
    sample_jobs.job("mnist_8", state=JobState.RUNNING)
    dirs_read.clear()
    view = new_server(sample_jobs).refresh()
    assert dirs_read == ["mnist_8"]
    states = {row.job_id: (row.state, row.verdict) for row in view.rows}
    assert states == {
        "mnist_0": ("SUCCEEDED", "accepted"),
        "mnist_1": ("FAILED", ""),
        "mnist_2": ("CANCELLED", ""),
        "mnist_8": ("RUNNING", ""),
    }
    for number in range(shards.SHARDS):
        sample_jobs.storage.delete(layout.job_index_shard(sample_jobs.bucket, number))
    read = new_server(sample_jobs).refresh()
    assert list(map(without_times, read.rows)) == list(map(without_times, view.rows)), "a writer and a reader differ"


def test_writing_a_row_takes_few_requests(sample_jobs: SampleJobs, requests_sent: list[str]) -> None:
    job_dir = sample_jobs.job("mnist_1")
    record = JobRecord.from_bytes(sample_jobs.storage.read(job_dir.claim))
    report, status = load_report(sample_jobs.storage, job_dir), BACKEND.describe([record.handle(job_dir.uri)])[0]  # type: ignore[list-item]
    requests_sent.clear()
    record_end(sample_jobs.storage, sample_jobs.bucket, BACKEND, status)
    assert len(requests_sent) == 4, requests_sent
    requests_sent.clear()
    record_report(sample_jobs.storage, sample_jobs.bucket, report)
    assert len(requests_sent) == 3, requests_sent
    assert stored(sample_jobs)["mnist_1"].verdict == "accepted"


def test_a_job_dir_outside_the_listed_bucket_has_no_row(sample_jobs: SampleJobs, requests_sent: list[str]) -> None:
    job_dir = sample_jobs.job("mnist_1")
    report = load_report(sample_jobs.storage, job_dir)
    requests_sent.clear()
    for bucket in ("gs://another-bucket", f"{sample_jobs.bucket}/prefix"):
        record_report(sample_jobs.storage, bucket, report)
    record_report(sample_jobs.storage, sample_jobs.bucket, replace(report, job_dir=f"{sample_jobs.bucket}/a/b/mnist_1"))
    assert requests_sent == []


class DiesAt(Storage):
    """Simulates a killed process: fails at the given call, before or after it takes effect, and at all later calls."""

    def __init__(self, storage: Storage, call: int, *, after: bool) -> None:
        super().__init__(lambda: storage.client)
        self.left, self._after = call, after

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self._after):
            raise RuntimeError("killed")
        result = method(*args)
        if self.left == 0:
            raise RuntimeError("killed")
        return result

    def read_with_generation(self, uri: str) -> tuple[bytes, int]:
        return tuple(self._call(super().read_with_generation, uri))

    def read_small(self, uri: str) -> bytes:
        return bytes(self._call(super().read_small, uri))

    def stat(self, uri: str) -> Any:
        return self._call(super().stat, uri)

    def create(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        return int(self._call(super().create, uri, data, content_type))

    def replace(self, uri: str, data: bytes, generation: int, content_type: str | None = None) -> int:
        return int(self._call(super().replace, uri, data, generation, content_type))


@pytest.mark.parametrize("after", [False, True])
def test_a_writer_killed_at_any_request_leaves_a_correct_list(sample_jobs: SampleJobs, after: bool) -> None:
    began = time.time() - 30 * DAY  # long ago, so that no row is read again because it may change
    died = 0
    for writer, calls in ((end, 4), (validated, 3)):
        for call in range(1, calls + 1):
            job_dir = sample_jobs.job(f"mnist_{writer.__name__}_{call}", began=began)
            if writer is validated:
                # The wait has written its row, and the report was written afterwards.
                sample_jobs.storage.delete(job_dir.report)
                end(sample_jobs, job_dir)
                sample_jobs.job(job_dir.job_id, began=began)
                end_row = stored(sample_jobs)[job_dir.job_id]
                assert end_row.verdict == ""
            dying = DiesAt(sample_jobs.storage, call, after=after)
            writer(sample_jobs, job_dir, dying)
            died += dying.left <= 0
    assert died == 7, "a writer makes fewer requests than this test expects"
    view = new_server(sample_jobs).refresh()
    assert {(row.state, row.verdict) for row in view.rows} == {("SUCCEEDED", "accepted")}
    assert len(view.rows) == 7
    assert {row.verdict for row in stored(sample_jobs).values()} == {"accepted"}, "the index was not repaired"
    assert len(stored(sample_jobs)) == 7


def test_concurrent_ends_of_many_jobs_are_all_indexed(sample_jobs: SampleJobs) -> None:
    dirs = [sample_jobs.job(f"mnist_{at:02}") for at in range(48)]
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda job_dir: end(sample_jobs, job_dir), dirs))
        list(pool.map(lambda job_dir: validated(sample_jobs, job_dir), dirs))
    found = stored(sample_jobs)
    # Some writers may have given up after conflicts; a server adds their rows.
    assert len(found) >= 40
    new_server(sample_jobs).refresh()
    assert {row.verdict for row in stored(sample_jobs).values()} == {"accepted"}
    assert sorted(stored(sample_jobs)) == [f"mnist_{at:02}" for at in range(48)]


def test_concurrent_updates_of_one_object_are_not_lost(sample_jobs: SampleJobs) -> None:
    row = Row("m", "", "local", 1, "SUCCEEDED", NOW)
    ids = [job_id for at in range(2000) if shards.number_of("m", job_id := f"m_{at}") == 0]

    def add(at: int) -> str | None:
        mine = row._replace(job_id=ids[at])
        try:
            shards.update(sample_jobs.storage, sample_jobs.bucket, 0, lambda _: {("m", mine.job_id): mine})
        except StorageConflictError:
            return None
        return mine.job_id

    with ThreadPoolExecutor(12) as pool:
        done = {job_id for job_id in pool.map(add, range(36)) if job_id}
    assert {job_id for _, job_id in shards.load(sample_jobs.storage, sample_jobs.bucket, 0).rows} == done
    assert len(done) > 12


def test_a_running_server_reads_new_validations_from_the_index(sample_jobs: SampleJobs, dirs_read: list[str]) -> None:
    job_dir = sample_jobs.job("mnist_1")
    server = new_server(sample_jobs)
    assert server.refresh().rows[0].metric_value == 0.98
    sample_jobs.job("mnist_1", metric_value=0.99)
    validated(sample_jobs, job_dir)
    dirs_read.clear()
    assert server.refresh().rows[0].metric_value == 0.99
    assert dirs_read == []


def test_a_change_missing_in_the_index_is_found_by_listing(
    sample_jobs: SampleJobs, dirs_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(5):
        sample_jobs.job(f"mnist_{at}")
    running = new_server(sample_jobs)
    running.refresh()
    sample_jobs.job("mnist_3", metric_value=0.99)  # validated again by a version of mlengine without an index
    dirs_read.clear()
    assert [row.metric_value for row in running.refresh().rows] == [0.98] * 5, "checked just now"
    assert {row.metric_value for row in new_server(sample_jobs).refresh().rows} == {0.98, 0.99}
    assert dirs_read == ["mnist_3"]
    monkeypatch.setattr(bucket_rows, "CHECK_INTERVAL", 0.0)
    assert {row.metric_value for row in running.refresh().rows} == {0.98, 0.99}


def test_deleted_jobs_are_removed_from_the_list_and_the_index(
    sample_jobs: SampleJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_rows, "WRITE_INTERVAL", 0.0)
    gone, unclaimed = sample_jobs.job("mnist_1"), sample_jobs.job("mnist_2")
    sample_jobs.job("mnist_3")
    assert len(new_server(sample_jobs).refresh().rows) == 3
    delete_below(sample_jobs.storage, gone.uri)
    sample_jobs.storage.delete(unclaimed.claim)  # as by an interrupted `jobs prune` or a lifecycle rule
    monkeypatch.setattr(bucket_rows, "_SKEW", -60.0)  # as if the rows had been read minutes ago
    assert [row.job_id for row in new_server(sample_jobs).refresh().rows] == ["mnist_3"]
    assert sorted(stored(sample_jobs)) == ["mnist_1", "mnist_3"], "mnist_1 may have been listed too early"
    monkeypatch.setattr(bucket_rows, "_FORGET_AFTER", -60.0)
    assert [row.job_id for row in new_server(sample_jobs).refresh().rows] == ["mnist_3"]
    assert sorted(stored(sample_jobs)) == ["mnist_3"]


@pytest.mark.parametrize("deleted", ["claim", "report"])
def test_a_row_of_a_deleted_object_does_not_reappear(
    sample_jobs: SampleJobs, monkeypatch: pytest.MonkeyPatch, deleted: str
) -> None:
    """Another server that has not noticed the deletion writes the row again."""
    for name in ("WRITE_INTERVAL", "CHECK_INTERVAL"):
        monkeypatch.setattr(bucket_rows, name, 0.0)
    monkeypatch.setattr(bucket_rows, "_SKEW", -60.0)  # as if the rows had been read minutes ago
    job_dir = sample_jobs.job("mnist_1")
    server = new_server(sample_jobs)
    server.refresh()
    old = stored(sample_jobs)["mnist_1"]
    assert old.verdict == "accepted"
    key = ("mnist", "mnist_1")
    sample_jobs.storage.delete(getattr(job_dir, deleted))
    expected = {} if deleted == "claim" else {"mnist_1": ""}
    for _ in range(2):
        view = server.refresh()
        assert {row.job_id: row.verdict for row in view.rows} == expected
        assert {row.job_id: row.verdict for row in stored(sample_jobs).values()} == expected
        shards.update(sample_jobs.storage, sample_jobs.bucket, shards.number_of(*key), lambda _: {key: old})
    sample_jobs.job("mnist_1", metric_value=0.99)  # claimed and validated again
    monkeypatch.setattr(bucket_rows, "_UNCLAIMED_PAUSE", 0.0)
    assert [row.metric_value for row in server.refresh().rows] == [0.99]
    assert stored(sample_jobs)["mnist_1"].metric_value == 0.99


def test_the_newest_jobs_of_all_models_are_read_first(
    sample_jobs: SampleJobs, dirs_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_rows, "BATCH", 2)
    for model in ("a-model", "b"):
        for month in ("2026_09", "2026_10"):
            sample_jobs.job(f"{model.replace('-', '_')}_{month}_0a", model=model)
    new_server(sample_jobs).refresh()
    assert {job_id[-10:-3] for job_id in dirs_read[:2]} == {"2026_10"}


def test_a_missing_part_of_the_index_is_rebuilt_from_the_jobs(sample_jobs: SampleJobs, dirs_read: list[str]) -> None:
    """A lifecycle rule deletes the object of the index that has been unchanged for longest."""
    ids = [f"mnist_{at:02}" for at in range(20)]
    for job_id in ids:
        sample_jobs.job(job_id)
    new_server(sample_jobs).refresh()
    sample_jobs.storage.delete(layout.job_index_shard(sample_jobs.bucket, 3))
    dirs_read.clear()
    assert len(new_server(sample_jobs).refresh().rows) == 20
    assert sorted(dirs_read) == [job_id for job_id in ids if shards.number_of("mnist", job_id) == 3] != []
    assert sorted(stored(sample_jobs)) == ids


def test_an_unclaimed_dir_is_not_read_with_every_refresh(
    sample_jobs: SampleJobs, dirs_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_jobs.storage.write(f"{sample_jobs.bucket}/mnist/mnist_1/train/.keep", b"")
    server = new_server(sample_jobs)
    now = [time.time()]
    monkeypatch.setattr("mlengine.job_index.bucket_rows.time.time", lambda: now[0])
    server.refresh()
    server.refresh()
    assert len(dirs_read) == 2, "a new dir is read again because a job may claim it soon"
    for _ in range(60):
        now[0] += 20
        server.refresh()
    assert len(dirs_read) < 30
    sample_jobs.job("mnist_1")
    now[0] += 600
    assert [row.job_id for row in server.refresh().rows] == ["mnist_1"]


def test_users_are_searched_for_again_after_a_failed_query(
    sample_jobs: SampleJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_jobs.job("mnist_1", run_id="manual")
    queries: list[set[tuple[str, str]]] = []
    answers: list[dict[tuple[str, str], str] | None] = [None, {("mnist_retraining", "manual"): "ann"}]

    def people(runs: set[tuple[str, str]]) -> dict[tuple[str, str], str] | None:
        queries.append(runs)
        return answers[min(len(queries), 2) - 1]

    server = Index(sample_jobs.storage, sample_jobs.bucket, lambda _: BACKEND, people)
    assert [row.by for row in server.refresh().rows] == [""]
    assert len(queries) == 1, "the database is not queried again immediately"
    monkeypatch.setattr(bucket_rows, "_USERS_PAUSE", 0.0)
    assert [row.by for row in server.refresh().rows] == ["ann"]
    server.refresh()
    assert len(queries) == 2


def test_rows_are_written_immediately_if_many_jobs_were_read(sample_jobs: SampleJobs) -> None:
    """Otherwise the rows would be lost if the server or the command ended before the interval is over."""
    server = new_server(sample_jobs)
    server.refresh()
    sample_jobs.job("mnist_few")
    assert len(server.refresh().rows) == 1
    assert stored(sample_jobs) == {}, "few rows are written together"
    for at in range(bucket_rows.MANY):
        sample_jobs.job(f"mnist_{at}")
    server.refresh()
    assert len(stored(sample_jobs)) == bucket_rows.MANY + 1


def forge(sample_jobs: SampleJobs, row: Row, number: int | None = None) -> None:
    """Write a row into the index, as any account with write access can.

    :param number: the number of the index object; by default the one to which the row belongs.
    """
    number = shards.number_of(row.model, row.job_id) if number is None else number
    known = shards.load(sample_jobs.storage, sample_jobs.bucket, number).rows
    uri = layout.job_index_shard(sample_jobs.bucket, number)
    sample_jobs.storage.write(uri, shards.encode({**known, (row.model, row.job_id): row}))


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {"claim_generation": 2**62},
        {"report_generation": 2**62},
        {"seen": time.time() + 10 * 365 * DAY},
        {"claim_generation": -1, "report_generation": -1},
    ],
)
def test_a_forged_row_is_corrected(sample_jobs: SampleJobs, change: dict[str, Any], elsewhere: bool) -> None:
    """The row claims to be newer than the job's own objects: the job is read, and its row is corrected."""
    job_dir = sample_jobs.job("mnist_1")
    end(sample_jobs, job_dir)
    validated(sample_jobs, job_dir)
    right = stored(sample_jobs)["mnist_1"]
    number = (shards.number_of(right.model, right.job_id) + elsewhere) % shards.SHARDS
    forge(sample_jobs, right._replace(state="FAILED", verdict="rejected", dag_id="other", **change), number)
    server = new_server(sample_jobs)
    for _ in range(2):
        (row,) = server.refresh().rows
        assert (row.state, row.verdict, row.dag_id) == ("SUCCEEDED", "accepted", right.dag_id)
    (row,) = new_server(sample_jobs).refresh().rows
    assert (row.state, row.verdict, row.dag_id) == ("SUCCEEDED", "accepted", right.dag_id)
    belongs = shards.load(sample_jobs.storage, sample_jobs.bucket, shards.number_of("mnist", "mnist_1"))
    assert belongs.rows["mnist", "mnist_1"].state == "SUCCEEDED", "the index is right again"
    end(sample_jobs, sample_jobs.job("mnist_1", state=JobState.CANCELLED))
    assert {row.state for row in server.refresh().rows} == {"CANCELLED"}, "later changes are shown"

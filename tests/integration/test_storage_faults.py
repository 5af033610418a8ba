"""Tests the storage client during network and service failures: a real server behind a proxy that breaks requests."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlengine.core.errors import (
    BucketMissingError,
    ObjectMissingError,
    StorageConflictError,
    StorageError,
    StorageForbiddenError,
    StorageUnavailableError,
)
from mlengine.storage import retries
from mlengine.storage.client import ONE_REQUEST_BYTES, Storage
from mlengine.testing import faults, gcs
from tests.support.buckets import delete_below

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(retries, "LONGEST_PAUSE", 0.2)


@pytest.fixture
def proxy(gcs_server: gcs.GcsServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[faults.FaultProxy]:
    with faults.before(gcs_server.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


@pytest.fixture
def broken(proxy: faults.FaultProxy) -> Storage:
    """A client that uses the proxy; ``storage`` does not."""
    return Storage()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduces deadlines from minutes to seconds."""
    monkeypatch.setattr(retries, "DEADLINE", 1.0)


def test_a_lost_response_to_a_claim_is_not_a_conflict(
    storage: Storage, broken: Storage, proxy: faults.FaultProxy, bucket: str
) -> None:
    proxy.strike(faults.lose_answer(), "POST", "/upload/", body=b"job.json")
    generation = broken.create(f"{bucket}/m/job.json", b"mine")
    assert storage.read_with_generation(f"{bucket}/m/job.json") == (b"mine", generation)
    assert [one.code for one in proxy.seen("POST", "/upload/")] == [0, 412]
    with pytest.raises(StorageConflictError):
        broken.create(f"{bucket}/m/job.json", b"theirs")


def test_another_writer_between_a_lost_claim_and_its_retry_wins(
    storage: Storage, broken: Storage, proxy: faults.FaultProxy, bucket: str
) -> None:
    proxy.strike(faults.reset(), "POST", "/upload/", body=b"job.json")
    storage.create(f"{bucket}/m/job.json", b"theirs")
    with pytest.raises(StorageConflictError):
        broken.create(f"{bucket}/m/job.json", b"mine")
    assert storage.read(f"{bucket}/m/job.json") == b"theirs"


def test_a_lost_response_to_a_swap_is_not_a_conflict(
    storage: Storage, broken: Storage, proxy: faults.FaultProxy, bucket: str
) -> None:
    uri = f"{bucket}/m/champion.json"
    first = storage.create(uri, b"one")
    proxy.strike(faults.lose_answer(), "POST", "/upload/")
    second = broken.replace(uri, b"two", first)
    assert storage.read_with_generation(uri) == (b"two", second)
    with pytest.raises(StorageConflictError):
        broken.replace(uri, b"three", first)


CALLS: dict[str, Callable[[Storage, str], object]] = {
    "read": lambda storage, bucket: storage.read(f"{bucket}/there"),
    "write": lambda storage, bucket: storage.write(f"{bucket}/new", b"x"),
    "create": lambda storage, bucket: storage.create(f"{bucket}/new", b"x"),
    "stat": lambda storage, bucket: storage.stat(f"{bucket}/there"),
    "ls": lambda storage, bucket: storage.ls(f"{bucket}/"),
    "list_dirs": lambda storage, bucket: storage.list_dirs(f"{bucket}/"),
    "delete": lambda storage, bucket: storage.delete(f"{bucket}/there"),
}
PASSING = {
    "503": faults.status(503),
    "429": faults.status(429),
    "500": faults.status(500),
    "reset": faults.reset(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", PASSING)
def test_transient_faults_are_retried(
    storage: Storage, broken: Storage, proxy: faults.FaultProxy, bucket: str, call: str, fault: str
) -> None:
    storage.write(f"{bucket}/there", b"x")
    proxy.strike(PASSING[fault], times=2)
    CALLS[call](broken, bucket)
    assert len(proxy.requests) == 3


@pytest.mark.parametrize("call", CALLS)
def test_missing_permission_is_reported_immediately(
    broken: Storage, proxy: faults.FaultProxy, bucket: str, call: str
) -> None:
    proxy.strike(faults.status(403, b'{"error": {"message": "no storage.objects access"}}'))
    with pytest.raises(StorageForbiddenError, match=f"no permission for {bucket}") as caught:
        CALLS[call](broken, bucket)
    assert "storage.objectAdmin" in caught.value.hint
    assert len(proxy.requests) == 1


def test_rejected_credentials_are_reported(broken: Storage, proxy: faults.FaultProxy, bucket: str) -> None:
    proxy.strike(faults.status(401))
    with pytest.raises(StorageForbiddenError, match="no credentials"):
        broken.read(f"{bucket}/there")


def test_an_invalid_request_is_not_retried(broken: Storage, proxy: faults.FaultProxy, bucket: str) -> None:
    proxy.strike(faults.status(400, b'{"error": {"message": "Invalid argument."}}'))
    with pytest.raises(StorageError, match="rejected") as caught:
        broken.ls(f"{bucket}/")
    assert not caught.value.retryable


@pytest.mark.parametrize("call", CALLS)
def test_a_permanently_unavailable_service_is_an_error_at_the_deadline(
    soon: None, broken: Storage, gcs_server: gcs.GcsServer, bucket: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faults.before(gcs_server.url, strict=False) as away:
        away.strike(faults.status(503, b"overloaded"), times=1_000)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", away.url)
        with pytest.raises(StorageUnavailableError, match=r"did not respond for gs://.*503") as caught:
            CALLS[call](Storage(), bucket)
        assert caught.value.retryable
        assert len(away.requests) > 1


def test_a_request_without_a_response_times_out_and_is_retried(
    broken: Storage, proxy: faults.FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlengine.storage.client.ATTEMPT", (1.0, 0.5))
    for action in (faults.stall(60), faults.lose_answer()):
        proxy.strike(action, "POST", "/upload/")
    started = time.monotonic()
    broken.create(f"{bucket}/job.json", b"x")
    assert time.monotonic() - started < retries.DEADLINE / 4
    assert [one.fault for one in proxy.seen("POST")] == ["stall", "lose_answer", ""]


def test_a_deletion_with_a_lost_response_succeeds(
    storage: Storage, broken: Storage, proxy: faults.FaultProxy, bucket: str
) -> None:
    generation = storage.write(f"{bucket}/a", b"x")
    proxy.strike(faults.lose_answer(), "DELETE")
    broken.delete(f"{bucket}/a", generation)
    assert [one.code for one in proxy.seen("DELETE")] == [0, 404]
    assert not storage.exists(f"{bucket}/a")


@pytest.mark.parametrize("kind", ["cut", "503", "reset"])
def test_an_interrupted_download_resumes_and_is_complete(
    storage: Storage, broken: Storage, proxy: faults.FaultProxy, bucket: str, tmp_path: Path, kind: str
) -> None:
    content = bytes(range(256)) * (3 * MIB // 256)
    storage.write(f"{bucket}/big", content)
    action = {"cut": faults.cut_body(MIB), "503": faults.status(503), "reset": faults.reset()}[kind]
    proxy.strike(action, "GET", "/download/", times=2)
    broken.download(f"{bucket}/big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
    proxy.strike(action, "GET", "/download/", times=2)
    assert broken.read(f"{bucket}/big") == content


def test_a_failed_download_leaves_no_file(
    soon: None,
    storage: Storage,
    gcs_server: gcs.GcsServer,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage.write(f"{bucket}/big", bytes(2 * MIB))
    (tmp_path / "big").write_bytes(b"the old one")
    with faults.before(gcs_server.url, strict=False) as cutting:
        cutting.strike(faults.cut_body(1_000), "GET", "/download/", times=1_000)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", cutting.url)
        with pytest.raises(StorageUnavailableError):
            Storage().download(f"{bucket}/big", tmp_path / "big")
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
    assert (tmp_path / "big").read_bytes() == b"the old one"


def test_corruption_in_transit_is_detected(
    broken: Storage, proxy: faults.FaultProxy, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    storage.write(f"{bucket}/a", b"right")
    headers = {"x-goog-hash": "crc32c=AAAAAA==", "x-goog-generation": "1"}
    proxy.strike(faults.status(200, b"wrong", headers), "GET", "/download/")
    with pytest.raises(StorageUnavailableError, match="was corrupted in transit"):
        broken.download(f"{bucket}/a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_large_upload_resumes_after_a_fault(
    storage: Storage, broken: Storage, proxy: faults.FaultProxy, bucket: str, tmp_path: Path
) -> None:
    content = bytes(range(256)) * (ONE_REQUEST_BYTES // 256 + 1)  # large enough for an upload session
    (tmp_path / "big").write_bytes(content)
    proxy.strike(faults.status(503), "POST", "uploadType=resumable")
    proxy.strike(faults.status(503), "PUT")
    proxy.strike(faults.reset(), "PUT")
    broken.upload_once(tmp_path / "big", f"{bucket}/big")
    assert storage.read(f"{bucket}/big") == content
    broken.upload_once(tmp_path / "big", f"{bucket}/big")  # uploading the same content again is no error
    (tmp_path / "big").write_bytes(content[:-1] + b"?")
    with pytest.raises(StorageConflictError):
        broken.upload_once(tmp_path / "big", f"{bucket}/big")


def test_a_large_object_is_created_in_one_request_that_is_retried(
    storage: Storage, broken: Storage, proxy: faults.FaultProxy, bucket: str, tmp_path: Path
) -> None:
    content = bytes(range(256)) * (9 * MIB // 256)
    (tmp_path / "big").write_bytes(content)
    for fault in (faults.status(503), faults.reset(), faults.lose_answer()):
        proxy.strike(fault, "POST", "uploadType=multipart", times=2)
    generation = broken.create(f"{bucket}/created", content)
    broken.upload_once(tmp_path / "big", f"{bucket}/uploaded")
    assert storage.read_with_generation(f"{bucket}/created") == (content, generation)
    assert storage.read(f"{bucket}/uploaded") == content


def test_files_are_complete_after_transfer_over_a_bad_network(
    storage: Storage, broken: Storage, proxy: faults.FaultProxy, bucket: str, tmp_path: Path
) -> None:
    proxy.strike(faults.status(503), "POST", "/upload/", times=4)
    proxy.strike(faults.lose_answer(), "POST", "/upload/", times=3)
    proxy.strike(faults.cut_body(500), "GET", "/download/", times=4)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode() * 1_000)
        broken.upload(tmp_path / name, f"{bucket}/model/{name}")
        broken.download(f"{bucket}/model/{name}", tmp_path / "copy" / name)
        assert (tmp_path / "copy" / name).read_bytes() == name.encode() * 1_000
    assert [path.name for path in (tmp_path / "copy").iterdir() if path.name.startswith(".")] == []
    proxy.strike(faults.lose_answer(), "DELETE", times=4)
    assert delete_below(broken, f"{bucket}/model") == 3
    assert storage.ls(f"{bucket}/model/") == []


@pytest.mark.parametrize("call", CALLS)
def test_an_unreachable_server_is_reported_soon(bucket: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "CONNECT_DEADLINE", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(StorageUnavailableError, match=f"cannot be reached for {bucket}.*") as caught:
            CALLS[call](Storage(), bucket)
        assert time.monotonic() - started < retries.DEADLINE / 4
    assert "check the network" in caught.value.hint


def test_requests_are_retried_while_the_server_restarts(
    gcs_server: gcs.GcsServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    servers: list[gcs.GcsServer] = []
    late = threading.Timer(1.0, lambda: servers.append(gcs.start(port=port)))
    late.start()
    try:
        with pytest.raises(BucketMissingError):  # the new, empty server responds
            Storage().ls(f"{bucket}/")
    finally:
        late.join()
        for server in servers:
            server.stop()


def test_a_bucket_name_can_contain_the_word_bucket(storage: Storage) -> None:
    storage.client.create_bucket("the-bucket-of-tests")
    with pytest.raises(ObjectMissingError):
        storage.read("gs://the-bucket-of-tests/nothing")
    storage.delete("gs://the-bucket-of-tests/nothing")


def test_writing_to_a_missing_bucket_names_the_bucket(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    for call in (
        lambda: storage.write("gs://no-such-bucket/a", b"x"),
        lambda: storage.create("gs://no-such-bucket/a", b"x"),
        lambda: storage.upload(tmp_path / "a", "gs://no-such-bucket/a"),
        lambda: storage.upload_once(tmp_path / "a", "gs://no-such-bucket/a"),
    ):
        with pytest.raises(BucketMissingError, match="gs://no-such-bucket/a"):
            call()


def test_missing_credentials_are_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    (tmp_path / "key.json").write_text('{"type": "service_account"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "local")
    with pytest.raises(StorageForbiddenError, match="no credentials") as caught:
        Storage().read("gs://some-bucket/a")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.hint

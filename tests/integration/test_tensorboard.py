"""Tests copying event files from a real bucket so that TensorBoard reads added data, and TensorBoard itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from mlengine import cli
from mlengine.cli.exit_codes import ExitCode
from mlengine.clients.tensorboard import Mirror, find_job, newest_jobs
from mlengine.core.errors import MlengineError, StorageError, StorageUnavailableError
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration


def put(storage: Storage, bucket: str, job_id: str, model: str = "mnist") -> JobDir:
    job_dir = JobDir.of(bucket, model, job_id)
    storage.write(job_dir.claim, b"{}")
    storage.write(job_dir.train + "events.out.tfevents.1.host.1.0.v2", b"one")
    storage.write(job_dir.train + "eval/events.out.tfevents.2", b"two")
    storage.write(job_dir.train + "checkpoints/1/ckpt.data", b"not this")
    return job_dir


def test_only_event_files_are_copied_and_they_grow_in_place(storage: Storage, bucket: str, tmp_path: Path) -> None:
    job_dir = put(storage, bucket, "mnist_1")
    mirror = Mirror(storage, tmp_path)
    assert mirror.sync([job_dir]) == 2
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "mnist/mnist_1/eval/events.out.tfevents.2",
        "mnist/mnist_1/events.out.tfevents.1.host.1.0.v2",
    ]
    assert mirror.sync([job_dir]) == 0
    copy = tmp_path / "mnist/mnist_1/events.out.tfevents.1.host.1.0.v2"
    inode = copy.stat().st_ino
    storage.write(job_dir.train + copy.name, b"one and more")
    assert mirror.sync([job_dir]) == 1
    assert (copy.read_bytes(), copy.stat().st_ino) == (b"one and more", inode)
    storage.write(job_dir.train + copy.name, b"new")
    assert mirror.sync([job_dir]) == 1
    assert copy.read_bytes() == b"new"
    # A job with a TensorBoard instance in Vertex AI writes its event files to its logs.
    storage.write(job_dir.logs + "events.out.tfevents.3", b"three")
    storage.write(job_dir.logs + "chief-0/1.log", b"not this")
    assert mirror.sync([job_dir]) == 1
    assert (tmp_path / "mnist/mnist_1/events.out.tfevents.3").read_bytes() == b"three"


@pytest.mark.parametrize("content", [b"two!", b"another, longer one", b"1", b""])
def test_an_object_that_was_replaced_is_copied_again(
    storage: Storage, bucket: str, tmp_path: Path, content: bytes
) -> None:
    """A job that was deleted and started again writes an object with the same name, and perhaps the same size."""
    job_dir = put(storage, bucket, "mnist_1")
    events = job_dir.train + "events.out.tfevents.4"
    storage.write(events, b"one!")
    mirror = Mirror(storage, tmp_path)
    assert mirror.sync([job_dir]) == 3
    storage.write(events, content)
    assert mirror.sync([job_dir]) == 1
    assert (tmp_path / "mnist/mnist_1/events.out.tfevents.4").read_bytes() == content
    assert mirror.sync([job_dir]) == 0


def test_an_object_that_changes_during_the_copy_is_copied_by_the_next_call(
    storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_dir = put(storage, bucket, "mnist_1")
    events = job_dir.train + "events.out.tfevents.4"
    storage.write(events, b"one")
    mirror, listing = Mirror(storage, tmp_path), storage.ls(job_dir.train)
    storage.write(events, b"two and three")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "ls", lambda prefix: listing if prefix == job_dir.train else [])
        mirror.sync([job_dir])
    mirror.sync([job_dir])
    assert (tmp_path / "mnist/mnist_1/events.out.tfevents.4").read_bytes() == b"two and three"


def test_jobs_of_two_models_with_the_same_id_are_kept_apart(storage: Storage, bucket: str, tmp_path: Path) -> None:
    jobs = [put(storage, bucket, "first"), put(storage, bucket, "first", model="other")]
    storage.write(jobs[1].train + "events.out.tfevents.1.host.1.0.v2", b"other model")
    Mirror(storage, tmp_path).sync(jobs)
    copies = {str(path.parent.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.v2")}
    assert copies == {"mnist/first": b"one", "other/first": b"other model"}
    with pytest.raises(StorageError, match=r"2 jobs in .* have the id 'first'") as caught:
        find_job(storage, bucket, "first")
    assert caught.value.hint == "use one of: mnist/first, other/first"
    assert find_job(storage, bucket, "other/first") == jobs[1]


def test_an_object_name_outside_the_folder_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    job_dir = JobDir.of(bucket, "mnist", "mnist_1")
    storage.write(f"{job_dir.train}../../../../outside.tfevents", b"x")
    inside = tmp_path / "deep" / "inside"
    with pytest.raises(StorageError, match="points outside its directory"):
        Mirror(storage, inside).sync([job_dir])
    assert list(tmp_path.rglob("outside*")) == []


def test_jobs_are_found_by_id_model_and_id_or_uri(storage: Storage, bucket: str) -> None:
    one, two = put(storage, bucket, "mnist_1"), put(storage, bucket, "other_2", model="other")
    assert find_job(storage, bucket, "mnist_1") == one
    assert find_job(storage, bucket, "other_2") == two
    assert find_job(storage, bucket, "other/other_2") == two
    assert find_job(storage, bucket, one.uri + "/") == one
    for word in ("mnist_9", "other/mnist_1", f"{bucket}/mnist/none"):
        with pytest.raises(MlengineError, match="no job"):
            find_job(storage, bucket, word)
    put(storage, bucket, "mnist_3")
    storage.write(one.claim, b'{"again": 1}')
    assert [job_dir.job_id for job_dir in newest_jobs(storage, bucket, "mnist", 5)] == ["mnist_1", "mnist_3"]
    assert len(newest_jobs(storage, bucket, "mnist", 1)) == 1


def test_tensorboard_shows_two_jobs_together(storage: Storage, bucket: str, tmp_path: Path) -> None:
    """Runs the command against the bucket, reads TensorBoard's own responses, and checks that no process is left."""
    for job_id in ("mnist_1", "mnist_2"):
        job_dir = put(storage, bucket, job_id)
        storage.write(job_dir.train + "events.out.tfevents.1.host.1.0.v2", event_file())
        storage.delete(job_dir.train + "eval/events.out.tfevents.2")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2] / "plugins")}
    words = ["jobs", "tensorboard", "mnist_1", "mnist_2", "--bucket", bucket, "--port", str(port), "--every", "1"]
    program = "import sys; from mlengine.cli import main; sys.exit(main(sys.argv[1:]))"
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen([sys.executable, "-c", program, *words], env=env, stdout=sink, stderr=sink)
    try:
        runs = wait_for_runs(port, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert runs == ["mnist/mnist_1", "mnist/mnist_2"]
    assert code == 128 + signal.SIGTERM
    assert list(tmp_path.glob("mlengine-tensorboard-*")) == []
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)


def wait_for_runs(port: int, process: subprocess.Popen[bytes], log: Path) -> list[str]:
    deadline, found = time.monotonic() + 240, []
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=5) as answer:
                found = json.load(answer)
        except (OSError, ValueError):
            pass
        if len(found) == 2:
            return sorted(found)
        time.sleep(0.5)
    pytest.fail(f"{found}\n{log.read_text()}")


def event_file() -> bytes:
    """An event file in TensorBoard's format with the version record that every file begins with, and one scalar."""
    version = b"\x09" + struct.pack("<d", 1.0) + b"\x1a\x0dbrain.Event:2"
    value = b"\x0a\x04loss\x15" + struct.pack("<f", 0.5)
    summary = b"\x0a" + bytes([len(value)]) + value
    scalar = b"\x09" + struct.pack("<d", 2.0) + b"\x10\x05\x2a" + bytes([len(summary)]) + summary
    return b"".join(record(data) for data in (version, scalar))


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def masked(data: bytes) -> bytes:
    import google_crc32c

    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def test_a_storage_outage_does_not_end_the_command(
    storage: Storage,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Listing the model's jobs fails once; the next update copies what has been written in the meantime."""
    job_dir = put(storage, bucket, "mnist_1")
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    lists = 0

    def list_jobs(*args: Any) -> list[JobDir]:
        nonlocal lists
        lists += 1
        if lists == 2:
            storage.write(job_dir.train + "events.out.tfevents.9", b"nine")
            raise StorageUnavailableError("the bucket does not answer")
        if lists == 4:
            process.kill()
        return newest_jobs(*args)

    monkeypatch.setattr("mlengine.clients.tensorboard.newest_jobs", list_jobs)
    monkeypatch.setattr("mlengine.runtime.tensorboard.start", lambda *_, **__: process)
    ends = signal.getsignal(signal.SIGTERM)
    try:
        command = ["jobs", "tensorboard", "--model", "mnist", "--every", "0.1", "--bucket", bucket]
        assert cli.main([*command, "--dir", str(tmp_path)]) == ExitCode.FAILED, "TensorBoard was killed"
    finally:
        signal.signal(signal.SIGTERM, ends)
    assert "cannot list the jobs of mnist: the bucket does not answer; retrying in 0.1 s" in capsys.readouterr().err
    assert (tmp_path / "mnist/mnist_1/events.out.tfevents.9").read_bytes() == b"nine"

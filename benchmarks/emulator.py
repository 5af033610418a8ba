"""The emulator with jobs that log a lot: a page of ``entries:list`` in a large log, and all lines of a job.

The emulator runs in its own process, as ``mlengine emulator``. Pages are read over HTTP from a log of a million lines
of one job, and compared with a page of another job's short log in the same emulator. The lines of a whole job are read
as a client of Cloud Logging reads them, page by page, and compared with reading them from the local backend; runs
alternate, and both run their jobs in the same way on this machine.

The times include parsing the JSON. The client is ``requests`` with msgspec, as an example of a fast client;
``--client`` adds mlengine's own. The CPU time of a page is that of the emulator's process only, which does not depend
on other load.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import requests

from mlengine.backends import Submission
from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.job import JobState
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.core.times import rfc3339
from mlengine.emulator.journal import Journal
from mlengine.emulator.log_store import Lines
from mlengine.emulator.records import VERTEX, Record, Store, pack
from mlengine.storage.client import Storage
from mlengine.testing import gcs
from mlengine.testing.backend import MemoryBackend

PROJECT, REGION = "test-project", "us-central1"
PAGE_BUDGET = 0.05  # seconds
RATIO_BUDGET = 2.0  # the emulator's time over that of the local backend
MEMORY_BUDGET = 100.0  # MiB, in addition to the memory of an emulator with a short log
TRAINER = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
parser.add_argument("--lines", type=int)
for number in range(parser.parse_args().lines):
    print(f"step {number}, loss 0.25, accuracy 0.93, 1234 examples a second")
"""
BATCH = 1000


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 within the budgets, 1 if one is exceeded."""
    parser = argparse.ArgumentParser(prog="benchmarks emulator", description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000, help="of the job whose pages are read")
    parser.add_argument("--job-lines", type=int, default=200_000, help="of the jobs that run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", action="store_true", help="also read with mlengine's own client")
    args = parser.parse_args(argv)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    with gcs.running() as server, tempfile.TemporaryDirectory(prefix="bench-emulator-") as scratch:
        os.environ.update(server.env)
        storage = Storage()
        bucket = f"gs://bench-{uuid.uuid4().hex[:12]}"
        storage.client.create_bucket(bucket.removeprefix("gs://"))
        within = pages(Path(scratch), args.lines)
        return int(not (jobs(Path(scratch), storage, bucket, args) and within))


class Payload(msgspec.Struct):
    message: str = ""


class Entry(msgspec.Struct):
    """The fields of an entry that a reader of a log needs."""

    timestamp: str
    jsonPayload: Payload  # noqa: N815 the service's name


class Page(msgspec.Struct):
    """A response of ``entries:list``."""

    entries: list[Entry] = []
    nextPageToken: str = ""  # noqa: N815 the service's name


_DECODER = msgspec.json.Decoder(Page)


@dataclass
class Service:
    """A running emulator, as a client of Cloud Logging calls it."""

    url: str
    pid: int
    session: requests.Session = field(default_factory=requests.Session)

    def read(self, text: str, **more: Any) -> Page:
        """Read one page."""
        body = {"resourceNames": [f"projects/{PROJECT}"], "filter": text, "pageSize": 1000, **more}
        response = self.session.post(f"{self.url}/v2/entries:list", json=body, timeout=60)
        response.raise_for_status()
        return _DECODER.decode(response.content)

    def cpu(self) -> float:
        """The CPU seconds of the emulator so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_memory(self) -> float:
        """The emulator's peak memory in MiB."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0


@contextmanager
def emulator(state: Path, *options: str) -> Iterator[Service]:
    """Run ``mlengine emulator`` in its own process."""
    command = [
        str(Path(sys.executable).with_name("mlengine")),
        "emulator",
        "--port",
        "0",
        "--state-dir",
        str(state),
        *options,
    ]
    with (state.parent / "emulator.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not (match := re.search(r"emulator on (http://\S+);", (state.parent / "emulator.log").read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((state.parent / "emulator.log").read_text())
            time.sleep(0.05)
        yield Service(match[1], process.pid)
    finally:
        process.terminate()
        process.wait()


def pages(scratch: Path, count: int) -> bool:
    """Measure pages of a large log. Returns whether they are within the budgets."""
    state = scratch / "pages" / "emulator"
    short = count // 500
    store, journal = Store(_made(state / "jobs")), Journal(MemoryBackend(), state / "logs")
    _write(store, journal, "1", short)
    with emulator(_closed(journal, state)) as service:
        _page(service, _of_job("1"))
        before = service.peak_memory()
    journal = Journal(MemoryBackend(), state / "logs")
    elapsed = _timed(lambda: _write(store, journal, "2", count))
    size = sum(path.stat().st_size for path in (state / "logs").iterdir())
    print(f"{count:,} lines stored in {elapsed:.1f} s, {size / 2**20:.0f} MiB on disk")
    middle = rfc3339(_time_of_line(journal, count // 2) / 1e6)
    many = " OR ".join(f'(resource.labels.job_id="{number}" AND timestamp>="{middle}")' for number in range(150))
    worst = 0.0
    with emulator(_closed(journal, state)) as service:
        base, _ = _page(service, _of_job("1"))
        for name, text, more in (
            ("first page", _of_job("2"), {}),
            ("page in the middle, by time", f'{_of_job("2")} AND timestamp>="{middle}"', {}),
            ("last page", _of_job("2"), {"orderBy": "timestamp desc"}),
            ("errors, one line of 1,000", f"{_of_job('2')} AND severity>=ERROR", {}),
            ("150 jobs, from the middle", f'resource.type="ml_job" AND ({many})', {}),
            ("text that no line has, per call", f'{_of_job("2")} AND jsonPayload.message:"no such text"', {}),
        ):
            seconds, cpu = _page(service, text, **more)
            worst = max(worst, seconds)
            print(f"  {name:34}{seconds * 1000:7.1f} ms  x {seconds / base:.2f}  CPU {cpu * 1000:5.1f} ms")
        grown = service.peak_memory() - before
        print(f"  x: to a page of a log of {short:,} lines, {base * 1000:.1f} ms")
        print(f"  memory {service.peak_memory():.0f} MiB, with the short log alone {before:.0f} MiB")
        print(f"  budget: a page in at most {PAGE_BUDGET * 1000:.0f} ms: {_verdict(worst <= PAGE_BUDGET)}")
        print(f"  budget: at most {MEMORY_BUDGET:.0f} MiB more: {_verdict(grown <= MEMORY_BUDGET)}")
    return worst <= PAGE_BUDGET and grown <= MEMORY_BUDGET


def jobs(scratch: Path, storage: Storage, bucket: str, args: argparse.Namespace) -> bool:
    """Measure entire jobs. Returns whether the emulator is within its ratio to the local backend."""
    from tests.support import local_jobs

    uri = local_jobs.put(storage, bucket, local_jobs.sdist(TRAINER))
    state = _made(scratch / "jobs")
    settings = {"log_upload_timeout_seconds": 0, "empty_output_warning_seconds": 0}
    local = LocalBackend(state / "local", **settings)
    options = [f"--set=state_dir={state / 'local'}", *(f"--set={name}={value}" for name, value in settings.items())]
    with emulator(_made(state / "emulator"), *options) as service:
        vertex = VertexBackend(project=PROJECT, region=REGION, endpoint=service.url)
        ways: dict[str, Callable[[Submission, int], float]] = {
            "local backend": lambda job, lines: _by_backend(local, job, lines),
            "emulator, a client of its pages": lambda job, lines: _by_pages(service, vertex, job, lines),
        }
        if args.client:
            ways["emulator, mlengine's client"] = lambda job, lines: _by_backend(vertex, job, lines)
        for run in ways.values():
            run(_submission(uri, bucket, 10), 10)  # builds the environment
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, run in ways.items():
                cpu = time.process_time() + service.cpu()
                seconds = run(_submission(uri, bucket, args.job_lines), args.job_lines)
                found[name].append((seconds, time.process_time() + service.cpu() - cpu))
    print(f"a job that prints {args.job_lines:,} lines, from its submission to its last line; {args.rounds} rounds")
    base = found["local backend"]
    ratios = {}
    for name, runs in found.items():
        ratios[name] = statistics.median(mine[0] / other[0] for mine, other in zip(runs, base, strict=True))
        wall, cpu = (statistics.median(run[place] for run in runs) for place in (0, 1))
        print(f"  {name:34}{wall:6.1f} s  x {ratios[name]:.2f}  CPU of reader and emulator {cpu:4.1f} s")
    ratio = ratios["emulator, a client of its pages"]
    print(f"  budget: at most x {RATIO_BUDGET}: {_verdict(ratio <= RATIO_BUDGET)}")
    return ratio <= RATIO_BUDGET


def _by_backend(backend: Any, submission: Submission, lines: int) -> float:
    """Seconds from the submission until the last line was read through a backend."""
    began = time.perf_counter()
    handle = backend.submit(submission)
    cursor: Any = {}
    seen = 0
    while True:
        (status,) = backend.describe([handle])
        more = True
        while more:
            page = backend.logs(handle, cursor)
            cursor, more = page.cursor, page.more
            seen += sum(line.text.startswith("step ") for line in page.lines)
            if seen == lines:
                return time.perf_counter() - began
        _check(status.state, seen, ended=not page.lines)


def _by_pages(service: Service, vertex: VertexBackend, submission: Submission, lines: int) -> float:
    """The same, read as a client of Cloud Logging does: a token for the next page, a timestamp for the next read."""
    began = time.perf_counter()
    handle = vertex.submit(submission)
    job = _of_job(handle.name.rsplit("/", 1)[1])
    seen, since, last, token = 0, "", "", ""
    while True:
        (status,) = vertex.describe([handle])
        while True:
            text = f'{job} AND timestamp>"{since}"' if since else job
            answer = service.read(text, pageToken=token)
            entries = answer.entries
            seen += sum(entry.jsonPayload.message.startswith("step ") for entry in entries)
            last = entries[-1].timestamp if entries else last
            token = answer.nextPageToken
            if seen == lines:
                return time.perf_counter() - began
            if not token:
                break
        since = last
        _check(status.state, seen, ended=not entries)


def _check(state: JobState, seen: int, *, ended: bool) -> None:
    if not ended:
        return
    if state.terminal:
        raise RuntimeError(f"the job is {state.value}, and only {seen} lines were read")
    time.sleep(0.1)


def _submission(uri: str, bucket: str, lines: int) -> Submission:
    key = uuid.uuid4().hex
    spec = TrainingSpec("tiny.task", (uri,), ("--lines", str(lines)), (Pool(Role.CHIEF, 1),), region=REGION)
    return Submission(key, f"bench_{key[:8]}", 1, f"{bucket}/jobs/{key}", spec)


def _of_job(number: str) -> str:
    return f'resource.type="ml_job" AND resource.labels.job_id="{number}"'


def _write(store: Store, journal: Journal, number: str, count: int) -> None:
    """Store a finished job whose log has ``count`` lines."""
    now = time.time()
    submission = pack(Submission(number, number, 1, "gs://bkt/j", TrainingSpec("t.task", ("gs://bkt/t.tar.gz",))))
    record = Record(
        VERTEX, PROJECT, REGION, number, {}, submission, now, now, JobState.SUCCEEDED, started=now, ended=now
    )
    store.put(record)
    journal.collect(record)
    log = journal.log_of(record)
    assert log is not None
    for begin in range(0, count, BATCH):
        texts = [f"step {begin + number}, loss 0.25, accuracy 0.93" for number in range(BATCH)]
        lines = [Lines(500, "workerpool0-0", texts[:1]), Lines(200, "workerpool0-0", texts[1:])]
        journal.store.append(log, lines, {})


def _time_of_line(journal: Journal, number: int) -> int:
    """The time of a line in the log of the last job."""
    (stream,) = journal.store._connection.execute("SELECT max(number) FROM streams WHERE severity = 200").fetchone()
    for block in journal.store.scan(stream, (0, 0), (2**62, 0)):
        if block.place + block.size > number:
            return block.time
    raise ValueError(number)


def _page(service: Service, text: str, **more: Any) -> tuple[float, float]:
    """The median seconds of a page, and the mean CPU seconds of the emulator, over several reads."""
    cpu = service.cpu()
    times = [_timed(lambda: service.read(text, **more)) for _ in range(25)]
    return statistics.median(times), (service.cpu() - cpu) / len(times)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _closed(journal: Journal, state: Path) -> Path:
    journal.close()
    return state


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _verdict(within: bool) -> str:
    return "within" if within else "BEYOND"


if __name__ == "__main__":
    raise SystemExit(main())

"""The first view of the web page after a start of the API server, and later views, with many jobs in the bucket.

The bucket is on a Cloud Storage server on loopback, filled with job dirs. Each measurement uses a server in a new
process that sees the bucket for the first time: with the job index that the jobs' waits and validations wrote, without
it, and with some rows missing. ``--baseline DIR`` also measures the code of another checkout, without and with the rows
that its servers store. Rounds alternate. Finally, jobs end at the same time, each in a process that writes the index.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
BUCKET = "gs://page-benchmark"
VIEW_BUDGET = 0.002  # seconds
FIRST_BUDGET, GROWTH_BUDGET = 0.05, 5.0  # relative to the baseline's first view; for ten times the jobs
MEMORY_BUDGET_MIB = 150
LOST_ROWS = 20
WRITERS_JOBS = 1000  # with more jobs, only the server without an index writes it: faster, with the same rows
VIEWS = 200
PATIENCE_SECONDS = 1200.0


def _child(path: str) -> None:
    """A server that sees the bucket for the first time. Prints its measurements as JSON.

    This runs with the code of any checkout, so it imports nothing of the benchmark or of the tests.
    """
    from mlengine.core.job import JobState, JobStatus

    names = ("guard", "routes", "index")
    guard, routes, web_index = (cast(Any, import_module(f"mlengine.web.{name}")) for name in names)

    settings = json.loads(Path(path).read_text())

    class Backend:
        """A backend that knows all jobs."""

        name = "memory"

        def describe(self, handles: Sequence[Any]) -> list[JobStatus]:
            found = []
            for handle in handles:
                state, began, ended = settings["jobs"][handle.name]
                detail = "the chief ended with exit code 0"
                found.append(JobStatus(handle, JobState(state), detail, None, began, began + 5, ended))
            return found

    backend, storage = Backend(), web_index.Storage()
    storage.list_dirs(BUCKET + "/none")  # imports the client, and opens a connection
    index = web_index.Index(storage, BUCKET, lambda _: backend)
    # Without Airflow's permissions, whose cost does not depend on the number of jobs.
    routes._index, routes._bucket, guard.readable = lambda: index, lambda: BUCKET, lambda _, dags: set(dags) | {""}
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    began = time.perf_counter()
    view = index.view()
    first, shown = time.perf_counter() - began, len(view.rows)
    while view.at is None or len(view.rows) < settings["count"]:
        if view.error or view.at is not None or time.perf_counter() - began > PATIENCE_SECONDS:
            raise SystemExit(f"{len(view.rows)} rows after {PATIENCE_SECONDS} s; {view.error}")
        time.sleep(0.002)
        view = index._view
    complete, complete_cpu = time.perf_counter() - began, time.process_time() - cpu
    with getattr(index, "_refreshing", nullcontext()):
        done, done_cpu = time.perf_counter() - began, time.process_time() - cpu
    queries = {"view": {}, "view_text": {"text": "scheduled__77"}, "view_state": {"state": "FAILED"}}
    views = {name: _views(routes, query) for name, query in queries.items()}
    refresh_cpu = time.process_time()
    refresh = time.perf_counter()
    index.refresh()
    print(
        json.dumps(
            {
                "first": first,
                "shown": shown,
                "complete": complete,
                "complete_cpu": complete_cpu,
                "done": done,
                "done_cpu": done_cpu,
                "refresh": time.perf_counter() - refresh,
                "refresh_cpu": time.process_time() - refresh_cpu,
                **views,
                "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
            }
        )
    )


def _views(routes: Any, fields: Mapping[str, str]) -> float:
    """The median CPU time of a request for the list, in seconds, without HTTP and permissions."""
    make = routes.JobFilter if hasattr(routes, "JobFilter") else routes.Wanted
    query, found = make(**fields), []
    for _ in range(VIEWS):
        began = time.thread_time()
        routes.list_jobs(None, query)
        found.append(time.thread_time() - began)
    return statistics.median(found)


class Bucket:
    """The bucket with its jobs, on its own server."""

    def __init__(self, server: Any, folder: Path, jobs: int, others: int) -> None:
        from tests.support.sample_jobs import BACKEND, SampleJobs

        from mlengine.storage.client import Storage

        self._server, self._folder = server, folder
        self.storage = Storage()
        self.storage.client.create_bucket(BUCKET.removeprefix("gs://"))
        self.samples = SampleJobs(_filler(server.url), BUCKET)
        BACKEND.clear()
        self.samples.many(jobs, others=others)
        known = {job.handle.name: [job.state.value, *BACKEND.times[job.handle.name]] for job in BACKEND.jobs}
        self.file = folder / "jobs.json"
        self.file.write_text(json.dumps({"jobs": known, "count": jobs}))

    def delete_rows(self) -> None:
        """Delete the index."""
        from mlengine.core import layout

        for stat in self.storage.ls(layout.job_index(BUCKET)):
            self.storage.delete(stat.uri)

    def write_rows(self) -> float:
        """Write the index as the waits and validations of all jobs do, in 8 threads. Returns CPU seconds per job."""
        from tests.support.sample_jobs import BACKEND

        from mlengine.core.job import JobRecord
        from mlengine.core.layout import JobDir
        from mlengine.job_index.recording import record_end, record_report
        from mlengine.validation.report import find_report

        handles = {job.handle.job_id: job.handle for job in BACKEND.jobs}
        cpu = time.process_time()

        def one(job_id: str) -> None:
            job_dir = JobDir.of(BUCKET, "mnist", job_id)
            assert JobRecord.from_bytes(self.storage.read(job_dir.claim)).job_id == job_id
            record_end(self.storage, BUCKET, BACKEND, BACKEND.describe([handles[job_id]])[0])
            report = find_report(self.storage, job_dir)
            if report is not None:
                record_report(self.storage, BUCKET, report)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, self.samples.jobs))
        return (time.process_time() - cpu) / len(self.samples.jobs)

    def forget_rows(self, count: int) -> None:
        """Delete rows, as if their writers had died."""
        from mlengine.job_index import shards

        for job_id in self.samples.jobs[:: max(1, len(self.samples.jobs) // count)][:count]:
            key = ("mnist", job_id)
            shards.update(self.storage, BUCKET, shards.number_of(*key), partial(_without, key))

    def rows(self) -> tuple[int, int]:
        """The number of rows in the index, and its size in bytes."""
        from mlengine.core import layout
        from mlengine.job_index import shards

        found = sum(len(shards.load(self.storage, BUCKET, number).rows) for number in range(shards.SHARDS))
        return found, sum(stat.size for stat in self.storage.ls(layout.job_index(BUCKET)))

    def measure(self, checkout: Path) -> dict[str, float]:
        """Measure a new server with the code of ``checkout``. Includes the CPU time of the Cloud Storage server."""
        env = {**os.environ, **self._server.env, "PYTHONPATH": str(checkout / "plugins")}
        env["AIRFLOW_HOME"] = str(self._folder / "airflow")
        served = self._served()
        command = [sys.executable, "-P", str(Path(__file__)), "--child", str(self.file)]
        out = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
        return {**json.loads(out.splitlines()[-1]), "served": self._served() - served}

    def _served(self) -> float:
        fields = Path(f"/proc/{self._server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _without(key: tuple[str, str], _: object) -> dict[tuple[str, str], None]:
    return {key: None}


def _filler(url: str) -> Any:
    """A storage client that writes without Google's library, which is too slow for many objects."""
    import urllib3

    from mlengine.core.layout import split_uri
    from mlengine.storage.client import Storage

    class Filler(Storage):
        def __init__(self) -> None:
            super().__init__()
            self._pool = urllib3.PoolManager(maxsize=16, block=True)

        def write(self, uri: str, data: bytes, content_type: str | None = None) -> int:
            if uri.endswith("/job.json"):  # without fields that earlier versions reject
                data = json.dumps({name: value for name, value in json.loads(data).items() if value}).encode()
            bucket, path = split_uri(uri)
            to = f"{url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(path, safe='')}"
            answer = self._pool.request("POST", to, body=data, headers={"content-type": content_type or "text/plain"})
            assert answer.status == 200, answer.data
            return 1

    return Filler()


def measure_all(
    jobs: int, others: int, rounds: int, baseline: Path | None, *, on_disk: bool
) -> dict[str, dict[str, float]]:
    """The median of each figure, by kind of server."""
    from mlengine.testing import gcs

    found: dict[str, list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        gcs.running(Path(name) / "objects" if on_disk else None) as server,
    ):
        os.environ.update(server.env)
        bucket = Bucket(server, Path(name), jobs, others)
        print(
            f"\n{jobs} jobs, {len(bucket.storage.ls(BUCKET + '/'))} objects; load {os.getloadavg()[0]:.1f}", flush=True
        )
        if baseline is not None:
            found["baseline, no rows"] = [bucket.measure(baseline)]
            found["baseline, kept rows"] = []
        found["no index"] = [bucket.measure(ROOT)]  # this server writes the rows
        if baseline is not None:
            bucket.measure(baseline)  # this server stores its rows
        how = "the server that found no index wrote"
        if jobs <= WRITERS_JOBS:
            bucket.delete_rows()
            how = f"the jobs' writers took {bucket.write_rows() * 1000:.1f} ms of CPU for a job; they wrote"
        rows, size = bucket.rows()
        print(f"{how} {rows} rows, {size / 1024:.0f} KiB", flush=True)
        for _ in range(rounds):
            found.setdefault("index", []).append(bucket.measure(ROOT))
            if baseline is not None:
                found["baseline, kept rows"].append(bucket.measure(baseline))
            bucket.forget_rows(LOST_ROWS)
            found.setdefault(f"index, {LOST_ROWS} rows lost", []).append(bucket.measure(ROOT))
    return {
        kind: {field: statistics.median(one[field] for one in several) for field in several[0]}
        for kind, several in found.items()
    }


_HEAD = (
    f"{'server':<24} {'first view s':>12} {'rows':>6} {'all rows s':>11} {'CPU s':>7} {'checked s':>10} {'CPU s':>7} "
    f"{'GCS CPU s':>10} {'refresh ms':>11} {'view':>6} {'text':>6} {'state':>6} {'MiB':>6}"
)


def _line(kind: str, one: Mapping[str, float]) -> str:
    views = " ".join(f"{one[name] * 1000:>6.2f}" for name in ("view", "view_text", "view_state"))
    return (
        f"{kind:<24} {one['first']:>12.3f} {one['shown']:>6.0f} {one['complete']:>11.3f} {one['complete_cpu']:>7.3f} "
        f"{one['done']:>10.3f} {one['done_cpu']:>7.3f} {one['served']:>10.2f} {one['refresh'] * 1000:>11.0f} "
        f"{views} {one['mib']:>6.1f}"
    )


def _together(counts: Sequence[int]) -> None:
    """Let jobs end at the same time, and print the seconds of a writer and the number of rows that were written."""
    from mlengine.core.errors import MlengineError
    from mlengine.core.job import JobState
    from mlengine.job_index import shards
    from mlengine.job_index.rows import Row
    from mlengine.storage.client import Storage
    from mlengine.testing import gcs

    print(f"\n{'jobs end together':<24} {'rows written':>12} {'median s':>9} {'longest s':>10} {'requests a row':>15}")
    for count in counts:
        with gcs.running() as server:
            os.environ.update(server.env)
            storage = Storage()
            storage.client.create_bucket(BUCKET.removeprefix("gs://"))
            calls: list[str] = []
            request = storage.client._http.request

            def counted(*args: Any, request: Any = request, calls: list[str] = calls, **kwargs: Any) -> Any:
                calls.append(str(args))
                return request(*args, **kwargs)

            storage.client._http.request = counted

            def one(at: int, storage: Storage = storage) -> float:
                row = Row("m", f"m_{at}", "local", 1, JobState.SUCCEEDED.value, time.time(), final_at=0.0)
                began = time.perf_counter()
                try:
                    shards.update(
                        storage, BUCKET, shards.number_of("m", row.job_id), lambda _: {("m", row.job_id): row}
                    )
                except MlengineError as error:
                    print(f"  {error}")
                return time.perf_counter() - began

            with ThreadPoolExecutor(count) as pool:
                seconds = list(pool.map(one, range(count)))
            sent = len(calls)
            rows = sum(len(shards.load(storage, BUCKET, number).rows) for number in range(shards.SHARDS))
        print(
            f"{count:<24} {rows:>12} {statistics.median(seconds):>9.2f} {max(seconds):>10.2f} {sent / count:>15.1f}",
            flush=True,
        )


def main(argv: list[str] | None = None) -> int:
    """Exit code: 1 if a budget is exceeded."""
    parser = argparse.ArgumentParser(prog="benchmarks page", description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--others", type=int, default=1, help="further objects in each job dir")
    parser.add_argument("--rounds", type=int, default=5, help="servers with an index")
    parser.add_argument("--together", type=int, nargs="*", default=[10, 100], help="jobs that end together")
    parser.add_argument(
        "--on-disk",
        action="store_true",
        help="keep the objects in files of TMPDIR: in memory, the server takes hours for 10,000 jobs",
    )
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="a checkout whose server is measured too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        _child(args.child)
        return 0
    found = {}
    for jobs in args.jobs:
        found[jobs] = measure_all(jobs, args.others, args.rounds, args.baseline, on_disk=args.on_disk)
        print(_HEAD)
        for kind, one in found[jobs].items():
            print(_line(kind, one), flush=True)
    missed = [miss for jobs in args.jobs for miss in _missed(found[jobs])]
    if len(args.jobs) > 1:
        few, many = found[min(args.jobs)]["index"], found[max(args.jobs)]["index"]
        growth = many["complete"] / few["complete"]
        print(f"{max(args.jobs)} jobs take {growth:.1f} x the time of {min(args.jobs)}, and "
              f"{many['complete_cpu'] / few['complete_cpu']:.1f} x the CPU time")  # fmt: skip
        missed += ["growth"] * (growth > GROWTH_BUDGET)
    _together(args.together)
    print(f"budgets: {'missed: ' + ', '.join(missed) if missed else 'met'}")
    return 1 if missed else 0


def _missed(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    ours = found["index"]
    missed = ["view"] * (max(ours["view"], ours["view_text"], ours["view_state"]) > VIEW_BUDGET)
    if "baseline, no rows" in found:
        base = found["baseline, no rows"]
        ratio, cpu = ours["complete"] / base["complete"], ours["complete_cpu"] / base["complete_cpu"]
        memory = ours["mib"] - found["baseline, kept rows"]["mib"]
        print(f"all rows: {ratio:.3f} x the baseline's time without rows, {cpu:.3f} x its CPU time; {memory:+.1f} MiB")
        missed += ["first view"] * (ratio > FIRST_BUDGET) + ["memory"] * (memory > MEMORY_BUDGET_MIB)
    return missed


if __name__ == "__main__":
    raise SystemExit(main())

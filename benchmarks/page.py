"""The cost of a view of the web page with a thousand jobs in the bucket, with the index and without it.

The bucket is on a Cloud Storage server on loopback, filled with job dirs; the index is that of the API server. It
measures a view, the first view after a start (with and without stored rows), and one refresh of the index, and compares
them with reading every job dir for a view.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from urllib.parse import quote

import urllib3

from mlengine.core.layout import jobs_index, model_prefix, split_uri
from mlengine.storage.client import Storage
from mlengine.testing import gcs
from mlengine.web.index import THREADS, Index

BUCKET = "gs://page-benchmark"
VIEW_BUDGET = 0.05  # seconds: not noticeable


class Filler(Storage):
    """Writes objects without the client library, which is too slow for many objects."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._pool = url, urllib3.PoolManager(maxsize=16, block=True)

    def write(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        bucket, path = split_uri(uri)
        url = f"{self._url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(path, safe='')}"
        answer = self._pool.request("POST", url, body=data, headers={"content-type": content_type or "text/plain"})
        assert answer.status == 200, answer.data
        return 1


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 within the budget, 1 above it."""
    parser = argparse.ArgumentParser(prog="benchmarks page", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--others", type=int, default=10, help="further objects in each job dir")
    args = parser.parse_args(argv)
    with gcs.running() as server:
        os.environ.update(server.env)
        return measure(Storage(), args.jobs, args.others)


def measure(storage: Storage, jobs: int, others: int) -> int:
    from tests.support.sample_jobs import SampleJobs, backend

    filler = Filler(os.environ["STORAGE_EMULATOR_HOST"])
    storage.client.create_bucket(BUCKET.removeprefix("gs://"))
    filling = timed(lambda: SampleJobs(filler, BUCKET).many(jobs, others=others))
    print(f"{jobs} jobs, {len(storage.ls(BUCKET + '/'))} objects, put there in {filling:.0f} s; {THREADS} threads")

    def make() -> Index:
        return Index(storage, BUCKET, lambda _: backend())

    cold = make()
    without = timed(cold.refresh)
    size = storage.stat(jobs_index(BUCKET, "mnist"))
    warm = make()
    with_rows = timed(warm.refresh)
    refresh = statistics.median(timed(warm.refresh) for _ in range(5))
    listing = timed(lambda: storage.list_dirs(model_prefix(BUCKET, "mnist")))
    views = [timed(lambda: [row.to_json() for row in warm.view().rows[:50]]) for _ in range(200)]
    view = statistics.median(views)
    print(f"{'a view, from the index':52}{view * 1000:10.2f} ms")
    print(f"{'one refresh of the index, in its own thread':52}{refresh * 1000:10.0f} ms")
    print(f"{'  of it, the listing':52}{listing * 1000:10.0f} ms")
    kept = (size.size if size else 0) / 1024
    print(f"{'first view of a server, from the kept rows':52}{with_rows * 1000:10.0f} ms   {kept:.0f} KiB")
    print(f"{'first view of a server, no rows kept':52}{without * 1000:10.0f} ms")
    print(f"ratio, reading all job dirs to a view: {without / view:,.0f}")
    within = view <= VIEW_BUDGET
    print(f"budget: a view in at most {VIEW_BUDGET * 1000:.0f} ms: {'within' if within else 'BEYOND'}")
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())

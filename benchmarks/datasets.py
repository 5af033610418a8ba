"""The cost of registering a dataset version, relative to a baseline.

- Parquet by reference, compared with copying the same objects with google-cloud-storage: at least 20 times faster, and
  at most 1 % of the bytes are read when no check needs rows.
- CSV with all checks, compared with one pass of ``pyarrow.csv``: at most twice the time, and 512 MiB more memory than
  after the imports.

Each measurement runs in its own process. ``--mib 2048`` gives the full size; by default, both datasets are small.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from mlengine.testing import gcs

SMALL_MIB = 128
FASTER, READ_SHARE = 20.0, 0.01
SLOWER, MEMORY_MIB = 2.0, 512
_ROWS = 250_000


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks datasets")
    parser.add_argument("--mib", type=int, default=SMALL_MIB, help="size of each data set (%(default)s)")
    parser.add_argument("--dir", type=Path, help="where the data are written (a temporary directory)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.step:
        print(json.dumps(STEPS[args.step](args.dir)))
        return 0
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=args.dir) as folder:
        return _run(Path(folder), args.mib)


def _run(folder: Path, mib: int) -> int:
    make(folder, mib)
    with gcs.running() as server:
        os.environ.update(server.env)
        upload(folder / "parquet")
        reference, copied = _step("reference", folder), _step("copy", folder)
    csv, one_pass = _step("csv", folder), _step("csv-pass", folder)
    size = _size(folder / "parquet")
    faster, share = copied["seconds"] / reference["seconds"], reference["read"] / size
    slower = csv["seconds"] / one_pass["seconds"]
    figures = [
        (f"parquet by reference ({size >> 20} MiB)", f"{reference['seconds']:.3f} s", ""),
        ("  compared with copying", f"{copied['seconds']:.3f} s: {faster:.1f} x faster", _verdict(faster >= FASTER)),
        ("  bytes read", f"{reference['read']:,}: {100 * share:.3f} %", _verdict(share <= READ_SHARE)),
        (f"csv with all checks ({_size(folder / 'csv') >> 20} MiB)", f"{csv['seconds']:.2f} s", ""),
        (
            "  compared with one pass",
            f"{one_pass['seconds']:.2f} s: {slower:.2f} x as long",
            _verdict(slower <= SLOWER),
        ),
        ("  memory over the import", f"{csv['mib']:.0f} MiB", _verdict(csv["mib"] <= MEMORY_MIB)),
    ]
    for name, figure, verdict in figures:
        print(f"{name:<34} {figure:<32} {verdict}".rstrip())
    if mib < 1024:
        print("(small: fixed costs weigh more than at 2 GiB; --mib 2048)")
        return 0
    return int(any(verdict == "BEYOND" for *_, verdict in figures))


def _verdict(kept: bool) -> str:
    return "ok" if kept else "BEYOND"


def _step(name: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks", "datasets", "--step", name, "--dir", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return answer


def make(folder: Path, mib: int) -> None:
    """Write ``parquet/`` and ``csv/``, each of about ``mib``, with a tenth of the rows held out."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv, parquet

    random = np.random.default_rng(1)
    cities = np.array([f"city {number}" for number in range(300)])

    def table(first: int) -> pa.Table:
        columns: dict[str, Any] = {"id": np.arange(first, first + _ROWS)}
        columns |= {f"x{number}": random.normal(size=_ROWS) for number in range(8)}
        columns |= {f"n{number}": random.integers(0, 100_000, _ROWS) for number in range(4)}
        columns |= {"city": cities[random.integers(0, len(cities), _ROWS)], "left": random.integers(0, 2, _ROWS)}
        return pa.table(columns)

    for kind, write in (("parquet", parquet.write_table), ("csv", csv.write_csv)):
        for split in ("train", "heldout"):
            (folder / kind / split).mkdir(parents=True)
        number = 0
        while _size(folder / kind) < mib << 20:
            split = "heldout" if number % 10 == 1 else "train"
            write(table(number * _ROWS), folder / kind / split / f"part-{number:04}.{kind}")
            number += 1


def upload(folder: Path) -> None:
    from mlengine.storage.client import Storage

    storage = Storage()
    storage.client.create_bucket("benchmark")
    for path in sorted(folder.rglob("*.parquet")):
        storage.upload(path, f"gs://benchmark/raw/{path.relative_to(folder).as_posix()}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _reference(folder: Path) -> dict[str, Any]:
    """Register by reference. The result includes the number of bytes read from the objects."""
    from mlengine import datasets
    from mlengine.storage.client import Storage

    del folder
    read: list[int] = []
    read_range = Storage.read_range

    def counting(self: Storage, *args: Any, **fields: Any) -> bytes:
        data = read_range(self, *args, **fields)
        read.append(len(data))
        return data

    Storage.read_range = counting  # type: ignore[method-assign]
    storage = Storage()
    storage.ls("gs://benchmark/none/")  # warm-up: the imports and the first connection
    import pyarrow.parquet  # noqa: F401

    started = time.monotonic()
    datasets.add(
        storage,
        "gs://benchmark",
        "reference",
        "v1",
        "gs://benchmark/raw",
        license="x",
        source="x",
        target="left",
        key="id",
        task="binary",
        classes=("0", "1"),
        rows="none",
    )
    return {"seconds": time.monotonic() - started, "read": sum(read)}


def _copy(folder: Path) -> dict[str, Any]:
    """Download each object and upload it again, as a copy by value does, four at a time."""
    from concurrent.futures import ThreadPoolExecutor

    from mlengine.storage.client import Storage

    storage = Storage()
    stats = storage.ls("gs://benchmark/raw/")

    def one(uri: str) -> None:
        target = folder / "copied" / uri.rsplit("/", 1)[-1]
        storage.download(uri, target)
        storage.upload(target, uri.replace("/raw/", "/copied/"))
        target.unlink()

    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, [stat.uri for stat in stats]))
    return {"seconds": time.monotonic() - started}


def _csv(folder: Path) -> dict[str, Any]:
    """Do everything that ``datasets add`` does with a directory before the upload: checksums, statistics, checks."""
    import numpy as np

    from mlengine.datasets import register
    from mlengine.datasets.contents import Contents
    from mlengine.storage.client import Storage

    np.random.default_rng()
    before = _resident()
    peak = _Peak()
    started = time.monotonic()
    no_upload(Contents, register)
    register.add(
        Storage(),
        "gs://benchmark",
        "csv",
        "v1",
        folder / "csv",
        license="x",
        source="x",
        target="left",
        key="id",
    )
    seconds = time.monotonic() - started
    return {"seconds": seconds, "mib": (peak.stop() - before) / 1024}


def no_upload(contents: Any, register: Any) -> None:
    """Disable uploads, and report no earlier version, because only reading and checking are measured."""
    contents.upload = lambda *_args: None
    register.list_versions = lambda *_args: []
    register.croissant.write = lambda *_args: None
    from mlengine.storage.client import Storage

    Storage.create = lambda *_args, **_fields: 0  # type: ignore[method-assign]


def _csv_pass(folder: Path) -> dict[str, Any]:
    from pyarrow import csv

    started = time.monotonic()
    for path in sorted((folder / "csv").rglob("*.csv")):
        for _ in csv.open_csv(path):
            pass
    return {"seconds": time.monotonic() - started}


def _resident() -> int:
    """The resident memory of this process in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


class _Peak:
    """The largest resident memory since the creation of this object."""

    def __init__(self) -> None:
        self._most, self._end = _resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self._most = max(self._most, _resident())

    def stop(self) -> int:
        self._end.set()
        self._thread.join()
        return self._most


STEPS = {"reference": _reference, "copy": _copy, "csv": _csv, "csv-pass": _csv_pass}

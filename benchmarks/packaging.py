"""The cost of packaging a trainer: a hit, a miss, and for comparison ``uv build --sdist`` with setuptools.

A changed project is built twice: its sdist, and a wheel from the sdist to check it.

The benchmark uses a real Cloud Storage server on this machine, so the time of a hit includes its one listing of the
bucket; a single listing is also measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from uv import find_uv_bin

from mlengine.packaging.publish import package_trainer
from mlengine.storage.client import Storage
from mlengine.testing import gcs

HIT_BUDGET = 0.050
MISS_BUDGET = 3.0
SETUP = """\
from setuptools import find_packages, setup
setup(name="trainer", version="0.0.0", packages=find_packages(), package_data={"trainer": ["data/*"]})
"""


def make_trainer(root: Path, files: int) -> Path:
    """Write a package with ``files`` modules in sub-packages, a data file, and a file that is excluded."""
    trainer = root / "trainer"
    for number in range(files):
        folder = trainer / f"part{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / f"module{number}.py").write_text(f"VALUE = {number}\n" * 100)
    (trainer / "__init__.py").touch()
    (trainer / "task.py").write_text("print('hello')\n")
    (trainer / "data").mkdir()
    (trainer / "data" / "vocab.txt").write_text("word\n" * 10_000)
    (trainer / ".env").write_text("TOKEN=1\n")
    return trainer


def timed(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def plain_build(project: Path, out: Path) -> None:
    command = [find_uv_bin(), "build", "-q", "--sdist", "--out-dir", str(out), "--python", sys.executable, str(project)]
    subprocess.run(command, check=True, capture_output=True)


def measure(work: Path, files: int, rounds: int) -> dict[str, list[float]]:
    """The seconds of each kind of packaging; the kinds alternate."""
    trainer = make_trainer(work / "alone", files)
    project = work / "project"
    inside = make_trainer(project, files)
    (project / "setup.py").write_text(SETUP)
    storage = Storage()
    storage.client.create_bucket("bench")
    found: dict[str, list[float]] = {"look": [], "hit": [], "miss": [], "project miss": [], "plain build": []}

    def package(source: Path) -> Callable[[], object]:
        return lambda: package_trainer(source, storage=storage, staging="bench", module="trainer.task")

    plain_build(project, work / "out")  # warm-up: downloads setuptools
    package(trainer)()
    for number in range(rounds):
        for folder in (trainer, inside):
            (folder / "task.py").write_text(f"print({number})\n")
        found["miss"].append(timed(package(trainer)))
        found["hit"].append(timed(package(trainer)))
        found["look"].append(timed(lambda: storage.ls("gs://bench/packages/trainer/none/")))
        found["project miss"].append(timed(package(project)))
        found["plain build"].append(timed(lambda: plain_build(project, work / "out")))
    return found


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 within the budgets, 1 if one is exceeded."""
    parser = argparse.ArgumentParser(prog="benchmarks packaging", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=50)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work, gcs.running() as server:
        os.environ.update(server.env)
        found = {name: median(times) for name, times in measure(Path(work), args.files, args.rounds).items()}
    print(f"Packaging a trainer of {args.files} modules, median of {args.rounds}")
    labels = {
        "look": "one listing of the bucket",
        "hit": "unchanged trainer (hit)",
        "miss": "changed package dir (miss)",
        "project miss": "changed project, setuptools (miss)",
        "plain build": "uv build --sdist, setuptools",
    }
    for name, label in labels.items():
        print(f"{label:36}{found[name] * 1000:9.1f} ms   {found[name] / found['plain build']:7.3f} x a plain build")
    hit, misses = found["hit"] - found["look"], max(found["miss"], found["project miss"])
    within = hit <= HIT_BUDGET and misses <= MISS_BUDGET
    print(f"budget: hit at most {HIT_BUDGET * 1000:.0f} ms and a listing, miss at most {MISS_BUDGET:.0f} s: ", end="")
    print("within" if within else "BEYOND")
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())

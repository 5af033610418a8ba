"""The entire validation of a registered model without a champion, compared with a script in the same environment.

Both start a process, import TensorFlow, load the model, read the same Parquet file and compute five metrics. The script
(:data:`~benchmarks.validation_parts.environment.PLAIN`) reads only the columns of the model. The validation also checks
the files, the signature and the consistency of the predictions, measures the latency, draws the plots, and stores the
report and the predictions. The imports of this process are excluded, because an Airflow task has already done them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.validation_env import PACKAGE, SHARED

from benchmarks.validation_parts.environment import plain, register_package, tensorflow
from benchmarks.validation_parts.figures import Seconds, timed, verdict
from benchmarks.validation_parts.table import COLUMNS, write_table
from mlengine.storage.client import Storage
from mlengine.validation.environment import ValidationEnvironment
from mlengine.validation.job import FinishedJob
from mlengine.validation.report import Report

BUDGET = 1.2


def run(args: argparse.Namespace) -> bool:
    from mlengine.testing import gcs
    from mlengine.validation.environment import local_environment

    with gcs.running() as server, tempfile.TemporaryDirectory() as name:
        os.environ.update(server.env)
        folder, storage = Path(name), Storage()
        environment = local_environment(storage, [register_package()], args.state or folder / "state")
        step = Step(args.rows, args.rounds, storage, environment, folder)
        step.register()
        within = [step.compare(width) for width in (16, 256)]
    return all(within)


@dataclass(frozen=True)
class Step:
    """The validation of one model.

    :param folder: an empty folder.
    """

    rows: int
    rounds: int
    storage: Storage
    environment: ValidationEnvironment
    folder: Path

    def register(self) -> None:
        """Register a dataset version with the held-out rows."""
        from mlengine import datasets

        for split, count in (("train", 1000), ("heldout", self.rows)):
            (self.folder / "data" / split).mkdir(parents=True)
            write_table(self.folder / "data" / split, count)
        roles = datasets.Roles(target="late", task="binary")
        options = datasets.Options(license="none", source="random numbers", roles=roles)
        datasets.add(self.storage, SHARED, "table", "1", self.folder / "data", options=options)

    def compare(self, width: int) -> bool:
        """Compare for a network of 8 inputs and two hidden layers of ``width`` units."""
        from mlengine.validation.rules import Rules
        from mlengine.validation.validation import validate

        file = self.folder / "data" / "heldout" / f"{self.rows}.parquet"
        work = self.folder / f"width{width}"
        work.mkdir()
        reports: list[Report] = []
        metrics: list[dict[str, float]] = []
        ours, theirs = [], []
        with self.environment.python() as python:
            tensorflow(python, "make", work, self.rows, width)
            job = self.job(work / "model", width)
            for _ in range(self.rounds):
                theirs.append(timed(lambda: metrics.append(plain(python, work / "model", file))))
                ours.append(timed(lambda: reports.append(validate(self.storage, job, Rules(), self.environment))))
        same = all(abs((reports[0].metrics[name] or 0) - value) < 1e-6 for name, value in metrics[0].items())
        assert same, (reports[0].metrics, metrics[0])
        print(f"{self.rows:,} rows, {COLUMNS} columns; 8 inputs, 2 x {width} units; minimum of {self.rounds}")
        return self.judge(ours, theirs, reports)

    def job(self, model: Path, width: int) -> FinishedJob:
        """Create a finished job with ``model``."""
        from mlengine.core.layout import JobDir, dataset_dir, join
        from mlengine.validation.job import load_job

        job_dir = JobDir.of(SHARED, "table", f"table_{width}")
        for path in sorted(model.rglob("*")):
            if path.is_file():
                self.storage.upload(path, join(job_dir.model, path.relative_to(model).as_posix()))
        uri = dataset_dir(SHARED, "table", "1")
        return load_job(self.storage, job_dir.uri, package_uris=[PACKAGE], dataset=uri)

    def judge(self, ours: list[Seconds], theirs: list[Seconds], reports: list[Report]) -> bool:
        wall, cpu = min(one.wall for one in ours), min(one.cpu for one in ours)
        plain_wall, plain_cpu = min(one.wall for one in theirs), min(one.cpu for one in theirs)
        print(f"{'the validation':48}{wall:10.2f} s  {cpu:8.2f} CPU-s")
        print(f"{'the plain script':48}{plain_wall:10.2f} s  {plain_cpu:8.2f} CPU-s")
        seconds = min((one.seconds for one in reports), key=lambda one: sum(one.values()))
        print("of the validation: " + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))
        print(f"ratio, validation to plain script: {wall / plain_wall:.2f}; of CPU: {cpu / plain_cpu:.2f}")
        within = wall <= BUDGET * plain_wall
        print(f"budget: {BUDGET} times the plain script: {verdict(within)}")
        return within

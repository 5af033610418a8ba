"""A bucket with the jobs of many months, for tests and benchmarks of the page.

The objects are real and written by this project's own code, but nothing is trained.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from mlengine.backends import LogPage, Submission
from mlengine.core.job import JobHandle, JobKey, JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check, Decision, Verdict
from mlengine.promotion.outcome import Force
from mlengine.promotion.publish import publish
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend, MemoryJob
from mlengine.validation.curves import read_curves
from mlengine.validation.report import Report, store
from mlengine.validation.report_page import render

NOW = 1_795_445_000.0
DAY = 86_400.0


class KnownJobs(MemoryBackend):
    """A backend whose jobs exist from the start, by name, with the times that a real backend would report."""

    def __init__(self) -> None:
        super().__init__("memory")
        self.times: dict[str, tuple[float, float | None]] = {}
        self.links: dict[str, str] = {}

    def clear(self) -> None:
        """Remove all jobs and calls."""
        self.jobs.clear()
        self.calls.clear()
        self.times.clear()
        self.links.clear()

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        self._called("describe")
        known = {job.handle.name: job for job in self.jobs}
        found = []
        for handle in handles:
            job = known.get(handle.name)
            if job is None:
                found.append(self._status(handle))
                continue
            began, ended = self.times[handle.name]
            detail = "the chief ended with exit code 0" if job.state is JobState.SUCCEEDED else "4 of 4 replicas"
            found.append(JobStatus(handle, job.state, detail, job.failure, began, began + 5, ended, links=self.links))
        return found

    def logs(self, handle: JobHandle, cursor: Any, limit: int = 1000) -> LogPage:
        self._called("logs")
        return LogPage((), {})


BACKEND = KnownJobs()


def backend(**_: Any) -> KnownJobs:
    """The backend that ``connect_backend("memory", …)`` returns."""
    return BACKEND


@dataclass
class SampleJobs:
    """Creates jobs in one bucket."""

    storage: Storage
    bucket: str
    model: str = "mnist"
    jobs: list[str] = field(default_factory=list)

    def job(
        self,
        job_id: str,
        *,
        state: JobState = JobState.SUCCEEDED,
        began: float = NOW - 30 * DAY,
        version: str = "2026-10-01",
        dag_id: str = "mnist_retraining",
        run_id: str = "scheduled__2026-10-01T00:00:00+00:00",
        metric: str = "accuracy",
        metric_value: float | None = 0.98,
        report: Report | None = None,
        dataset: str = "mnist",
        verdict: Decision = Decision.ACCEPTED,
        model: str | None = None,
        history: Sequence[dict[str, Any]] = (),
        args: Sequence[str] = ("--max_steps", "1000"),
    ) -> JobDir:
        """Create a job, with the files that a trainer and the validation write.

        :param report: the validation's report, instead of a short one; its page is rendered too.
        """
        job_dir = JobDir.of(self.bucket, model or self.model, job_id)
        key = JobKey(dag_id, run_id, "retrain.submit", -1, 2)
        pools = (Pool(Role.CHIEF, 1, "standard"), Pool(Role.WORKER, 2, "standard"), Pool(Role.PS, 1, "standard"))
        spec = TrainingSpec("trainer.task", ("gs://bkt/packages/trainer.tar.gz",), tuple(args), pools)
        record = JobRecord(
            key=key.digest,
            job_id=job_id,
            model=model or self.model,
            backend="memory",
            spec=spec.to_json(),
            owner=asdict(key),
            inputs={"dataset": {"version": version, "uri": f"{self.bucket}/datasets/{dataset}/{version}"}},
            name=f"{job_id}-1",
            history=(
                {"time": began, "event": "claimed"},
                {"time": began + 1, "event": "fresh_submit", "attempt": 1, "name": f"{job_id}-1"},
                *history,
            ),
        )
        self.storage.write(job_dir.claim, record.to_bytes())
        handle = JobHandle("memory", f"{job_id}-1", job_id, 1, job_dir.uri)
        BACKEND.jobs.append(MemoryJob(Submission(key.digest, job_id, 1, job_dir.uri, spec), handle, state))
        BACKEND.times[handle.name] = (began, began + 180 if state.terminal else None)
        steps = 1000 if state is JobState.SUCCEEDED else 412
        self._progress(job_dir, steps)
        if report is not None:
            self._store(job_dir, replace(report, model=model or self.model), dataset, version)
        elif state is JobState.SUCCEEDED and metric_value is not None:
            made = self._short_report(job_dir, model or self.model, metric, metric_value, verdict, began + 240)
            self._store(job_dir, made, dataset, version)
        self.jobs.append(job_id)
        return job_dir

    def logs(self, job_dir: JobDir, replica: str, text: bytes, attempt: int = 1) -> None:
        self.storage.write(f"{job_dir.logs}attempt-{attempt}/{replica}.log", text, "text/plain")

    def publish(self, job_dir: JobDir, report: Report, by: str = "mnist_retraining") -> None:
        outcome = publish(self.storage, self.bucket, report, by=by, force=Force(by, "a test"))
        assert outcome.published, outcome

    def _progress(self, job_dir: JobDir, step: int) -> None:
        progress = {"step": step, "of": 1000, "examples_per_second": 890.6, "loss": 0.2, "eta_seconds": 66.0}
        self.storage.write(job_dir.progress, json.dumps(progress).encode())
        lines = [
            {"step": at, "train_loss": 1 / at**0.5, "test_loss": 1.1 / at**0.5, "test_accuracy": 1 - 0.9 / at**0.5}
            for at in range(100, step + 1, 100)
        ]
        self.storage.write(job_dir.metrics, "\n".join(map(json.dumps, lines)).encode())

    def _short_report(
        self, job_dir: JobDir, model: str, metric: str, value: float, verdict: Decision, at: float
    ) -> Report:
        reason = f"{metric} is {value:.4g}; it must be ≥ 0.97."
        check = Check(metric, value, "≥ 0.97", verdict is not Decision.REJECTED, reason)
        return Report(
            model=model,
            job_id=job_dir.job_id,
            job_dir=job_dir.uri,
            model_uri=job_dir.model.rstrip("/"),
            verdict=Verdict(verdict, (reason,), (check,)),
            thresholds=Thresholds(),
            checks="all",
            created=datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
            figures={"latency_ms": 2.3},
            task="multiclass",
            model_kind="savedmodel",
            metrics={metric: value},
            main_metric=metric,
        )

    def _store(self, job_dir: JobDir, report: Report, dataset: str, version: str) -> None:
        facts = {"name": dataset, "version": version, "uri": f"{self.bucket}/datasets/{dataset}/{version}"}
        report = replace(
            report,
            job_id=job_dir.job_id,
            job_dir=job_dir.uri,
            model_uri=job_dir.model.rstrip("/"),
            dataset={**report.dataset, **facts},
        )
        page = render(report, read_curves(self.storage, job_dir))
        store(self.storage, report, None, page)

    def many(self, count: int, *, others: int = 0, seed: int = 7) -> None:
        """Create ``count`` ended jobs over several years: most accepted, some rejected, some failed, as in real use.

        :param others: number of additional objects in each dir: checkpoints, summaries, the model's files.
        """
        rng = random.Random(seed)

        def one(number: int) -> None:
            month = f"{2020 + number % 84 // 12}-{number % 12 + 1:02}-01"
            kind = rng.random()
            state = JobState.FAILED if kind < 0.06 else JobState.CANCELLED if kind < 0.09 else JobState.SUCCEEDED
            job_dir = self.job(
                f"mnist_{number:05}_{rng.randrange(16**8):08x}",
                state=state,
                began=NOW - (count - number) * DAY / 3,
                version=month,
                run_id=f"scheduled__{number}",
                metric_value=round(0.96 + 0.03 * rng.random(), 4),
                verdict=Decision.REJECTED if kind > 0.85 else Decision.ACCEPTED,
            )
            for at in range(others):
                self.storage.write(f"{job_dir.train}checkpoints/{at:08}/ckpt.index", b"0123456789")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(count)))

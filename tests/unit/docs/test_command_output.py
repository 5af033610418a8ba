"""The sample outputs of ``jobs reap`` and ``jobs prune`` in docs/operations.md match those of the commands."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.cli import main
from mlengine.cli.jobs import prune, reap
from mlengine.core.job import JobHandle, JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.storage.client import ObjectStat
from tests.support.manual import BLOCKS, ROOT

BUCKET = "gs://my-bucket"


def documented_output(command: str) -> str:
    """The lines below ``$ command`` on the page, up to the next command."""
    page = ROOT / "docs" / "operations.md"
    (block,) = [block for block in BLOCKS if block.page == page and f"$ {command}\n" in block.text]
    return block.text.partition(f"$ {command}\n")[2].partition("$ ")[0]


def record(run_id: str) -> JobRecord:
    owner = {"dag_id": "mnist_retraining", "run_id": run_id, "task_id": "retrain.submit"}
    return JobRecord(key="k", job_id="j", model="mnist", backend="local", spec={}, owner=owner)


def test_the_documented_output_of_reap_is_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Airflow:
        def __init__(self, *_: Any) -> None: ...

        def knows(self, _: str) -> bool:
            return True

        def run(self, _: str, run_id: str) -> dict[str, str]:
            return {"state": "failed" if run_id == "manual__2026-11-02" else "queued"}

        def tasks(self, *_: str) -> list[dict[str, Any]]:
            return [
                {"task_id": "retrain.submit", "map_index": -1, "max_tries": None, "state": "success", "operator": ""}
            ]

        def run_uid(self, *_: Any) -> None: ...

    handle = JobHandle("local", "n", "mnist_2026_11_01_0d9c2f31", 1, f"{BUCKET}/mnist/mnist_2026_11_01_0d9c2f31")
    jobs = [
        reap.ActiveJob(JobStatus(handle, JobState.RUNNING), record(run))
        for run in ("manual__2026-11-02", "manual__2026-11-03", "manual__2026-11-04")
    ]
    monkeypatch.setattr(reap, "AirflowRuns", Airflow)
    monkeypatch.setattr(reap, "active_jobs", lambda *_: jobs)
    assert main(["jobs", "reap", "--bucket", BUCKET, "--airflow-url", "http://localhost:8080"]) == 0
    assert capsys.readouterr().out == documented_output("mlengine jobs reap")


def test_the_documented_output_of_prune_is_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_dir = JobDir.of(BUCKET, "mnist", "mnist_2026_09_01_5be1a90c")
    written = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
    size = round(47.2 * 2**20) // 31
    objects = [ObjectStat(f"{job_dir.uri}/{number}", size, 1, written=written) for number in range(31)]
    monkeypatch.setattr(prune, "_models", lambda *_: ["mnist"])
    monkeypatch.setattr(prune, "old_jobs", lambda *_: [prune.OldJob(job_dir, objects)])
    monkeypatch.setattr(prune, "may_go", lambda *_: True)
    monkeypatch.setattr(prune, "References", lambda *_: SimpleNamespace(read=set))
    assert main(["jobs", "prune", "--bucket", BUCKET, "--older-than", "30"]) == 0
    assert capsys.readouterr().out == documented_output("mlengine jobs prune --older-than 30")

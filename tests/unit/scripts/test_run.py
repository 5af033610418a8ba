"""What ``make run`` prints."""

from __future__ import annotations

from typing import Any

import pytest
from scripts.follow import job_line
from scripts.run import champion_line

from mlengine.core.job import JobHandle, JobState, JobStatus


@pytest.mark.parametrize(
    ("champion", "line"),
    [
        (
            {"metric": "accuracy", "metric_value": 0.98765, "dataset": {"version": "2026-11-01"}},
            "Champion: no. 3, job mnist_1, accuracy 0.9877, trained on 2026-11-01",
        ),
        (
            {"metric": "", "metric_value": None, "dataset": {}},
            "Champion: no. 3, job mnist_1, not measured, trained on an unnamed version",
        ),
    ],
)
def test_a_champion_without_metric_or_dataset_is_shown(champion: dict[str, Any], line: str) -> None:
    assert champion_line({"serial": 3, "job_id": "mnist_1", **champion}) == line


@pytest.mark.parametrize(
    ("state", "detail", "line"),
    [
        (JobState.QUEUED, "the launcher is starting", "job mnist_1: QUEUED; the launcher is starting"),
        (JobState.QUEUED, "", "job mnist_1: QUEUED"),
        (JobState.RUNNING, "3 of 3 replicas run", "job mnist_1: RUNNING"),
    ],
)
def test_a_queued_job_is_shown_with_the_reason_that_its_backend_gives(state: JobState, detail: str, line: str) -> None:
    assert job_line(JobStatus(JobHandle("local", "j", "mnist_1", 1, "gs://b/mnist/mnist_1"), state, detail)) == line

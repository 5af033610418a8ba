"""What ``make run`` prints."""

from __future__ import annotations

from typing import Any

import pytest
from scripts.run import champion_line


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

"""Rows as they are kept: what is read back is what was written, and nothing else."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest

from mlengine.core.job import JobState, JobStatus
from mlengine.web.rows import Row, describe

ROW = Row(
    "mnist", "mnist_1", "local", 1, "SUCCEEDED", 1.0, metric="roc_auc", metric_value=0.8, step=5, of=10, final=True
)


def test_a_row_comes_back() -> None:
    assert Row.from_json(ROW.to_json()) == ROW
    assert Row.from_json({**ROW.to_json(), "later": "a field of a newer version"}) == ROW


@pytest.mark.parametrize(
    "change",
    [
        {"state": "DONE"},
        {"claimed": "yesterday"},
        {"job_id": 7},
        {"eta": [1]},
        {"metric": 1},
        {"metric_value": {}},
        {"final": "no"},
    ],
)
def test_what_is_no_row_is_refused(change: dict[str, Any]) -> None:
    """The index lies in the bucket, where others may write: one wrong row must not break every view."""
    with pytest.raises((ValueError, TypeError)):
        Row.from_json({**ROW.to_json(), **change})


def test_a_row_without_its_name_is_refused() -> None:
    data = ROW.to_json()
    del data["job_id"]
    with pytest.raises(TypeError):
        Row.from_json(data)


class Silent:
    name = "silent"

    def describe(self, handles: Any) -> list[JobStatus]:
        raise AssertionError("nothing may be requested")


def test_no_jobs_are_no_question() -> None:
    assert describe(Silent(), []) == {}  # type: ignore[arg-type]


def test_states_of_the_page_are_the_project_s() -> None:
    """The page colours states by name."""
    css = files("mlengine.web").joinpath("static/page.css").read_text()
    assert [state.value for state in JobState if f".chip.{state.value}" not in css] == []

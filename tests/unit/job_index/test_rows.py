"""Stored rows: round trips, and rejection of anything else."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from mlengine.core.job import JobState
from mlengine.job_index.rows import Row, from_columns, to_columns

ROW = Row("mnist", "mnist_1", "local", 1, "SUCCEEDED", 1.0, metric="roc_auc", metric_value=0.8, step=5, final_at=7.0)
OTHER = ROW._replace(job_id="mnist_2", state="RUNNING", final_at=None)


def stored(rows: list[Row]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(to_columns(rows))))


def test_rows_survive_serialization() -> None:
    assert from_columns(stored([ROW, OTHER])) == [ROW, OTHER]
    assert from_columns(stored([])) == []


def test_columns_of_a_newer_version_are_ignored_and_missing_ones_have_the_default() -> None:
    columns = stored([ROW, OTHER])
    del columns["metric"]
    assert from_columns({**columns, "later": [1, 2]}) == [ROW._replace(metric=""), OTHER._replace(metric="")]


@pytest.mark.parametrize(
    "change",
    [
        {"state": ["DONE"]},
        {"claimed": ["yesterday"]},
        {"job_id": [7]},
        {"attempt": ["1"]},
        {"eta": [[1]]},
        {"metric": [1]},
        {"metric_value": [{}]},
        {"final_at": [True]},
        {"claim_generation": [1.5]},
        {"metric_value": [float("nan")]},
        {"metric_value": [10**400]},
        {"claimed": [1e15]},
        {"ended": [float("inf")]},
        {"verdict": ["accepted", "accepted"]},
        {"verdict": "x"},
        {"job_id": None},
    ],
)
def test_invalid_columns_are_rejected(change: dict[str, Any]) -> None:
    """Others may write to the bucket, and one invalid row must not break every view."""
    columns = {name: values for name, values in {**stored([ROW]), **change}.items() if values is not None}
    with pytest.raises(ValueError, match=r"column|invalid"):
        from_columns(columns)


def test_a_row_becomes_final_after_some_time() -> None:
    assert [ROW.final(6.0), ROW.final(7.0), OTHER.final(7.0)] == [False, True, False]


def test_the_page_has_a_colour_for_every_state() -> None:
    css = files("mlengine.web").joinpath("static/page.css").read_text()
    assert [state.value for state in JobState if f".chip.{state.value}" not in css] == []

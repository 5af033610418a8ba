"""The measurements of a predictor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlengine.validation.scoring import measure
from mlengine.validation.scoring.rows import Rows


class Predictor:
    """A predictor that applies a function to the column ``x`` and records the batch sizes."""

    def __init__(self, function: Any, batch_size: int | None = None) -> None:
        self.function, self.batch_size = function, batch_size
        self.sizes: list[int] = []

    def predict(self, batch: dict[str, Any]) -> Any:
        self.sizes.append(len(batch["x"]))
        return self.function(batch["x"])


def write_rows(folder: Path, count: int) -> Rows:
    np.arange(float(count)).tofile(folder / "x")
    columns = [{"name": "x", "kind": "array", "data": "x", "dtype": "<f8", "shape": []}]
    (folder / "columns.json").write_text(json.dumps({"rows": count, "columns": columns}))
    return Rows(folder)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return write_rows(tmp_path, 7)


def score(predictor: Predictor, rows: Rows, size: int = 3, output: str | None = None) -> Any:
    return measure.score(measure.Outputs(predictor, output), rows, size).tolist()


def test_all_rows_are_scored_in_batches(rows: Rows) -> None:
    predictor = Predictor(lambda x: x * 2)
    assert score(predictor, rows) == [[2.0 * row] for row in range(7)]
    assert predictor.sizes == [3, 3, 1]


def test_the_last_batch_of_a_fixed_size_is_padded_and_trimmed(rows: Rows) -> None:
    predictor = Predictor(lambda x: np.stack([x, -x], 1), batch_size=4)
    assert score(predictor, rows, 7) == [[row, -row] for row in range(7)]
    assert predictor.sizes == [4, 4]


def test_an_output_is_chosen_by_name_or_because_it_is_the_only_one_of_floats(rows: Rows) -> None:
    answer = Predictor(lambda x: {"label": np.array(["a"] * len(x)), "p": x / 7})
    assert score(answer, rows)[6] == [6 / 7]
    two = Predictor(lambda x: {"a": x, "b": x + 1})
    assert score(two, rows, output="b")[0] == [1.0]
    with pytest.raises(ValueError, match="has the outputs a, b: say which"):
        score(two, rows)
    with pytest.raises(ValueError, match="no output 'c'; there are a, b"):
        score(two, rows, output="c")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x[:-1], r"3 rows gave predictions of shape \[2\]"),
        (lambda x: 1.0, r"3 rows gave predictions of shape \[\]"),
        (lambda x: np.array(["a"] * len(x)), "not numbers"),
        (lambda x: np.zeros((len(x), 2, 2)), r"predictions of shape \[2, 2\]"),
        (lambda x: np.zeros((len(x), 1 + int(x[0] > 0))), "some rows have 1 predictions, others 2"),
    ],
)
def test_predictions_that_are_not_numbers_for_each_row_are_refused(rows: Rows, answer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(Predictor(answer), rows)


def test_too_many_predictions_are_refused_before_memory_is_allocated(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "MAX_VALUES", 13)
    with pytest.raises(ValueError, match="2 predictions for each of 7 rows are more than 13 in all"):
        score(Predictor(lambda x: np.zeros((len(x), 2))), rows)


def test_outputs_that_depend_on_the_batch_are_detected(rows: Rows) -> None:
    assert measure.check_batches(measure.Outputs(Predictor(lambda x: x), None), rows)["batch_difference"] == 0.0
    found = measure.check_batches(measure.Outputs(Predictor(lambda x: x / x.sum() if x.sum() else x), None), rows)
    assert found["batch_difference"] > 0.5


class Clock:
    """A clock that advances by the cost of each call, as on a machine where other processes take the processor."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0

    def predictor(self, cost: Any, stalls: Any = lambda call: False) -> Predictor:
        def answer(x: Any) -> Any:
            self.seconds += cost(x[0]) + (0.1 if stalls(self.calls) else 0.0)
            self.calls += 1
            return x

        return Predictor(answer)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("count", [1, 7, 8, 100])
def test_the_latency_does_not_depend_on_other_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, at: int
) -> None:
    """Every second call is interrupted, which a fixed order would charge to the same predictor."""
    rows = write_rows(tmp_path, count)
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.seconds)
    predictors = [clock.predictor(lambda _: 0.001, lambda call: call % 2 == at) for _ in range(2)]
    found = measure.latency([measure.Outputs(predictor, None) for predictor in predictors], rows)
    assert found == pytest.approx([1.0, 1.0])


def test_the_latency_is_the_median_over_rows(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.seconds)
    slow = clock.predictor(lambda x: 0.001 * (x + 1))
    assert measure.latency([measure.Outputs(slow, None)], rows) == pytest.approx([4.0])
    assert len(slow.sizes) == measure.WARM + measure.CALLS


class Changing(Predictor):
    """A scorer that changes its batch: its values, and the column itself."""

    def predict(self, batch: dict[str, Any]) -> Any:
        batch["x"] += 1
        batch["x"] = np.log(batch["x"])
        assert np.isfinite(batch["x"]).all()
        return batch["x"]


def test_a_predictor_may_change_its_batch(rows: Rows) -> None:
    outputs = measure.Outputs(Changing(None), None)
    assert measure.check_batches(outputs, rows) == {"batch_difference": 0.0, "largest": np.log(7)}
    assert measure.latency([outputs, outputs], rows)
    assert np.array_equal(measure.score(outputs, rows, 3)[:, 0], np.log(np.arange(7) + 1))

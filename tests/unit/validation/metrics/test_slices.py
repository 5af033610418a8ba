"""Slices: their rows, names and order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlengine.core.errors import MlengineError
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.slices import slices


def outcomes(target: list[int], predicted: list[int]) -> Outcomes:
    return Outcomes("multiclass", np.array(target), None, np.array(predicted), None, 2)


def names(column: Any, **arguments: Any) -> list[tuple[str, int]]:
    values = np.asarray(column)
    one = outcomes([0] * len(values), [0] * len(values))
    found = slices(one, {"c": values}, "accuracy", arguments.get("min_rows", 1))
    return sorted((part.name, part.rows) for part in found)


def test_the_worst_slice_is_first_and_the_champion_is_measured_on_the_same_rows() -> None:
    column = np.array(["UA", "UA", "AA", "AA", "HA"], object)
    mine, champion = outcomes([0, 1, 0, 1, 0], [0, 0, 0, 1, 1]), outcomes([0, 1, 0, 1, 0], [0, 1, 1, 1, 1])
    found = slices(mine, {"carrier": column}, "accuracy", 2, champion)
    assert [(one.name, one.rows, one.value.number) for one in found] == [("carrier=UA", 2, 0.5), ("carrier=AA", 2, 1.0)]
    assert [one.champion.number for one in found if one.champion] == [1.0, 0.5]


def test_slices_of_an_error_metric_are_sorted_by_the_largest_value() -> None:
    one = Outcomes("regression", np.zeros(4), np.array([1.0, 1.0, 5.0, 5.0]))
    found = slices(one, {"c": np.array([1, 1, 2, 2])}, "mean_absolute_error", 1)
    assert [part.name for part in found] == ["c=2", "c=1"]


def test_an_undefined_slice_is_last_and_has_a_reason() -> None:
    one = Outcomes("binary", np.array([0, 1, 1, 1]), np.array([0.2, 0.7, 0.6, 0.9]), None, None, 2)
    found = slices(one, {"c": np.array(["x", "x", "y", "y"])}, "roc_auc", 1)
    assert [(part.name, part.value.number) for part in found] == [("c=x", 1.0), ("c=y", None)]
    assert found[1].value.undefined == "all 2 rows are of one class"


def test_slices_by_combinations_of_columns() -> None:
    columns = {"a": np.array(["x", "x", "y", "y"], object), "b": np.array([True, False, True, True])}
    found = slices(outcomes([0] * 4, [0] * 4), columns, "accuracy", 1)
    assert sorted((one.name, one.rows) for one in found) == [
        ("a=x, b=False", 1),
        ("a=x, b=True", 1),
        ("a=y, b=True", 2),
    ]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1, 2, 2], [("c=1", 1), ("c=2", 2)]),
        ([1.5, np.nan, np.nan], [("c=1.5", 1), ("c=missing", 2)]),
        (np.array(["a", None, ""], object), [("c=", 1), ("c=a", 1), ("c=missing", 1)]),
        (
            np.arange(100),
            [("c=[0, 19.8)", 20), ("c=[19.8, 39.6)", 20), ("c=[39.6, 59.4)", 20), ("c=[59.4, 79.2)", 20),
             ("c=[79.2, 99]", 20)],
        ),
        # A common value, such as "no delay", gets its own slice.
        (
            np.concatenate((np.zeros(900), np.arange(1, 101))),
            [("c=0", 900), ("c=[1, 20.8)", 20), ("c=[20.8, 40.6)", 20), ("c=[40.6, 60.4)", 20),
             ("c=[60.4, 80.2)", 20), ("c=[80.2, 100]", 20)],
        ),
        ([20130101, 20130102], [("c=20130101", 1), ("c=20130102", 1)]),
        ([0.1234567, 0.1234568], [("c=0.1234567", 1), ("c=0.1234568", 1)]),
    ],
)  # fmt: skip
def test_slices_by_values_and_bins(column: Any, expected: list[tuple[str, int]]) -> None:
    assert names(column) == expected


def test_missing_numbers_are_a_slice_of_their_own() -> None:
    column = np.concatenate((np.arange(100.0), [np.nan] * 7))
    assert dict(names(column))["c=missing"] == 7
    assert sum(rows for _, rows in names(column)) == 107
    assert dict(names(np.concatenate((np.arange(50.0), [np.nan] * 50))))["c=missing"] == 50
    assert dict(names(np.full(30, np.nan))) == {"c=missing": 30}


def test_infinite_numbers_are_in_the_outermost_bins() -> None:
    column = np.concatenate(([-np.inf, np.inf, np.inf], np.arange(100.0)))
    assert [rows for _, rows in names(column)] == [21, 20, 20, 20, 22]


def test_the_number_of_slices_is_limited() -> None:
    assert names(np.array([str(at) for at in range(3000)]), min_rows=2) == []
    assert len(names(np.array([str(at) for at in range(3000)]))) == 1000


def test_a_metric_of_another_task_is_refused() -> None:
    with pytest.raises(MlengineError, match="'roc_auc' is of binary, and the task is multiclass"):
        slices(outcomes([0], [0]), {"c": np.array([1])}, "roc_auc", 1)

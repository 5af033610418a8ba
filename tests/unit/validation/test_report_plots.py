"""The plots of unusual predictions: they are drawn, or left out, but never an error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlengine.validation.metrics.curves import curves
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.report_plots import confusion, task_plots, threshold_table
from tests.support import sample_reports

OPAQUE = sample_reports.opaque()


def plots_of(task: str, target: Any, values: Any) -> list[str]:
    outcomes = Outcomes(task, np.array(target), np.array(values), class_count=2)
    return task_plots(replace(OPAQUE, task=task, curves=curves(outcomes)))


@pytest.mark.parametrize(
    ("target", "values"),
    [
        ([3.0], [3.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([1.0, 2.0, 3.0], [1e8 + 1.5, 1e8 + 2.0, 1e8 + 3.25]),
        ([1e-9, 2e-9], [1.5e-9, 2e-9]),
        ([1.0, 2.0] * 500, [1.0, 2.0] * 499 + [1.0, 1e30]),
    ],
)
def test_a_regression_of_any_scale_is_plotted(target: list[float], values: list[float]) -> None:
    drawn = plots_of("regression", target, values)
    assert len(drawn) == 2
    assert not any("nan" in svg or "inf" in svg for svg in drawn)


def test_a_single_outlier_does_not_empty_the_plot() -> None:
    draw = np.random.default_rng(1)
    target = draw.normal(0, 1, 2000)
    values = target + draw.normal(0, 0.1, 2000)
    values[0] = 1e6
    found = curves(Outcomes("regression", target, values))["residuals"]
    assert found["edges"][-1] < 1
    assert sum(found["rows"]) == 2000
    assert sum(1 for rows in found["rows"] if rows) > 20


def test_rows_of_one_class_have_a_calibration_curve_but_no_roc_curve() -> None:
    drawn = plots_of("binary", [1, 1, 1], [0.2, 0.7, 1.0])
    assert len(drawn) == 1
    assert "Calibration" in drawn[0]


def test_the_champion_is_in_the_same_plots() -> None:
    drawn = task_plots(sample_reports.binary())
    assert [svg.count("<polyline") for svg in drawn] == [2, 2, 2]
    assert [svg.count("<polyline") for svg in task_plots(sample_reports.binary(champion=False))] == [1, 1, 1]


def test_thresholds_that_predict_nothing_have_no_precision() -> None:
    outcomes = Outcomes("binary", np.array([0, 1]), np.array([0.1, 0.3]))
    table = threshold_table(replace(OPAQUE, task="binary", curves=curves(outcomes)))
    assert table[0] == ("0.1", "0.500", "1.000", "0.667", "100.0 %")
    assert table[8] == ("0.9", "-", "0.000", "-", "0.0 %")


def test_a_confusion_matrix_names_the_classes() -> None:
    found = {"classes": [0, 2], "others": True, "rows": [[8, 1, 1], [0, 5, 0], [2, 0, 3]]}
    matrix = confusion(replace(OPAQUE, curves={"confusion": found}, dataset={"classes": ["cat", "cow", "dog"]}))
    assert matrix["names"] == ["cat", "dog", "others"]
    assert [row["recall"] for row in matrix["rows"]] == ["80.0 %", "100.0 %", "-"]
    assert matrix["rows"][2]["cells"][0]["title"] == "others predicted as cat: 2"
    assert confusion(OPAQUE) == {}

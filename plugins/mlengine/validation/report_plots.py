"""The plots of a report, by task: how good the predictions are beyond a single number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlengine.validation import plots
from mlengine.validation.curves import Curves
from mlengine.validation.plots import SQUARE, Frame, Points, round_span
from mlengine.validation.report import Report

_UNIT = (0.0, 1.0)
_RIGHT, _WRONG = "26,127,55", "180,35,24"  # colours of the confusion matrix, RGB


def learning_curves(curves: Curves) -> list[str]:
    """One plot for each measurement of the trainer."""
    return [
        plots.lines(_frame_of(title, series), {name: points for name, points in series.items() if points})
        for title, series in curves.plots.items()
    ]


def task_plots(report: Report) -> list[str]:
    """ROC, precision and recall, and calibration of a binary model; residuals and predictions of a regression."""
    found = report.curves
    if report.task == "regression" and "residuals" in found:
        residuals, cells = found["residuals"], found["predicted_by_actual"]
        return [
            plots.histogram("Residuals", residuals["edges"], residuals["rows"], "predicted minus actual"),
            plots.grid("Predicted against actual", (cells["low"], cells["high"]), cells["rows"], "actual", "predicted"),
        ]
    return _binary(found, report.baseline.get("curves", {})) if report.task == "binary" else []


def _binary(found: Mapping[str, Any], champion: Mapping[str, Any]) -> list[str]:
    drawn = []
    if "roc" in found:
        frame = Frame("ROC curve", _UNIT, _UNIT, "false positive rate", "recall", **SQUARE)
        drawn.append(plots.lines(frame, _of_both(found, champion, _roc), under=plots.diagonal(frame)))
    if "precision_recall" in found:
        frame = Frame("Precision/recall", _UNIT, _UNIT, "recall", "precision", **SQUARE)
        series = _of_both(found, champion, _precision_recall)
        # With every row predicted positive, the precision is the share of positive rows.
        share = next(iter(series.values()))[-1][1]
        under = frame.line((0, share), (1, share), 'stroke="var(--soft)" stroke-dasharray="4 3"')
        drawn.append(plots.lines(frame, series, under=under))
    if found.get("calibration"):
        frame = Frame("Calibration", _UNIT, _UNIT, "predicted probability", "share of positive rows", **SQUARE)
        dots = {
            (one["probability"], one["frequency"]): f"predicted {one['probability']:.3f}, "
            f"positive {one['frequency']:.3f}, {one['rows']:,.0f} rows"
            for one in found["calibration"]
        }
        series = _of_both(found, champion, _calibration)
        drawn.append(plots.lines(frame, series, dots=dots, under=plots.diagonal(frame)))
    return drawn


def _of_both(found: Mapping[str, Any], champion: Mapping[str, Any], points: Any) -> dict[str, Points]:
    both = {"challenger": points(found), "champion": points(champion)}
    return {name: drawn for name, drawn in both.items() if drawn}


def _roc(found: Mapping[str, Any]) -> Points:
    roc = found.get("roc")
    return [(0.0, 0.0), *zip(roc["false_positive_rate"], roc["recall"], strict=True)] if roc else []


def _precision_recall(found: Mapping[str, Any]) -> Points:
    curve = found.get("precision_recall")
    return list(zip(curve["recall"], curve["precision"], strict=True)) if curve else []


def _calibration(found: Mapping[str, Any]) -> Points:
    return [(one["probability"], one["frequency"]) for one in found.get("calibration", ())]


def threshold_table(report: Report) -> list[tuple[str, ...]]:
    """Rows of threshold, precision, recall, F1 and share of rows that are predicted positive."""
    return [
        (
            f"{row['threshold']:.1f}",
            _share(row["precision"]),
            _share(row["recall"]),
            _share(_f1(row["precision"], row["recall"])),
            f"{100 * row['predicted']:.1f} %",
        )
        for row in report.curves.get("thresholds", ())
    ]


def confusion(report: Report) -> dict[str, Any]:
    """The confusion matrix: ``names`` of the classes, and ``rows`` of name, cells and recall; empty without one.

    Right predictions are green; errors are red, the more the darker.
    """
    found = report.curves.get("confusion") or {}
    matrix: Sequence[Sequence[int]] = found.get("rows") or []
    if not matrix:
        return {}
    known = report.dataset.get("classes") or []
    names = [str(known[at]) if at < len(known) else str(at) for at in found.get("classes", range(len(matrix)))]
    if len(names) < len(matrix):
        names.append("others")
    largest = max((count for at, row in enumerate(matrix) for to, count in enumerate(row) if at != to), default=0)
    most = max(largest, 0.05 * max(map(sum, matrix)), 1)  # so that a few errors among many rows stay pale
    rows = []
    for at, counts in enumerate(matrix):
        cells = [
            {
                "count": f"{count:,}" if count else "",
                "colour": _RIGHT if at == to else _WRONG,
                "shade": (0.14 if at == to else 0.75 * count / most) if count else 0,
                "title": f"{names[at]} predicted as {names[to]}: {count:,}",
            }
            for to, count in enumerate(counts)
        ]
        total = sum(counts)
        # "others" is the sum of several classes, so its diagonal is not the number of right predictions.
        recall = "-" if not total or names[at] == "others" else f"{100 * counts[at] / total:.1f} %"
        rows.append({"name": names[at], "cells": cells, "recall": recall})
    return {"names": names, "rows": rows, "long": max(map(len, names)) > 4}


def _frame_of(title: str, series: Mapping[str, Points]) -> Frame:
    points = [point for one in series.values() for point in one]
    xs, ys = round_span([x for x, _ in points]), round_span([y for _, y in points])
    return Frame(title.replace("_", " "), xs, ys, "step")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _f1(precision: float | None, recall: float | None) -> float | None:
    if precision is None or recall is None or not precision + recall:
        return None
    return 2 * precision * recall / (precision + recall)

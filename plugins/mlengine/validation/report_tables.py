"""The tables of a report: metrics of both models, slices, and the rows with the largest errors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mlengine.core.errors import MlengineError
from mlengine.core.metrics import format_difference, format_value
from mlengine.core.plural import number_of
from mlengine.core.thresholds import SliceThreshold
from mlengine.validation.images import png
from mlengine.validation.metrics.registry import user_info
from mlengine.validation.report import Report

MOST_SLICES = 50  # rows of a table
_LONGEST = 80  # characters of a value
_NONE = "-"


def metrics(report: Report) -> list[dict[str, Any]]:
    """The table with one row for each metric, the main metric first; then the dataset version and the latency.

    ``gain`` is the improvement of the challenger: positive if it is better, whether a higher or lower value is better.
    """
    theirs = report.baseline.get("metrics", {})
    if not theirs and report.champion.get("metric"):  # the champion was not measured again
        theirs = {report.champion["metric"]: report.champion.get("metric_value")}
    names = sorted(report.metrics, key=lambda name: name != report.main_metric)
    rows = [_metric(report, name, theirs) for name in names]
    if report.champion and rows:
        rows.append(_plain("dataset version", report.dataset.get("version"), report.champion.get("dataset_version")))
    mine, other = (_milliseconds(report.baseline.get(name)) for name in ("challenger_latency_ms", "latency_ms"))
    mine = mine or _milliseconds(report.figures.get("latency_ms"))
    return [*rows, _plain("latency of one row", mine, other)] if mine else rows


def _metric(report: Report, name: str, theirs: Mapping[str, float | None]) -> dict[str, Any]:
    value, other = report.metrics[name], theirs.get(name)
    higher = higher_is_better(name)
    found = report.comparison.get(name)
    found = found if isinstance(found, Mapping) else {}
    gain, interval = found.get("gain"), ""
    if gain is None and value is not None and other is not None:
        gain = (value - other) if higher else (other - value)
    if found.get("low") is not None:
        interval = f"{format_difference(found['low'])} to {format_difference(found['high'])}"
    elif found.get("undefined"):
        interval = f"cannot be compared: {found['undefined']}"
    return {
        "name": name,
        "note": "" if higher else "lower is better",
        "main": name == report.main_metric,
        "value": _or_undefined(value, report.undefined.get(name)),
        "champion": _NONE if other is None else format_value(other),
        "gain": _NONE if gain is None else format_difference(gain),
        "mark": _mark(gain),
        "interval": interval or _NONE,
    }


def _plain(name: str, value: Any, other: Any) -> dict[str, Any]:
    shown = [_NONE if one in (None, "") else str(one) for one in (value, other)]
    row = {"name": name, "note": "", "main": False, "value": shown[0], "champion": shown[1]}
    return {**row, "gain": _NONE, "mark": "", "interval": _NONE}


def slices(report: Report) -> list[dict[str, Any]]:
    """A table for each slice threshold: slices that fail come first, then the others in order of harm.

    Harm is the number of rows multiplied by the loss of quality on them: compared with the champion, or without a
    champion, compared with all rows.
    """
    thresholds = {f"{item.metric} by {', '.join(item.by)}": item for item in report.thresholds.slices}
    return [_slice_table(report, title, rows, thresholds.get(title)) for title, rows in report.slices.items() if rows]


def _slice_table(report: Report, title: str, parts: Any, threshold: SliceThreshold | None) -> dict[str, Any]:
    metric = title.partition(" by ")[0] if threshold is None else threshold.metric
    sign = 1 if higher_is_better(metric) else -1
    against_champion = any(_number(part.get("champion")) is not None for part in parts)
    whole = report.metrics.get(metric)
    rows = []
    for part in parts:
        value = _number(part["value"])
        other = _number(part.get("champion")) if against_champion else whole
        gain = None if value is None or other is None else sign * (value - other)
        rows.append(
            {
                "name": part["name"],
                "rows": f"{part['rows']:,}",
                "value": _or_undefined(value, part["value"].get("undefined")),
                "other": _NONE if other is None else format_value(other),
                "gain": _NONE if gain is None else format_difference(gain),
                "mark": _mark(gain),
                "failed": _fails(value, threshold),
                "harm": -part["rows"] * gain if gain is not None else None,
            }
        )
    rows.sort(key=lambda row: (not row["failed"], row["harm"] is None, -(row["harm"] or 0.0)))
    return {
        "title": title,
        "threshold": _threshold(threshold),
        "against": "champion" if against_champion else "all rows",
        "note": "" if sign > 0 else "lower is better",
        "rows": rows[:MOST_SLICES],
        "left_out": max(len(rows) - MOST_SLICES, 0),
    }


def _fails(value: float | None, threshold: SliceThreshold | None) -> bool:
    if value is None or threshold is None:
        return False
    return (threshold.min is not None and value < threshold.min) or (
        threshold.max is not None and value > threshold.max
    )


def _threshold(threshold: SliceThreshold | None) -> str:
    if threshold is None:
        return ""
    limits = [
        f"{sign} {limit:,.10g}" for sign, limit in (("≥", threshold.min), ("≤", threshold.max)) if limit is not None
    ]
    rows = f"slices with at least {number_of(threshold.min_rows, 'row')}"
    return f"Threshold: {' and '.join(limits)}, for {rows}." if limits else f"Shown are {rows}; no threshold is set."


def worst_rows(report: Report) -> dict[str, Any]:
    """The rows with the largest errors: ``images`` as PNG in base64, or ``head`` and ``rows`` of a table."""
    found = [{**row, "image": _image(row.get("image") or {})} for row in report.worst_rows]
    if any(row["image"] for row in found):
        images = [
            {**row, "title": ", ".join(f"{name} {value}" for name, value in _columns(row).items())} for row in found
        ]
        return {"images": images, "rows": []}
    names = list(dict.fromkeys(name for row in found for name in _columns(row)))
    error = "error" if report.task == "regression" else "confidence"
    keyed = any(row.get("key") is not None for row in found)
    titles = ["row", *(["key"] if keyed else []), "actual", "predicted", error, *names]
    rows = [_worst(row, names, keyed=keyed) for row in found]
    head = [{"text": title, "number": all(row[at]["number"] for row in rows)} for at, title in enumerate(titles)]
    return {"images": [], "head": head, "rows": rows}


def _worst(row: Mapping[str, Any], names: list[str], *, keyed: bool) -> list[dict[str, Any]]:
    values = [row.get("row"), *([row.get("key")] if keyed else []), row.get("target"), row.get("prediction")]
    columns = _columns(row)
    return [_cell(value) for value in (*values, row.get("error"), *(columns.get(name) for name in names))]


def _columns(row: Mapping[str, Any]) -> Mapping[str, Any]:
    columns = row.get("columns")
    return columns if isinstance(columns, Mapping) else {}


def _cell(value: Any) -> dict[str, Any]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = _NONE if value is None else _written(value) if isinstance(value, float) else str(value)
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return {"text": short, "number": number, "title": text if short != text else ""}


def _written(value: float) -> str:
    return format_value(value) if abs(value) >= 1e4 else f"{value:.6g}"


def _image(image: Mapping[str, Any]) -> str:
    """A PNG in base64; empty if there is no image."""
    try:
        pixels = base64.b64decode(str(image["pixels"]), validate=True)
        height, width = (int(size) for size in image["shape"])
    except (KeyError, ValueError, TypeError, binascii.Error):
        return ""
    if height * width != len(pixels) or not pixels:
        return ""
    return base64.b64encode(png(pixels, width=width)).decode()


def higher_is_better(metric: str) -> bool:
    """Whether a higher value is better. This is assumed for a user's function that cannot be imported here."""
    try:
        return user_info(metric).higher_is_better
    except MlengineError:
        return True


def _or_undefined(value: float | None, why: Any) -> str:
    if value is not None:
        return format_value(value)
    return f"undefined: {why}" if why else _NONE


def _number(value: Any) -> float | None:
    number = value.get("number") if isinstance(value, Mapping) else None
    return float(number) if isinstance(number, (int, float)) else None


def _mark(gain: float | None) -> str:
    return "" if not gain else "better" if gain > 0 else "worse"


def _milliseconds(value: object) -> str | None:
    return f"{value:.2f} ms" if isinstance(value, (int, float)) else None

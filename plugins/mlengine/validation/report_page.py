"""``report.html``: the report for people, in one file, without scripts and without anything fetched from elsewhere.

The template is ``report.html.jinja``. Jinja escapes every value; the plots are from :mod:`mlengine.validation.plots`,
which escapes for itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.verdict import Decision
from mlengine.validation import plots
from mlengine.validation.curves import Curves
from mlengine.validation.report import Report

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = Path(__file__).with_name("report.html.jinja")
_RIGHT, _WRONG = "26,127,55", "180,35,24"  # colours of the confusion matrix, RGB

_TITLES = {Decision.FIRST: "Accepted as the first", Decision.NOT_COMPARED: "Not compared with the champion"}


def render(report: Report, curves: Curves) -> bytes:
    """The page as UTF-8."""
    decision = report.verdict.decision
    page = _template().render(
        report=report,
        decision=decision,
        title=_TITLES.get(decision, decision.value.capitalize()),
        rivals=_rivals(report),
        curves=_curves(curves),
        confusion=_confusion(report.curves.get("confusion", {}).get("rows")),
        worst_rows=list(_worst_rows(report)),
        times=_times(report),
        lineage=_lineage(report),
    )
    return page.encode()


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _rivals(report: Report) -> list[tuple[str, str, str]]:
    """Rows of name, champion, challenger."""
    champion, theirs = report.champion, report.baseline
    old = {str(champion.get("metric")): champion.get("metric_value")}
    values = theirs.get("metrics", old)
    rows: list[tuple[str, object, object]] = [
        ("dataset version", champion.get("dataset_version"), report.dataset.get("version"))
    ]
    rows += [(name, _value(values.get(name)), _value(value)) for name, value in report.metrics.items()]
    champions_time, time = (_milliseconds(theirs.get(name)) for name in ("latency_ms", "challenger_latency_ms"))
    rows.append(("time of one row", champions_time, time))
    return [(name, _or_dash(champions), _or_dash(challengers)) for name, champions, challengers in rows]


def _curves(curves: Curves) -> list[str]:
    """A plot of losses and one of accuracies, as SVG."""
    series = {
        kind: {name: points for name, points in curves.series.items() if name.endswith(kind)}
        for kind in ("loss", "accuracy")
    }
    return [plots.lines(kind, points) for kind, points in series.items() if points]


def _confusion(matrix: Sequence[Sequence[int]] | None) -> list[list[dict[str, object]]]:
    """Each cell's count, and its colour: green on the diagonal, elsewhere red by its share of the largest error."""
    if not matrix:
        return []
    most = max((count for at, row in enumerate(matrix) for to, count in enumerate(row) if at != to), default=0) or 1
    return [
        [
            {
                "count": int(count),
                "colour": _RIGHT if at == to else _WRONG,
                "shade": 0.12 if at == to else 0.75 * int(count) / most,
            }
            for to, count in enumerate(row)
        ]
        for at, row in enumerate(matrix)
    ]


def _worst_rows(report: Report) -> Iterator[dict[str, object]]:
    """The rows with the largest errors; ``image`` is a PNG in base64, or empty."""
    for row in report.worst_rows:
        yield {**row, "image": _image(row.get("image") or {})}


def _image(image: Mapping[str, Any]) -> str:
    """A PNG in base64; empty if there is no image."""
    try:
        pixels = base64.b64decode(str(image["pixels"]), validate=True)
        height, width = (int(size) for size in image["shape"])
    except (KeyError, ValueError, TypeError, binascii.Error):
        return ""
    if height * width != len(pixels) or not pixels:
        return ""
    return base64.b64encode(plots.png(pixels, width=width)).decode()


def _times(report: Report) -> list[tuple[str, str, str]]:
    """Durations and cost of the job, its events, and the durations of the validation's steps."""
    rows = [(value, "job", name) for name, value in _usage(report.usage)]
    for event in report.lineage.get("events") or []:
        details = {name: value for name, value in event.items() if name not in {"time", "event"}}
        rows.append((_clock(event.get("time")), str(event.get("event")), _text(details)))
    rows += [(f"{float(value):.1f} s", "validation", name) for name, value in report.seconds.items()]
    return rows


def _usage(usage: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of what is known of the job's time and cost."""
    attempts = f", {usage['attempts']} attempts together" if _number(usage.get("attempts")) not in {None, 1.0} else ""
    for name, title in (("queued_seconds", "waited for machines"), ("seconds", f"ran{attempts}")):
        if (value := _number(usage.get(name))) is not None:
            yield title, f"{value:,.1f} s"
    usd, rate = _number(usage.get("usd")), _number(usage.get("usd_per_hour"))
    if usd is not None and rate is not None:
        yield f"cost of that time, by list prices of {rate:,.2f} USD an hour", f"{usd:,.2f} USD"
    seconds, cores = _number(usage.get("core_seconds")), _number(usage.get("cores"))
    if seconds is not None and cores is not None:
        yield f"of this machine's {cores:.0f} cores, at most", f"{seconds:,.1f} core seconds"


def _lineage(report: Report) -> list[tuple[str, str]]:
    facts: dict[str, object] = {
        "model": report.model_uri,
        "dataset": report.dataset.get("uri"),
        "dataset digest": report.dataset.get("digest"),
        "dataset check exceptions": report.dataset.get("exceptions"),
        **{name: value for name, value in report.lineage.items() if name != "events" and value not in ("", None)},
        "sha256 of the model": report.digest,
        "size": f"{report.size} bytes",
        "environment of the validation": ", ".join(f"{name} {value}" for name, value in report.environment.items()),
        "thresholds": report.thresholds.to_json(),
        "serving signature": _signature(report),
        "extra checks": [check["name"] for check in report.extra_checks],
    }
    return [(name, _text(value)) for name, value in facts.items() if value]


def _signature(report: Report) -> dict[str, object]:
    """How the model had to be called; empty where that was not asked."""
    if report.checks == "files":
        return {}
    shown = ("name", "inputs", "outputs", "columns", "key", "features", "output", "activation", "scale")
    known = report.serving_signature
    return {name: known[name] for name in shown if known.get(name) is not None}


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(inner)}" for name, inner in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(_text(inner) for inner in value)
    return str(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _clock(seconds: object) -> str:
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e11:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")


def _value(value: object) -> str | None:
    return f"{value:.4g}" if isinstance(value, (int, float)) else None


def _milliseconds(value: object) -> str | None:
    return f"{value:.2f} ms" if isinstance(value, (int, float)) else None


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)

"""``report.html``: the report as one HTML file without scripts and external resources.

The template is ``report.html.jinja``. Jinja escapes every value. The plots come from :mod:`mlengine.validation.plots`,
which escapes its own values.
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
_CORRECT_COLOUR, _WRONG_COLOUR = "26,127,55", "180,35,24"  # colours of the confusion matrix, RGB

_TITLES = {Decision.FIRST: "Accepted as the first model", Decision.NOT_COMPARED: "Not compared with the champion"}


def render(report: Report, curves: Curves) -> bytes:
    """The page, encoded as UTF-8.

    :param report: what the validation found.
    :param curves: the metrics that the trainer wrote.
    """
    decision = report.verdict.decision
    page = _template().render(
        report=report,
        decision=decision,
        title=_TITLES.get(decision, decision.value.capitalize()),
        comparison=_comparison(report),
        curves=_curves(curves),
        per_class=_per_class(report),
        confusion=_confusion(report.figures.get("confusion")),
        mistakes=list(_mistakes(report)),
        times=_times(report),
        events=_events(report),
        lineage=_lineage(report),
    )
    return page.encode()


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _comparison(report: Report) -> list[tuple[str, str, str]]:
    """Rows of name, champion, challenger."""
    champion, measured, baseline = report.champion, report.figures, report.baseline
    rows = (
        ("Dataset version", champion.get("dataset_version"), report.dataset.get("version")),
        ("Accuracy", _share(baseline.get("accuracy", champion.get("accuracy"))), _share(measured.get("accuracy"))),
        (
            "Latency of one row",
            _milliseconds(baseline.get("latency_ms")),
            _milliseconds(baseline.get("challenger_latency_ms")),
        ),
    )
    return [(name, _or_dash(champions), _or_dash(challengers)) for name, champions, challengers in rows]


def _curves(curves: Curves) -> list[str]:
    """A plot of losses and one of accuracies, as SVG."""
    series = {
        kind: {name: points for name, points in curves.series.items() if name.endswith(kind)}
        for kind in ("loss", "accuracy")
    }
    return [plots.lines(kind.capitalize(), points) for kind, points in series.items() if points]


def _per_class(report: Report) -> str:
    """A bar chart of the accuracy of each class, as SVG; empty if it was not measured."""
    model, champion = report.figures.get("per_class"), report.baseline.get("per_class")
    return plots.bars(model, champion or [], report.thresholds.per_class) if model else ""


def _confusion(matrix: Sequence[Sequence[int]] | None) -> list[list[dict[str, object]]]:
    """The count and the colour of each cell: green on the diagonal, and red in proportion to the count elsewhere."""
    if not matrix:
        return []
    most = max((count for at, row in enumerate(matrix) for to, count in enumerate(row) if at != to), default=0) or 1
    return [
        [
            {
                "count": int(count),
                "colour": _CORRECT_COLOUR if at == to else _WRONG_COLOUR,
                "shade": 0.12 if at == to else 0.75 * int(count) / most,
            }
            for to, count in enumerate(row)
        ]
        for at, row in enumerate(matrix)
    ]


def _mistakes(report: Report) -> Iterator[dict[str, object]]:
    """The wrong predictions with the highest scores; none if the dataset has no images."""
    sizes = [int(size) for size in report.dataset.get("shape") or []]
    for mistake in report.mistakes:
        image = _image(mistake, sizes)
        if image:
            names = ("label", "predicted", "row")
            yield {"image": image, "score": float(mistake["score"]), **{name: mistake.get(name) for name in names}}


def _image(mistake: Mapping[str, Any], sizes: Sequence[int]) -> str:
    """A PNG in base64; empty if the row is not an image of the dataset's shape, or has no score."""
    try:
        pixels = base64.b64decode(str(mistake["pixels"]), validate=True)
        float(mistake["score"])
    except (KeyError, ValueError, TypeError, binascii.Error):
        return ""
    if len(sizes) != 2 or sizes[0] * sizes[1] != len(pixels):
        return ""
    return base64.b64encode(plots.png(pixels, width=sizes[1])).decode()


def _times(report: Report) -> list[tuple[str, str, str]]:
    """Durations and cost of the job, and durations of the validation's steps: what, measure, value."""
    rows = [("job", name, value) for name, value in _usage(report.usage)]
    return rows + [("validation", name, f"{float(value):.1f} s") for name, value in report.seconds.items()]


def _events(report: Report) -> list[tuple[str, str, str]]:
    """The job's events: time, event, details."""
    rows = []
    for event in report.lineage.get("events") or []:
        details = {name: value for name, value in event.items() if name not in {"time", "event"}}
        rows.append((_clock(event.get("time")), str(event.get("event")).replace("_", " "), _text(details)))
    return rows


def _usage(usage: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Measure and value of the job's known durations and costs."""
    attempts = f", {usage['attempts']} attempts in total" if _number(usage.get("attempts")) not in {None, 1.0} else ""
    for name, title in (("queued_seconds", "waiting for machines"), ("seconds", f"running{attempts}")):
        if (value := _number(usage.get(name))) is not None:
            yield title, f"{value:,.1f} s"
    usd, rate = _number(usage.get("usd")), _number(usage.get("usd_per_hour"))
    if usd is not None and rate is not None:
        yield f"estimated cost, at list prices of {rate:,.2f} USD per hour", f"{usd:,.2f} USD"
    seconds, cores = _number(usage.get("core_seconds")), _number(usage.get("cores"))
    if seconds is not None and cores is not None:
        yield f"CPU time on {cores:.0f} cores, upper limit", f"{seconds:,.1f} core-seconds"


def _lineage(report: Report) -> list[tuple[str, str]]:
    facts: dict[str, object] = {
        "model directory": report.model_uri,
        "model SHA-256": report.digest,
        "model size": f"{report.size:,} bytes",
        "dataset": report.dataset.get("uri"),
        "dataset digest": report.dataset.get("digest"),
        "dataset check exceptions": report.dataset.get("exceptions"),
        **{name: value for name, value in report.lineage.items() if name != "events" and value not in ("", None)},
        "validation environment": ", ".join(f"{name} {value}" for name, value in report.environment.items()),
        "thresholds": {name: value for name, value in report.thresholds.to_json().items() if value is not None},
        "serving signature": _signature(report),
        "extra checks": [check["name"] for check in report.extra_checks],
    }
    return [(_label(name), _text(value)) for name, value in facts.items() if value]


def _label(name: str) -> str:
    words = {"args": "arguments"}.get(name, name).replace("_", " ")
    return words[:1].upper() + words[1:]


def _signature(report: Report) -> dict[str, object]:
    """The serving signature that the validation required; empty if it only checked files."""
    if report.checks == "files":
        return {}
    shown = ("name", "inputs", "outputs", "key", "features", "scores", "scale", "probabilities")
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


def _share(value: object) -> str | None:
    return f"{value:.4f}" if isinstance(value, (int, float)) else None


def _milliseconds(value: object) -> str | None:
    return f"{value:.2f} ms" if isinstance(value, (int, float)) else None


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)

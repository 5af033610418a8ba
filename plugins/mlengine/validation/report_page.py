"""Renders ``report.html``, the report for people: one file without scripts and without external resources.

The template is ``report.html.jinja``. Jinja escapes every value, except the plots of :mod:`mlengine.validation.plots`,
which escapes its values itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.metrics import format_value
from mlengine.core.verdict import Decision
from mlengine.validation import report_plots, report_tables
from mlengine.validation.curves import Curves
from mlengine.validation.report import Report

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = Path(__file__).with_name("report.html.jinja")

_TITLES = {Decision.FIRST: "Accepted as the first", Decision.NOT_COMPARED: "Not compared with the champion"}


def render(report: Report, curves: Curves) -> bytes:
    """The page as UTF-8."""
    decision = report.verdict.decision
    page = _template().render(
        report=report,
        decision=decision,
        title=_TITLES.get(decision, decision.value.capitalize()),
        main_value=None if report.metric_value is None else format_value(report.metric_value),
        scope=_scope(report),
        metrics=report_tables.metrics(report),
        plots=report_plots.task_plots(report),
        thresholds=report_plots.threshold_table(report),
        positive=_positive_class(report),
        confusion=report_plots.confusion(report),
        slices=report_tables.slices(report),
        worst=report_tables.worst_rows(report),
        curves=report_plots.learning_curves(curves),
        times=_times(report),
        lineage=_lineage(report),
    )
    return page.encode()


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _scope(report: Report) -> str:
    """A description of the checks that were made, and of the rows on which the model was validated."""
    if report.checks == "files":
        return "Only the files of the model and the extra checks were checked. The model was not run."
    if report.checks == "signature":
        return "Only the files, the signature and the extra checks were checked. The model was not run."
    rows = report.dataset.get("rows")
    on = f" on {rows:,} held-out rows" if isinstance(rows, int) else ""
    kind = f" ({report.scorer or report.model_kind})" if report.scorer or report.model_kind else ""
    if report.task == "none":
        return f"The model{kind} was run{on}. The dataset has no task, so its predictions have no metrics."
    if not report.metrics:
        return f"The model{kind} has no metrics: it was not run, or its predictions could not be used."
    target = f", target {report.dataset['target']}" if report.dataset.get("target") else ""
    return f"Task {report.task}{target}. The model{kind} was run{on}."


def _positive_class(report: Report) -> str:
    classes = report.dataset.get("classes") or []
    return str(classes[1]) if report.task == "binary" and len(classes) == 2 else ""


def _times(report: Report) -> list[tuple[str, str, str]]:
    """The durations and cost of the job, its events, and the durations of the validation's steps."""
    rows = [(value, "job", name) for name, value in _usage(report.usage)]
    for event in report.lineage.get("events") or []:
        details = {name: value for name, value in event.items() if name not in {"time", "event"}}
        rows.append((_clock(event.get("time")), str(event.get("event")), _text(details)))
    rows += [(f"{float(value):.1f} s", "validation", name) for name, value in report.seconds.items()]
    return rows


def _usage(usage: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name and the text of each known value about the job's run time and cost."""
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
    """The serving signature that the model had to have; empty if none was required."""
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

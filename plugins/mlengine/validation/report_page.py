"""``report.html``: the report for people. One file with everything in it, no script, nothing fetched from anywhere.

Everything that came from a trainer, a dataset or a person is escaped. The plots are from
:mod:`mlengine.validation.plots`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from mlengine.core.verdict import Check, Decision
from mlengine.validation import plots as drawing
from mlengine.validation.curves import Curves
from mlengine.validation.report import Report

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2129;--soft:#5b6472;--line:#d9dee6;--page:#fff;--panel:#f6f8fa;
--good:#1a7f37;--bad:#b42318;--first:#0b5cad;--a:#0b5cad;--b:#b4540a}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa4b2;--line:#343b46;--page:#14171c;--panel:#1c2027;
--good:#4ac26b;--bad:#ff7b72;--first:#6cb6ff;--a:#6cb6ff;--b:#f0a35e}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px 20px 64px;max-width:1080px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:22px;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:16px;margin:36px 0 10px}
p{margin:4px 0}.soft{color:var(--soft)}code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}
.verdict{border-left:6px solid;padding:10px 16px;margin:18px 0;background:var(--panel)}
.verdict b{font-size:19px}.accepted{border-color:var(--good)}.rejected{border-color:var(--bad)}
.first{border-color:var(--first)}.accepted b{color:var(--good)}.rejected b{color:var(--bad)}.first b{color:var(--first)}
.not_compared{border-color:var(--b)}.not_compared b{color:var(--b)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft)}td.n{text-align:right;font-variant-numeric:tabular-nums}
.ok{color:var(--good)}.FAILED{color:var(--bad);font-weight:600}.skipped{color:var(--soft)}
.row{display:flex;flex-wrap:wrap;gap:24px}.row>*{flex:1 1 320px;min-width:0}
svg{max-width:100%;height:auto}svg text{fill:var(--soft);font:12px system-ui,sans-serif}
.digits{display:flex;flex-wrap:wrap;gap:12px}.digits figure{margin:0;text-align:center;font-size:13px}
.digits img{width:72px;height:72px;image-rendering:pixelated;border:1px solid var(--line)}
td.c,.matrix th{text-align:center}
td.c{font-variant-numeric:tabular-nums;padding:5px;border:1px solid var(--line);min-width:40px}
"""


def render(report: Report, curves: Curves) -> bytes:
    """The whole page."""
    parts = [
        _head(report),
        _verdict(report),
        _section("Checks", _checks(report.verdict.checks)),
        _section("Champion and challenger", _rivals(report)),
        _section("Learning curves", _curves(curves)),
        _section("Per class", _classes(report)),
        _section("Confusion matrix", _confusion(report.figures.get("confusion"))),
        _section("Worst mistakes", _mistakes(report)),
        _section("Times and cost", _times(report)),
        _section("Where it comes from", _lineage(report)),
    ]
    title = escape(f"{report.job_id}: {report.verdict.decision.value}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    ).encode()


def _head(report: Report) -> str:
    version = report.dataset.get("version")
    trained = f", trained on {escape(str(report.dataset.get('name')))} {escape(str(version))}" if version else ""
    step = f", step {report.step}" if report.step is not None else ""
    return (
        f"<h1>{escape(report.job_id)}</h1>"
        f'<p class="soft">Model <code>{escape(report.model)}</code>{trained}{step}, judged {escape(report.created)}</p>'
    )


def _verdict(report: Report) -> str:
    word = report.verdict.decision
    accuracy = f" with accuracy {report.accuracy:.4f}" if report.accuracy is not None else ""
    reasons = "".join(f"<p>{escape(reason)}</p>" for reason in report.verdict.reasons)
    titles = {Decision.FIRST: "Accepted as the first", Decision.NOT_COMPARED: "Not compared with the champion"}
    title = titles.get(word, word.value.capitalize())
    return f'<div class="verdict {word.value}"><b>{title}</b>{accuracy}{reasons}</div>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _checks(checks: Iterable[Check]) -> str:
    rows = (
        f'<tr><td class="{check.mark}">{check.mark}</td><td>{escape(check.name)}</td>'
        f"<td>{escape(check.sentence)}</td><td>{escape(check.bound)}</td></tr>"
        for check in checks
    )
    return _table(("", "check", "what was found", "bound"), rows)


def _rivals(report: Report) -> str:
    if not report.champion:
        return '<p class="soft">There was no champion to compare with.</p>'
    champion, mine, theirs = report.champion, report.figures, report.baseline
    name = f"champion {champion.get('serial')}: {champion.get('job_id')}"
    version = (champion.get("dataset_version"), report.dataset.get("version"))
    rows = [
        _pair("dataset version", *version),
        _pair("accuracy", _share(theirs.get("accuracy", champion.get("accuracy"))), _share(mine.get("accuracy"))),
        _pair("one row takes", _ms(theirs.get("latency_ms")), _ms(theirs.get("challenger_latency_ms"))),
    ]
    text = ""
    if report.comparison:
        paired = report.comparison
        text = (
            f"<p>On the same {int(paired['rows'])} rows the challenger gained {int(paired['gained'])} and lost"
            f" {int(paired['lost'])}: {paired['difference'] * 100:+.2f} points, between {paired['low'] * 100:+.2f} and"
            f" {paired['high'] * 100:+.2f} at {report.thresholds.confidence:.0%} on each side"
            f" (p of no difference: {paired['p_value']:.3g}).</p>"
        )
    return text + _table(("", name, f"challenger: {report.job_id}"), rows)


def _pair(name: str, theirs: object, mine: object) -> str:
    cells = "".join(f"<td>{escape(str(value)) if value is not None else '-'}</td>" for value in (theirs, mine))
    return f"<tr><td>{escape(name)}</td>{cells}</tr>"


def _curves(curves: Curves) -> str:
    if not curves:
        return ""
    losses = {name: points for name, points in curves.series.items() if name.endswith("loss")}
    accuracy = {name: points for name, points in curves.series.items() if name.endswith("accuracy")}
    plots = [drawing.lines(title, series) for title, series in (("loss", losses), ("accuracy", accuracy)) if series]
    return f'<div class="row">{"".join(plots)}</div>'


def _classes(report: Report) -> str:
    mine, theirs = report.figures.get("per_class"), report.baseline.get("per_class")
    if not mine:
        return ""
    return drawing.bars(mine, theirs or [], report.thresholds.per_class)


def _confusion(matrix: Any) -> str:
    if not matrix:
        return ""
    most = max((value for at, row in enumerate(matrix) for to, value in enumerate(row) if at != to), default=0) or 1
    rows = []
    for at, row in enumerate(matrix):
        cells = []
        for to, value in enumerate(row):
            shade = 0.12 if at == to else 0.75 * int(value) / most
            colour = "26,127,55" if at == to else "180,35,24"
            cells.append(f'<td class="c" style="background:rgba({colour},{shade:.2f})">{int(value) or ""}</td>')
        rows.append(f"<tr><th>{at}</th>{''.join(cells)}</tr>")
    note = '<p class="soft">Rows: the true class. Columns: what the model said.</p>'
    table = _table(["", *(str(at) for at in range(len(matrix)))], rows)
    return f'{note}<div class="matrix">{table}</div>'


def _mistakes(report: Report) -> str:
    shape = report.dataset.get("shape") or []
    figures = [_digit(mistake, shape) for mistake in report.mistakes]
    if not any(figures):
        return ""
    return (
        '<p class="soft">Wrong, and surest of it: true class → said (score).</p>'
        f'<div class="digits">{"".join(figures)}</div>'
    )


def _digit(mistake: Mapping[str, Any], shape: Iterable[int]) -> str:
    sizes = [int(size) for size in shape]
    try:
        pixels = base64.b64decode(str(mistake["pixels"]), validate=True)
        score = float(mistake["score"])
    except (KeyError, ValueError, TypeError, binascii.Error):
        return ""
    if len(sizes) != 2 or sizes[0] * sizes[1] != len(pixels):
        return ""
    image = base64.b64encode(drawing.png(pixels, width=sizes[1])).decode()
    label, said, row = (escape(str(mistake.get(name))) for name in ("label", "predicted", "row"))
    return (
        f'<figure><img alt="row {row}" src="data:image/png;base64,{image}">'
        f"<figcaption>{label} → {said} ({score:.2f})</figcaption></figure>"
    )


def _times(report: Report) -> str:
    """What was decided about the job when, what it took and cost, and what the gate took."""
    rows = [
        f"<tr><td>{escape(value)}</td><td>job</td><td>{escape(what)}</td></tr>" for what, value in _took(report.took)
    ]
    for event in report.lineage.get("events") or []:
        details = {name: value for name, value in event.items() if name not in {"time", "event"}}
        cells = (_clock(event.get("time")), str(event.get("event")), _text(details))
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    for name, value in report.seconds.items():
        rows.append(f"<tr><td>{float(value):.1f} s</td><td>gate</td><td>{escape(name)}</td></tr>")
    return _table(("when, how long, how much", "what", ""), rows) if rows else ""


def _took(took: Mapping[str, Any]) -> list[tuple[str, str]]:
    """In words, what of it is known."""
    found = []
    attempts = f", {took['attempts']} attempts together" if _number(took.get("attempts")) not in {None, 1.0} else ""
    for name, words in (("queued_seconds", "waited for machines"), ("seconds", f"ran{attempts}")):
        if (value := _number(took.get(name))) is not None:
            found.append((words, f"{value:,.1f} s"))
    usd, rate = _number(took.get("usd")), _number(took.get("usd_per_hour"))
    if usd is not None and rate is not None:
        found.append((f"cost of that time, by list prices of {rate:,.2f} USD an hour", f"{usd:,.2f} USD"))
    seconds, cores = _number(took.get("core_seconds")), _number(took.get("cores"))
    if seconds is not None and cores is not None:
        found.append((f"of this machine's {cores:.0f} cores, at most", f"{seconds:,.1f} core seconds"))
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _clock(seconds: object) -> str:
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e11:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")


def _lineage(report: Report) -> str:
    facts: dict[str, object] = {
        "model": report.model_uri,
        "dataset": report.dataset.get("uri"),
        "dataset digest": report.dataset.get("digest"),
        "dataset registered in spite of": report.dataset.get("exceptions"),
        **{name: value for name, value in report.lineage.items() if name != "events" and value not in ("", None)},
        "sha256 of the model": report.digest,
        "size": f"{report.size} bytes",
        "environment of the gate": ", ".join(f"{name} {value}" for name, value in report.environment.items()),
        "thresholds": report.thresholds.to_json(),
        "serving signature": _signature(report),
        "own checks": [check["name"] for check in report.own_checks],
    }
    rows = (
        f"<tr><td>{escape(name)}</td><td><code>{escape(_text(value))}</code></td></tr>"
        for name, value in facts.items()
        if value
    )
    return _table(("", ""), rows)


def _signature(report: Report) -> dict[str, object]:
    """How the model had to be called; empty where that was not asked."""
    if report.checks == "files":
        return {}
    shown = ("name", "inputs", "outputs", "key", "features", "scores", "scale", "probabilities")
    return {name: report.expectation[name] for name in shown if report.expectation.get(name) is not None}


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(inner) for inner in value)
    return str(value)


def _share(value: object) -> str | None:
    return f"{value:.4f}" if isinstance(value, (int, float)) else None


def _ms(value: object) -> str | None:
    return f"{value:.2f} ms" if isinstance(value, (int, float)) else None

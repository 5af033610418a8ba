"""The data of models for the page: champion, history, and metric by dataset version, including rejected challengers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from mlengine.core.errors import MlengineError
from mlengine.core.job import JobState
from mlengine.core.layout import JobDir
from mlengine.core.versions import version_key
from mlengine.job_index.reading import INVALID
from mlengine.job_index.rows import Row
from mlengine.storage.client import Storage
from mlengine.validation.report import Report, load_report
from mlengine.validation.report_tables import higher_is_better, metrics
from mlengine.web.champions import Champions, Pointer
from mlengine.web.jobs import encodable

log = logging.getLogger(__name__)

HISTORY = 100
POINTS = 500

champions = Champions()


def overview(storage: Storage, bucket: str, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Every model that has a job in ``rows``, with its champion."""
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    pointers = champions.current(storage, bucket, list(by_model))
    return [
        {
            "model": model,
            "jobs": len(found),
            "active": sum(not JobState(row.state).terminal for row in found),
            "validated": sum(bool(row.verdict) for row in found),
            "champion": _champion(pointers[model]),
        }
        for model, found in sorted(by_model.items())
    ]


def one(storage: Storage, bucket: str, model: str, rows: Iterable[Row]) -> dict[str, Any]:
    """The data of one model.

    ``points`` contains the points of the plot; ``comparison`` compares the latest challenger with its champion. All
    points are values of one metric: the champion's main metric, or that of the newest validated job. If the thresholds
    have changed, older jobs may have another main metric, whose values cannot be compared.
    """
    history = champions.history(storage, bucket, model, HISTORY)
    validated = [row for row in rows if row.model == model and row.verdict and row.metric_value is not None]
    validated.sort(key=lambda row: (version_key(row.dataset), row.claimed or 0.0))
    newest = max(validated, key=lambda row: row.claimed or 0.0, default=None)
    metric = history[0].metric if history and history[0].metric else newest.metric if newest else ""
    champion_ids = {entry.job_id for entry in history}
    points = [
        {
            "job_id": row.job_id,
            "dataset": row.dataset,
            "metric_value": row.metric_value,
            "verdict": row.verdict,
            "champion": row.job_id in champion_ids,
        }
        for row in [row for row in validated if row.metric == metric][-POINTS:]
    ]
    return {
        "model": model,
        "champion": json.loads(history[0].to_bytes()) if history else None,
        "history": [json.loads(entry.to_bytes()) for entry in history],
        "metric": metric,
        "higher_is_better": higher_is_better(metric) if metric else True,
        "points": points,
        "comparison": _comparison(storage, bucket, newest) if newest else None,
    }


def _champion(found: Pointer) -> dict[str, Any] | None:
    """The champion for the overview, or its error, because one damaged pointer must not hide the other models."""
    if isinstance(found, MlengineError):
        return {"error": found.message}
    if found is None:
        return None
    try:
        brief = {**found.brief(), "by": found.by, "at": found.at, "action": found.action.value}
        json.dumps(brief, allow_nan=False)  # raises the errors that encoding the response would raise
    except INVALID as error:
        return {"error": f"champion.json is invalid: {error!r}"}
    return brief


def _comparison(storage: Storage, bucket: str, newest: Row) -> dict[str, Any] | None:
    """The newest validated job, and the champion with which its validation compared it.

    ``None`` if there is no report, or if it is invalid.
    """
    job_dir = JobDir.of(bucket, newest.model, newest.job_id)
    try:
        return dict(encodable(_compared(load_report(storage, job_dir))))
    except MlengineError as error:
        if error.retryable:
            raise
    except INVALID as error:  # a trainer may have written the file
        log.warning("%s is invalid: %r", job_dir.report, error)
    return None


def _compared(report: Report) -> dict[str, Any]:
    return {
        "job_id": report.job_id,
        "verdict": report.verdict.decision.value,
        "reasons": list(report.verdict.reasons),
        "compared_with": dict(report.champion),
        "metrics": metrics(report),
        "size": [report.size or None, report.baseline.get("size")],
    }

"""The data of one job, read from its directory at each request, and its logs, page by page."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from mlengine.backends import LogPage, TrainingBackend
from mlengine.core import plaintext
from mlengine.core.errors import BackendError, BackendUnavailableError, MlengineError
from mlengine.core.job import JobState
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Check
from mlengine.job_index.reading import INVALID, Claimed, CurrentJob
from mlengine.jobs.submission import may_be_tried_again
from mlengine.storage.client import Storage
from mlengine.validation.curves import read_curves
from mlengine.validation.report import Report, load_report
from mlengine.validation.report_tables import metrics

log = logging.getLogger(__name__)

LOG_LINES = 500
_UNAVAILABLE_WAIT = 5.0  # seconds
_TASK = ("dag_id", "run_id", "task_id", "map_index", "generation")
_LOG_CHUNK = 256 << 10
_REPLICA_LOG = re.compile(r"attempt-(?P<attempt>[0-9]{1,4})/(?P<replica>[a-z]+(?:-[0-9]{1,4}(?:\.stderr)?)?)\.log")


def detail(storage: Storage, job: CurrentJob) -> dict[str, Any]:
    """All data that the job's page shows, except the logs."""
    claim, row = job.claim, job.row
    record, job_dir = claim.record, claim.job_dir
    state = JobState(row.state)
    waits = job.status is not None and may_be_tried_again(record, job.status)
    active = claim.handle is not None and not state.terminal and state is not JobState.CANCELLING
    return {
        "row": row.to_json(),
        "job_dir": job_dir.uri,
        "owner": {name: record.owner[name] for name in _TASK if name in record.owner},
        "inputs": encodable(record.inputs),
        "spec": _spec(record.spec),
        "history": encodable(record.history),
        "curves": read_curves(storage, job_dir).plots,
        "report": _report(storage, job_dir),
        "cancellable": active or waits,
        "may_be_tried_again": waits,
        "stored_logs": sorted({attempt for attempt, _, _, _ in _stored(storage, job_dir)}),
    }


def log_page(
    storage: Storage, backend: TrainingBackend | None, claim: Claimed, cursor: str, attempt: int | None
) -> dict[str, Any]:
    """The next lines of all replicas, and the cursor for the lines after them.

    Lines come from the backend. If the backend has none, and for earlier attempts, they come from the logs in the
    bucket. The latest attempt has none there until it has ended.

    :param cursor: the cursor of the previous page; empty for the first page.
    :param attempt: the number of the attempt; ``None`` for the latest one.
    :returns: the page; its ``wait`` is the number of seconds before the next request, which is 0 if none is necessary.
    :raises MlengineError: the cursor is invalid.
    """
    position = _decoded(cursor)
    handle = claim.handle
    if handle is not None and backend is not None and "stored" not in position and attempt in {None, handle.attempt}:
        try:
            page = backend.logs(handle, position.get("backend", {}), LOG_LINES)
        except BackendUnavailableError:
            before = position.get("backend", {})
            page = LogPage((), before, wait=_UNAVAILABLE_WAIT if before else None)
        except BackendError:
            page = LogPage((), {})
        if page.lines or page.cursor or page.wait is not None:
            lines = [
                {"replica": line.replica, "text": text, "time": line.time}
                for line in page.lines
                for text in plaintext.lines(line.text)
            ]
            return {
                "lines": lines,
                "cursor": _encoded({"backend": dict(page.cursor)}),
                "more": not page.complete,
                "wait": page.wait or 0.0,
            }
    return _stored_page(storage, claim, position.get("stored", {}), attempt)


def _stored_page(storage: Storage, claim: Claimed, offsets: Mapping[str, int], attempt: int | None) -> dict[str, Any]:
    logs = _stored(storage, claim.job_dir)
    wanted = attempt if attempt is not None else claim.record.attempt
    lines: list[dict[str, Any]] = []
    ends = {}
    for _, replica, uri, size in [found for found in logs if found[0] == wanted]:
        begin = offsets.get(replica, 0)
        if begin > size:  # another log has replaced the one that the last page was read from
            begin = 0
        texts, ends[replica] = _lines(storage, uri, begin, size) if begin < size else ([], begin)
        lines += [{"replica": replica, "text": text, "time": None} for text in texts]
    more = any(ends[replica] < size for number, replica, _, size in logs if number == wanted)
    return {"lines": lines, "cursor": _encoded({"stored": ends}) if ends else "", "more": more, "wait": 0.0}


def _lines(storage: Storage, uri: str, begin: int, size: int) -> tuple[list[str], int]:
    data = storage.read_range(uri, begin, min(size, begin + _LOG_CHUNK))
    complete = data if begin + len(data) >= size else data[: data.rfind(b"\n") + 1] or data
    return [plaintext.line(line.decode("utf-8", "replace")) for line in complete.splitlines()], begin + len(complete)


def _stored(storage: Storage, job_dir: JobDir) -> list[tuple[int, str, str, int]]:
    """The logs in the bucket: for each, its attempt, replica, URI and size."""
    found = []
    for stat in storage.ls(job_dir.logs):
        match = _REPLICA_LOG.fullmatch(stat.uri[len(job_dir.logs) :])
        if match:
            found.append((int(match["attempt"]), match["replica"], stat.uri, stat.size))
    return found


def _encoded(cursor: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(cursor, separators=(",", ":")).encode()).decode()


def _decoded(cursor: str) -> dict[str, Any]:
    """Decode what :func:`_encoded` returned.

    :raises MlengineError: the cursor is invalid.
    """
    if not cursor:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return {"backend": dict(found["backend"])} if "backend" in found else {"stored": _offsets(found["stored"])}
    except (ValueError, TypeError, KeyError, binascii.Error, UnicodeError, RecursionError) as error:
        raise MlengineError(
            f"invalid log cursor: {cursor[:80]!r}", hint="request the first page, without a cursor"
        ) from error


def _offsets(found: Any) -> dict[str, int]:
    """The byte offsets in a decoded cursor.

    :raises ValueError: an offset is not a number of bytes.
    """
    offsets = dict(found)
    if not all(type(offset) is int and offset >= 0 for offset in offsets.values()):
        raise ValueError(f"invalid offsets: {offsets}")
    return offsets


def encodable(value: Any) -> Any:
    """The value, with names that FastAPI can encode: a job can write lone surrogates into the names in its files."""
    if isinstance(value, Mapping):
        return {str(name).encode(errors="replace").decode(): encodable(item) for name, item in value.items()}
    return [encodable(item) for item in value] if isinstance(value, (list, tuple)) else value


def _spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec that the page shows. Environment variables have only names: their values may be secret."""
    wanted = ("module", "args", "package_uris", "pools", "region", "scale_tier", "runtime_version", "python_version")
    env = spec.get("env")
    shown = {name: spec[name] for name in wanted if spec.get(name)}
    for name in ("args", "package_uris"):
        if name in shown and not isinstance(shown[name], list | tuple):  # a job may have written its file itself
            shown[name] = [str(shown[name])]
    return {**shown, "env": sorted(map(str, env)) if isinstance(env, Mapping) else []}


def _report(storage: Storage, job_dir: JobDir) -> dict[str, Any] | None:
    """The fields of ``report.json`` that the page shows; ``None`` if there is none, or if it is invalid."""
    try:
        return dict(encodable(_shown(load_report(storage, job_dir))))
    except MlengineError as error:
        if error.retryable:
            raise
    except INVALID as error:  # a trainer may have written the file
        log.warning("%s is invalid: %r", job_dir.report, error)
    return None


def _shown(report: Report) -> dict[str, Any]:
    return {
        "verdict": report.verdict.decision.value,
        "reasons": list(report.verdict.reasons),
        "checks": [_check(check) for check in report.verdict.checks],
        "created": report.created,
        "metric": report.main_metric,
        "metric_value": report.metric_value,
        "task": report.task,
        "metrics": metrics(report),
        "champion": dict(report.champion),
        "dataset": {name: report.dataset.get(name) for name in ("uri", "name", "version", "rows")},
        "environment": dict(report.environment),
        "digest": report.digest,
        "size": report.size,
        "step": report.step,
    }


def _check(check: Check) -> dict[str, Any]:
    return {"name": check.name, "passed": check.passed, "skipped": check.skipped, "message": check.message}


def report_page(storage: Storage, job_dir: JobDir, theme: str) -> bytes:
    """The content of ``report.html``, in Airflow's theme instead of the system's.

    :param theme: ``dark`` or ``light``; with any other value, the system's theme is kept.
    :raises ObjectMissingError: the job was not validated.
    """
    page = storage.read(job_dir.page)
    media = {"dark": b"@media all", "light": b"@media not all"}.get(theme)
    return page.replace(b"@media(prefers-color-scheme:dark)", media) if media else page

"""The index of accepted jobs, by which a run with the same inputs reuses a model instead of training again.

``<model>/validated/<digest>.json`` names the last accepted job with these inputs (:mod:`mlengine.core.inputs`). The
entry is only a pointer: before a job is reused, its claim, its report and the files of its model are checked. An
outdated or wrong entry therefore costs one training and does no other harm. A lookup reads one object, however many
jobs there are.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from mlengine.core import layout
from mlengine.core.errors import MlengineError, ObjectMissingError, StorageConflictError
from mlengine.core.job import JobHandle, JobRecord
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage

if TYPE_CHECKING:
    from mlengine.validation.report import Report
    from mlengine.validation.rules import Rules

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """An accepted job.

    :param inputs: the digest of the job's inputs.
    :param fingerprint: the fingerprint of the model's files when they were validated.
    :param at: the time at which the model was validated; ISO 8601, UTC.
    """

    inputs: str
    job_id: str
    job_dir: str
    fingerprint: str
    at: str

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read an entry.

        :raises MlengineError: the data is not an entry of this format.
        """
        try:
            raw = json.loads(data)
            known = raw["format"]
            entry = cls(**{item.name: str(raw[item.name]) for item in fields(cls)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MlengineError(f"not a validation cache entry: {error!r}") from error
        if known != FORMAT:
            raise MlengineError(f"validation cache entry has format {known!r}, not {FORMAT}")
        return entry


@dataclass(frozen=True)
class Reusable:
    """A job whose model can be used instead of a new training."""

    entry: Entry
    handle: JobHandle
    owner: Mapping[str, Any]


def record_accepted(storage: Storage, report: Report) -> None:
    """Add an accepted job to the index. It replaces an earlier job with the same inputs.

    Nothing is done if the model was not accepted, or if the job's inputs are not fully known (they have no ``digest``).
    """
    digest = str(report.lineage.get("inputs", {}).get("digest") or "")
    if not digest or not report.verdict.decision.publishable:
        return
    entry = Entry(digest, report.job_id, report.job_dir, report.fingerprint, report.created)
    uri = _uri(report, digest)
    try:
        storage.create(uri, entry.to_bytes())
    except StorageConflictError:
        data, generation = storage.read_with_generation(uri)
        if data == entry.to_bytes():
            return
        try:
            storage.replace(uri, entry.to_bytes(), generation)
        except StorageConflictError:
            log.info("%s: another job with these inputs was added at the same time", uri)


def find(storage: Storage, bucket: str, model: str, digest: str) -> Reusable | None:
    """Find an accepted job with these inputs whose model has not changed since its validation.

    :returns: the job; ``None`` if there is none. A damaged object is logged, and treated as missing.
    :raises StorageError: the storage service is temporarily unavailable.
    """
    try:
        entry = _read(storage, layout.validated(bucket, model, digest))
        return None if entry is None else _verify(storage, entry, digest)
    except MlengineError as error:
        if error.retryable:
            raise
        log.warning("validation cache entry %s is unusable: %s; training again", digest[:12], error.message)
        return None


def reusable_report(storage: Storage, job_dir: JobDir, rules: Rules, dataset_uri: str = "") -> Report | None:
    """The report of a reused job, if the job was accepted and the report covers the checks of ``rules``.

    :param dataset_uri: the dataset version to validate on, if the caller names one.
    """
    from mlengine.validation.report import find_report
    from mlengine.validation.rules import covers

    report = find_report(storage, job_dir)
    if report is None or not report.verdict.decision.publishable or not covers(report, rules, dataset_uri):
        return None
    return report


def _read(storage: Storage, uri: str) -> Entry | None:
    try:
        return Entry.from_bytes(storage.read(uri))
    except ObjectMissingError:
        return None


def _uri(report: Report, digest: str) -> str:
    # The entry is in the same bucket and prefix as the job directories, as the next job will be.
    return layout.validated(report.job_dir.rsplit("/", 2)[0], report.model, digest)


def _verify(storage: Storage, entry: Entry, digest: str) -> Reusable | None:
    from mlengine.validation.export import resolve
    from mlengine.validation.report import load_report

    job_dir = JobDir(entry.job_dir)
    record = JobRecord.from_bytes(storage.read(job_dir.claim))
    report = load_report(storage, job_dir)
    export = resolve(storage, report.model_uri, known=report.checks != "files" and not report.scorer)
    handle = record.handle(job_dir.uri)
    problem = None
    if handle is None or not record.inputs.get("digest") == entry.inputs == digest:
        problem = "has other inputs"
    elif not report.verdict.decision.publishable:
        problem = f"has the verdict {report.verdict.decision.value}"
    elif not export.fingerprint == report.fingerprint == entry.fingerprint:
        problem = "has model files that changed after validation"
    if problem or handle is None:
        log.warning("job %s %s; training again", entry.job_id, problem)
        return None
    return Reusable(entry, handle, record.owner)

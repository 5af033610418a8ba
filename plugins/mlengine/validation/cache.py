"""Work that was done and found good is not paid for again.

``<model>/validated/<digest>.json`` names the last job that the gate accepted for these inputs
(:mod:`mlengine.core.inputs`). Whether it may stand in for a new training is asked of the job itself, each time: its
claim, its report, and the files of its model as they are now. So an index entry that is old, or wrong, costs a
training and nothing worse. Finding it takes one read, however many jobs there are.
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
    """A job that the gate accepted.

    :param inputs: the digest of what it was made of.
    :param fingerprint: of its model's files then.
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
        """:raises MlengineError: it is no entry."""
        try:
            raw = json.loads(data)
            known = raw["format"]
            made = cls(**{item.name: str(raw[item.name]) for item in fields(cls)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MlengineError(f"not an entry of validated inputs: {error!r}") from error
        if known != FORMAT:
            raise MlengineError(f"an entry of validated inputs of format {known!r}")
        return made


@dataclass(frozen=True)
class Reusable:
    """A job that may stand in for a new training."""

    entry: Entry
    handle: JobHandle
    owner: Mapping[str, Any]


def remember(storage: Storage, report: Report) -> None:
    """Enter an accepted job; the last one that was accepted counts. A rejected one is not entered.

    A job whose inputs are not all known has no ``digest`` among them, and is not entered either.
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
            log.info("%s: another job with these inputs was entered meanwhile", uri)


def find(storage: Storage, bucket: str, model: str, digest: str) -> Reusable | None:
    """A job that was made of these inputs, was accepted, and whose model is still as it was judged.

    :raises StorageError: the bucket cannot be asked now; what it says of a damaged object is no error, but a no.
    """
    try:
        entry = _read(storage, layout.validated(bucket, model, digest))
        return None if entry is None else _confirmed(storage, entry, digest)
    except MlengineError as error:
        if error.retryable:
            raise
        log.warning("validated inputs %s: %s; training again", digest[:12], error.message)
        return None


def kept_report(storage: Storage, job_dir: JobDir, rules: Rules, dataset_uri: str = "") -> Report | None:
    """The report of a job that is used again, if it was accepted and answers the questions of ``rules``.

    :param dataset_uri: the dataset version to validate on, if the caller names one.
    """
    from mlengine.validation.report import find_report
    from mlengine.validation.rules import answers

    report = find_report(storage, job_dir)
    if report is None or not report.verdict.decision.publishable or not answers(report, rules, dataset_uri):
        return None
    return report


def _read(storage: Storage, uri: str) -> Entry | None:
    try:
        return Entry.from_bytes(storage.read(uri))
    except ObjectMissingError:
        return None


def _uri(report: Report, digest: str) -> str:
    # Beside the job dirs, whatever bucket or prefix they lie in: that is where the next job will lie too.
    return layout.validated(report.job_dir.rsplit("/", 2)[0], report.model, digest)


def _confirmed(storage: Storage, entry: Entry, digest: str) -> Reusable | None:
    from mlengine.validation.export import resolve
    from mlengine.validation.report import load_report

    job_dir = JobDir(entry.job_dir)
    record = JobRecord.from_bytes(storage.read(job_dir.claim))
    report = load_report(storage, job_dir)
    export = resolve(storage, report.model_uri, graph=report.checks != "files")
    handle = record.handle(job_dir.uri)
    against = None
    if handle is None or not record.inputs.get("digest") == entry.inputs == digest:
        against = "is of other inputs"
    elif not report.verdict.decision.publishable:
        against = f"is {report.verdict.decision.value} by its report"
    elif not export.fingerprint == report.fingerprint == entry.fingerprint:
        against = "has other model files than were judged"
    if against or handle is None:
        log.warning("job %s %s; training again", entry.job_id, against)
        return None
    return Reusable(entry, handle, record.owner)

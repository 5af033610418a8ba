"""Whom a validation is about: a job, as its ``job.json`` and its caller tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mlengine.core.errors import ModelError, ObjectMissingError
from mlengine.core.job import JobRecord
from mlengine.core.layout import JobDir, check_model_name
from mlengine.storage.client import Storage


@dataclass(frozen=True)
class Subject:
    """A finished job.

    :param bucket: where the model's champion lies: the job dir's parent's parent.
    :param package_uris: what its environment is made of.
    :param dataset: what the caller knows of the dataset version: ``uri``, ``name``, ``version``.
    :param lineage: what went into the job.
    :param record: its claim, if it was submitted by us.
    :param took: what it took, if somebody has asked.
    """

    job_dir: JobDir
    model: str
    bucket: str
    package_uris: tuple[str, ...] = ()
    dataset: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    record: JobRecord | None = None
    took: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset_uri(self) -> str:
        return str(self.dataset.get("uri") or "")

    @property
    def env(self) -> Mapping[str, str]:
        """The job's variables."""
        return dict(self.record.spec.get("env") or {}) if self.record else {}


def job_dir_of(job: Any) -> JobDir:
    """The job dir out of what an operator or a person gives: its URI, or a dict with ``job_dir``.

    :raises ModelError: it is neither.
    """
    uri = job.get("job_dir") if isinstance(job, Mapping) else job
    if not isinstance(uri, str) or uri.count("/") < 4 or not uri.startswith("gs://"):
        raise ModelError(f"not a job: {job!r}", hint="pass the submit task's output, or gs://BUCKET/<model>/<job_id>")
    return JobDir(uri.rstrip("/"))


def find_subject(
    storage: Storage,
    job: Any,
    *,
    model: str | None = None,
    bucket: str | None = None,
    package_uris: Sequence[str] = (),
    dataset: Any = None,
) -> Subject:
    """Put together what is known of a job. What the caller gives wins over ``job.json``; that may be missing.

    :param dataset: the dataset version's URI, or a dict with ``uri``.
    """
    job_dir = job_dir_of(job)
    record: JobRecord | None = None
    with suppress(ObjectMissingError):  # not submitted by us: then the caller says what is needed
        record = JobRecord.from_bytes(storage.read(job_dir.claim))
    parent, name, _ = job_dir.uri.rsplit("/", 2)
    spec = record.spec if record else {}
    inputs = record.inputs if record else {}
    packages = tuple(package_uris) or tuple(spec.get("package_uris", ()))
    lineage = {
        "package_uris": list(packages),
        "module": spec.get("module", ""),
        "args": list(spec.get("args", ())),
        "pools": spec.get("pools", []),
        "backend": record.backend if record else "",
        "attempt": record.attempt if record else None,
        "key": record.key if record else "",
        "inputs": dict(inputs),
        "events": [dict(event) for event in record.history] if record else [],
    }
    return Subject(
        job_dir=job_dir,
        model=check_model_name(model or (record.model if record else name)),
        bucket=bucket or parent,
        package_uris=packages,
        dataset=_dataset(dataset or inputs.get("dataset") or inputs.get("dataset_uri") or _argument(spec)),
        lineage=lineage,
        record=record,
    )


def _dataset(given: Any) -> dict[str, Any]:
    """A URI, or a dict; a dataset version's URI ends with its name and its version."""
    data = dict(given) if isinstance(given, Mapping) else {"uri": given} if given else {}
    parts = str(data.get("uri") or "").rstrip("/").split("/")
    if len(parts) > 4 and parts[-3] == "datasets":
        data = {"name": parts[-2], "version": parts[-1], **data}
    return data


def _argument(spec: Mapping[str, Any]) -> str:
    """The trainer's own ``--dataset gs://…``."""
    args = [str(arg) for arg in spec.get("args", ())]
    for at, arg in enumerate(args):
        value = arg.partition("=")[2] if arg.startswith("--dataset=") else args[at + 1] if at + 1 < len(args) else ""
        if arg.partition("=")[0] == "--dataset" and value.startswith("gs://"):
            return value
    return ""

"""A finished job, as described by its ``job.json`` and by the caller."""

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
class FinishedJob:
    """A finished job.

    :param bucket: the bucket, or prefix, with the model's champion.
    :param package_uris: the packages of the trainer's environment.
    :param dataset: ``uri``, ``name`` and ``version`` of the dataset version, if they are known.
    :param lineage: packages, arguments, cluster and inputs of the job.
    :param record: the claim; ``None`` if mlengine did not submit the job.
    :param usage: the run time and cost of the job (:mod:`mlengine.validation.usage`); empty if unknown.
    """

    job_dir: JobDir
    model: str
    bucket: str
    package_uris: tuple[str, ...] = ()
    dataset: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    record: JobRecord | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset_uri(self) -> str:
        return str(self.dataset.get("uri") or "")

    @property
    def env(self) -> Mapping[str, str]:
        """The job's environment variables."""
        return dict(self.record.spec.get("env") or {}) if self.record else {}

    @property
    def scorer(self) -> str:
        """The scorer that the trainer's ``pyproject.toml`` named when it was packaged; empty if there is none."""
        package = self.record.inputs.get("package") if self.record else None
        return str(package.get("scorer") or "") if isinstance(package, Mapping) else ""


def job_dir_of(job: Any) -> JobDir:
    """The job directory of ``job``: its URI, or a mapping with ``job_dir``.

    :raises ModelError: ``job`` is neither.
    """
    uri = job.get("job_dir") if isinstance(job, Mapping) else job
    if not isinstance(uri, str) or uri.count("/") < 4 or not uri.startswith("gs://"):
        raise ModelError(f"not a job: {job!r}", hint="pass the submit task's output, or gs://BUCKET/<model>/<job_id>")
    return JobDir(uri.rstrip("/"))


def load_job(
    storage: Storage,
    job: Any,
    *,
    model: str | None = None,
    bucket: str | None = None,
    package_uris: Sequence[str] = (),
    dataset: Any = None,
) -> FinishedJob:
    """Read ``job.json``, which may be missing, and combine it with the arguments, which take precedence.

    :param job: as in :func:`job_dir_of`.
    :param dataset: the URI of the dataset version, or a mapping with ``uri``.
    """
    job_dir = job_dir_of(job)
    record: JobRecord | None = None
    with suppress(ObjectMissingError):  # not submitted by mlengine: the caller has to give the arguments
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
    return FinishedJob(
        job_dir=job_dir,
        model=check_model_name(model or (record.model if record else name)),
        bucket=bucket or parent,
        package_uris=packages,
        dataset=_dataset(dataset or inputs.get("dataset") or inputs.get("dataset_uri") or _argument(spec)),
        lineage=lineage,
        record=record,
    )


def _dataset(given: Any) -> dict[str, Any]:
    """The dataset as a dict. Name and version are taken from the URI of a dataset version."""
    data = dict(given) if isinstance(given, Mapping) else {"uri": given} if given else {}
    parts = str(data.get("uri") or "").rstrip("/").split("/")
    if len(parts) > 4 and parts[-3] == "datasets":
        data = {"name": parts[-2], "version": parts[-1], **data}
    return data


def _argument(spec: Mapping[str, Any]) -> str:
    """The value of the trainer's argument ``--dataset``, if it is a ``gs://`` URI."""
    args = [str(arg) for arg in spec.get("args", ())]
    for at, arg in enumerate(args):
        value = arg.partition("=")[2] if arg.startswith("--dataset=") else args[at + 1] if at + 1 < len(args) else ""
        if arg.partition("=")[0] == "--dataset" and value.startswith("gs://"):
            return value
    return ""

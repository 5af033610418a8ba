"""What is kept of a validation: ``report.json`` for programs, and ``predictions.json`` for later comparisons.

The report says what was measured, against what, and how the model came to be. The predictions are the model's classes
for the held-out rows, so that two models can be compared again without running either.
"""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from mlengine.core.errors import MlengineError, ModelError, ObjectMissingError
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Thresholds, Verdict
from mlengine.storage.client import Storage

FORMAT = 1


@dataclass(frozen=True)
class Report:
    """One validation.

    :param checks: how far it went: ``all``, ``signature`` or ``files``.
    :param serving_signature: how the model had to be called (:class:`~mlengine.validation.signature.Expectation`).
    :param extra_checks: ``name`` and ``digest`` of each check of the user's own; an empty digest if it has none.
    :param require_comparison: whether it had to be compared with the champion to be published.
    :param fingerprint: of the model's objects; a publisher compares it, so that what is published is what was judged.
    :param size: bytes of all files.
    :param dataset: ``uri``, ``name``, ``version``, ``digest``, ``heldout`` (its digest) and ``rows``; empty if none.
    :param champion: who was compared with: ``serial``, ``job_id``, ``model_uri``, ``accuracy``; empty if nobody.
    :param figures: what the probe measured; ``baseline`` the same of the champion.
    :param comparison: the paired counts, with difference, interval and p-value.
    :param lineage: what went into the job: packages, args, cluster, inputs, environment.
    :param took: what the job took: times, and cost as far as it is known (:mod:`mlengine.validation.usage`).
    :param created: ISO 8601, UTC.
    """

    model: str
    job_id: str
    job_dir: str
    model_uri: str
    verdict: Verdict
    thresholds: Thresholds
    checks: str
    created: str
    fingerprint: str = ""
    digest: str = ""
    size: int = 0
    step: int | None = None
    dataset: Mapping[str, Any] = field(default_factory=dict)
    champion: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    comparison: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    took: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    mistakes: tuple[Mapping[str, Any], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    serving_signature: Mapping[str, Any] = field(default_factory=dict)
    extra_checks: tuple[Mapping[str, str], ...] = ()
    require_comparison: bool = True

    @property
    def accuracy(self) -> float | None:
        value = self.figures.get("accuracy")
        return float(value) if isinstance(value, (int, float)) else None

    def to_json(self) -> dict[str, Any]:
        data = asdict(self) | {"format": FORMAT, "thresholds": self.thresholds.to_json()}
        data["verdict"] = self.verdict.to_json()
        return {**data, "mistakes": list(self.mistakes), "extra_checks": list(self.extra_checks)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """:raises MlengineError: the object is not a report of this format."""
        try:
            known = {item.name: data[item.name] for item in fields(cls) if item.name in data}
            known["verdict"] = Verdict.from_json(data["verdict"])
            known["thresholds"] = Thresholds.from_json(data["thresholds"])
            known |= {name: tuple(data.get(name, ())) for name in ("mistakes", "extra_checks")}
            made = cls(**known)
        except (KeyError, TypeError) as error:
            raise MlengineError(f"not a report: {error!r}", hint="run the validation again") from error
        if data.get("format") != FORMAT:
            raise MlengineError(f"a report of format {data.get('format')!r}", hint="run the validation again")
        return made


@dataclass(frozen=True)
class Predictions:
    """A model's classes for the rows of one held-out set, with the true ones; 65535 is no class."""

    heldout: str
    labels: tuple[int, ...]
    classes: tuple[int, ...]

    def to_bytes(self) -> bytes:
        packed = {name: base64.b64encode(_pack(getattr(self, name))).decode() for name in ("labels", "classes")}
        return json.dumps({"format": FORMAT, "heldout": self.heldout, "encoding": "base64 of <u2", **packed}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """:raises MlengineError: it is not what :meth:`to_bytes` writes."""
        try:
            raw = json.loads(data)
            return cls(raw["heldout"], _unpack(raw["labels"]), _unpack(raw["classes"]))
        except (ValueError, KeyError, TypeError) as error:
            raise MlengineError(f"not predictions: {error!r}", hint="run the validation again") from error


def load_report(storage: Storage, job_dir: JobDir) -> Report:
    """:raises ModelError: the job was not validated; :raises MlengineError: its report is damaged."""
    try:
        data = storage.read(job_dir.report)
    except ObjectMissingError as error:
        raise ModelError(f"no report at {job_dir.report}", hint="validate the model first") from error
    try:
        return Report.from_json(json.loads(data))
    except ValueError as error:
        raise MlengineError(f"{job_dir.report} is not JSON: {error}", hint="run the validation again") from error


def find_report(storage: Storage, job_dir: JobDir) -> Report | None:
    """The job's report; ``None`` if there is none, or it cannot be read.

    :raises StorageError: the bucket does not answer now.
    """
    try:
        return load_report(storage, job_dir)
    except MlengineError as error:
        if error.retryable:
            raise
        return None


def load_predictions(storage: Storage, job_dir: JobDir) -> Predictions | None:
    """``None`` if the job has none, or they cannot be read: then nothing can be compared, and the caller says so."""
    try:
        return Predictions.from_bytes(storage.read(job_dir.predictions))
    except MlengineError as error:
        if error.retryable:
            raise
        return None


def store(storage: Storage, report: Report, predictions: Predictions | None, page: bytes | None) -> str:
    """Write all of it; the report last, since a reader looks for that. Returns its URI."""
    job_dir = JobDir(report.job_dir)
    if predictions is not None:
        storage.write(job_dir.predictions, predictions.to_bytes())
    if page is not None:
        storage.write(job_dir.page, page, content_type="text/html; charset=utf-8")
    storage.write(job_dir.report, json.dumps(report.to_json(), indent=1).encode())
    return job_dir.report


def _pack(numbers: tuple[int, ...]) -> bytes:
    return b"".join(number.to_bytes(2, "little") for number in numbers)


def _unpack(text: str) -> tuple[int, ...]:
    data = base64.b64decode(text, validate=True)
    if len(data) % 2:
        raise ValueError("odd number of bytes")
    numbers = array("H")
    numbers.frombytes(data)
    return tuple(numbers)

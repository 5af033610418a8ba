"""The stored result of a validation, ``report.json``: checks with their measurements, rules, and lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from mlengine.core.errors import MlengineError, ModelError, ObjectMissingError
from mlengine.core.layout import JobDir
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Verdict
from mlengine.storage.client import Storage
from mlengine.validation.predictions import Predictions

FORMAT = 1
# The serving signature of a report of version 0.1 that has none.
_SIGNATURE_0_1 = {"key": "key", "features": "image", "output": "scores"}


@dataclass(frozen=True)
class Report:
    """The report of one validation.

    :param task: ``binary``, ``multiclass``, ``regression`` or ``none``; empty if the model was not run.
    :param model_kind: the kind of the model that was run: ``savedmodel``, ``keras``, ``onnx``, …, ``scorer``; empty if
        none was.
    :param scorer: ``package.module:function``, if the trainer's own scorer was used.
    :param metrics: values by metric on the held-out rows; ``None`` for a metric that is undefined there.
    :param undefined: by metric, the reason why it is undefined.
    :param slices: by threshold, the slices with rows, value and the champion's value, the worst first.
    :param main_metric: the metric by which champions are compared.
    :param curves: data for the report's plots (:mod:`mlengine.validation.metrics.curves`).
    :param worst_rows: the rows with the largest errors: number, target, prediction and columns.
    :param checks: the scope: ``all``, ``signature`` or ``files``.
    :param created: the time at which the model was validated; ISO 8601, UTC.
    :param fingerprint: fingerprint of the model's objects. It is compared again at publication, so that only validated
        files are published.
    :param digest: SHA-256 over all files of the model.
    :param size: size of all files in bytes.
    :param step: the training step in the manifest.
    :param dataset: ``uri``, ``name``, ``version``, ``digest``, ``heldout`` (its digest) and ``rows``; empty if unused.
    :param champion: the champion at the time: ``serial``, ``job_id``, ``model_uri`` and its main metric; empty if none.
    :param figures: the scoring process's measurements of the model.
    :param baseline: its measurements of the champion.
    :param comparison: by metric, the difference to the champion with its interval.
    :param lineage: packages, arguments, cluster, inputs and environment of the job.
    :param usage: the run time and cost of the job, if they are known (:mod:`mlengine.validation.usage`).
    :param environment: versions of Python and of the model's framework.
    :param seconds: duration of each step of the validation.
    :param serving_signature: the expected signature (:class:`~mlengine.validation.serving_signature.ServingSignature`).
    :param extra_checks: ``name`` and ``digest`` of each extra check; the digest is empty if the check has none.
    :param require_comparison: whether a comparison with the champion was required.
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
    usage: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    serving_signature: Mapping[str, Any] = field(default_factory=dict)
    extra_checks: tuple[Mapping[str, str], ...] = ()
    require_comparison: bool = True
    task: str = ""
    model_kind: str = ""
    scorer: str = ""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)
    main_metric: str = ""
    slices: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    worst_rows: tuple[Mapping[str, Any], ...] = ()

    @property
    def metric_value(self) -> float | None:
        """The value of the main metric; ``None`` if the model was not run, or the metric is undefined."""
        return self.metrics.get(self.main_metric)

    def to_json(self) -> dict[str, Any]:
        data = asdict(self) | {"format": FORMAT, "thresholds": self.thresholds.to_json()}
        data["verdict"] = self.verdict.to_json()
        return {**data, "worst_rows": list(self.worst_rows), "extra_checks": list(self.extra_checks)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a report. Those of version 0.1 have ``took`` for ``usage``, and one metric: the accuracy.

        :raises ReportFormatError: another version of mlengine wrote the report.
        :raises MlengineError: the object is not a report.
        """
        try:
            data = {"usage": data.get("took", {}), **data}
            accuracy = data.get("figures", {}).get("accuracy")
            if "metrics" not in data and isinstance(accuracy, (int, float)):
                data |= {"metrics": {"accuracy": accuracy}, "main_metric": "accuracy", "task": "multiclass"}
                data |= {"model_kind": "savedmodel"}
                data |= {"serving_signature": data.get("serving_signature") or _SIGNATURE_0_1}
            known = {item.name: data[item.name] for item in fields(cls) if item.name in data}
            known["verdict"] = Verdict.from_json(data["verdict"])
            known["thresholds"] = Thresholds.from_report(data["thresholds"])
            known |= {name: tuple(data.get(name, ())) for name in ("worst_rows", "extra_checks")}
            report = cls(**known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MlengineError(f"invalid report: {error!r}", hint="run the validation again") from error
        if data.get("format") != FORMAT:
            raise ReportFormatError(
                f"report has format {data.get('format')!r}, not {FORMAT}",
                hint="another version of mlengine wrote it: use that version or a newer one, or validate again",
            )
        return report


class ReportFormatError(MlengineError):
    """A report has the format of another version of mlengine."""


def load_report(storage: Storage, job_dir: JobDir) -> Report:
    """Read the job's report.

    :raises ModelError: the job was not validated.
    :raises MlengineError: the report is damaged.
    """
    try:
        data = storage.read(job_dir.report)
    except ObjectMissingError as error:
        raise ModelError(f"no report at {job_dir.report}", hint="validate the model first") from error
    try:
        return Report.from_json(json.loads(data))
    except ValueError as error:
        raise MlengineError(f"{job_dir.report} is not JSON: {error}", hint="run the validation again") from error


def find_report(storage: Storage, job_dir: JobDir, *, any_format: bool = True) -> Report | None:
    """The job's report; ``None`` if there is none, or it cannot be read.

    :param any_format: whether to return ``None`` for a report that another version of mlengine wrote, too.
    :raises ReportFormatError: there is such a report, and ``any_format`` is false.
    :raises StorageError: the storage service is temporarily unavailable.
    """
    try:
        return load_report(storage, job_dir)
    except MlengineError as error:
        if error.retryable or (isinstance(error, ReportFormatError) and not any_format):
            raise
        return None


def store(storage: Storage, report: Report, predictions: Predictions | None, page: bytes | None) -> str:
    """Write the report, its page and the predictions. The report is written last, because readers rely on it.

    :returns: the URI of the report.
    """
    job_dir = JobDir(report.job_dir)
    if predictions is not None:
        storage.write(job_dir.predictions, predictions.to_bytes())
    if page is not None:
        storage.write(job_dir.page, page, content_type="text/html; charset=utf-8")
    storage.write(job_dir.report, json.dumps(report.to_json(), indent=1).encode())
    return job_dir.report

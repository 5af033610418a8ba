"""Operator that validates the model of a finished job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from airflow.sdk import Context, XComArg
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlengine.core.arguments import flag, items, mapping, positive
from mlengine.core.errors import MlengineError, StorageError
from mlengine.core.job import Decision
from mlengine.core.layout import JobDir
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import table
from mlengine.core.xcoms import DatasetXCom, JobXCom, ValidationXCom, finite
from mlengine.job_index.recording import record_report
from mlengine.links.job import VALIDATE_LINKS
from mlengine.links.report import ReportLink, browser_url
from mlengine.operators._base import BackendOperator
from mlengine.operators.lineage import tasks as lineage
from mlengine.storage.client import Storage
from mlengine.validation.cache import record_accepted, reusable_report
from mlengine.validation.environment import local_environment
from mlengine.validation.job import FinishedJob, job_dir_of, load_job
from mlengine.validation.report import Report
from mlengine.validation.rules import Rules, Scope, check_task
from mlengine.validation.scoring_process import Limits
from mlengine.validation.serving_signature import ServingSignature
from mlengine.validation.usage import job_usage
from mlengine.validation.validation import validate

ON_REJECT = ("skip", "fail", "continue")

_TIME_LIMIT_SECONDS = 600.0


def _on_reject(value: Any) -> str:
    if value not in ON_REJECT:
        raise MlengineError(f"invalid on_reject: {value!r}", hint=f"use one of {', '.join(ON_REJECT)}")
    return str(value)


class ValidateModelOperator(BackendOperator):
    """Validate the model of a finished job: files, signature, behaviour, quality, and comparison with the champion.

    The model runs as a subprocess in the trainer's environment, with a time and a memory limit. If the model is
    rejected, or was not compared with the champion (``not_compared``), the report is written, the result is in XCom and
    in the last lines of the log, and the task ends according to ``on_reject``. This operator does not publish.

    The report of a reused job is kept if it covers the checks of this task; otherwise the model is validated again. An
    accepted model is cached for reuse by later runs with the same inputs (:mod:`mlengine.validation.cache`).

    :param job: the result of the submit task or of the sensor, or the URI of a job directory.
    :param dataset: the result of :class:`~mlengine.operators.dataset.ResolveDatasetOperator`, or the URI of a dataset
        version, whose held-out set is used. By default the dataset version recorded in the job.
    :param package_uris: the packages of the trainer's environment; by default those of the job.
    :param thresholds: thresholds by metric, as in :class:`~mlengine.core.thresholds.Thresholds`. ``None``, or an empty
        string from a trigger form, disables one. Without any, the model is only compared with the champion.
    :param serving_signature: the expected serving signature, as the fields of
        :class:`~mlengine.validation.serving_signature.ServingSignature`.
    :param validation_level: ``all``; ``signature``: do not run the model; ``files``: check only that the files are
        complete.
    :param extra_checks: users' own functions. Each gets the local folder with the model's files and the values measured
        so far, and returns a :class:`~mlengine.core.verdict.Check`. A check with ``comparison=True`` is a comparison
        with the champion.
    :param scorer: the function that predicts, as ``package.module:function`` of the trainer's package; by default the
        one in ``[tool.mlengine]`` of its ``pyproject.toml``, else one for the kind of the model's files.
    :param prediction_task: ``binary``, ``multiclass``, ``regression`` or ``none``, instead of the dataset's task.
    :param require_comparison: accept a model only if its quality was compared with the champion's. The levels ``files``
        and ``signature`` do not compare, so once there is a champion the verdict is ``not_compared`` unless this is
        ``False``.
    :param replace_report: replace the report of another run's job, or of a job given by its URI, even if it has checks
        that this task does not make. The report of this run's own job is always replaced.
    :param on_reject: how the task ends if the model may not be published. ``skip``: skipped; ``fail``: failed, without
        retries; ``continue``: success, for DAGs that evaluate the result themselves.
    :param model: the model's name; needed only for job directories without ``job.json``.
    :param bucket: the bucket with the champion's pointer; by default that of the job directory.
    :param time_limit_seconds: time limit of the model's process, in seconds.
    :param memory_limit_gib: limit of that process's private memory, in GiB; ``None`` for no limit.

    :returns: :class:`~mlengine.core.xcoms.ValidationXCom`: the verdict with its reasons, and the URI of the report.
    :raises DatasetError: there is no held-out set.
    :raises EnvironmentBuildError: the trainer's environment cannot be built.
    """

    template_fields: Sequence[str] = (
        *BackendOperator.template_fields,
        "job",
        "dataset",
        "package_uris",
        "thresholds",
        "serving_signature",
        "validation_level",
        "scorer",
        "prediction_task",
        "on_reject",
        "require_comparison",
        "replace_report",
        "time_limit_seconds",
        "memory_limit_gib",
        "model",
        "bucket",
    )
    parsers: ClassVar = {
        "on_reject": _on_reject,
        "time_limit_seconds": partial(positive, "time_limit_seconds"),
        "memory_limit_gib": partial(positive, "memory_limit_gib"),
        "validation_level": Scope.parse,
        "thresholds": lambda value: Thresholds.from_json(mapping("thresholds", value)),
        "serving_signature": lambda value: ServingSignature.from_json(mapping("serving_signature", value)),
        "require_comparison": partial(flag, "require_comparison"),
        "replace_report": partial(flag, "replace_report", default=False),
        "prediction_task": lambda value: check_task(value or ""),
    }
    operator_extra_links = (*VALIDATE_LINKS, ReportLink())
    template_fields_renderers = {"thresholds": "json", "serving_signature": "json"}  # noqa: RUF012
    ui_color = "#fff4ce"

    def __init__(
        self,
        *,
        job: JobXCom | XComArg | str,
        dataset: DatasetXCom | XComArg | str | None = None,
        package_uris: Sequence[str] | XComArg | str | None = None,
        thresholds: Mapping[str, Any] | None = None,
        serving_signature: Mapping[str, Any] | None = None,
        validation_level: str = Scope.ALL.value,
        extra_checks: Sequence[Callable[..., Any]] = (),
        scorer: str | None = None,
        prediction_task: str | None = None,
        on_reject: str = "skip",
        require_comparison: bool | str = True,
        replace_report: bool | str = False,
        model: str | None = None,
        bucket: str | None = None,
        time_limit_seconds: float | str = _TIME_LIMIT_SECONDS,
        memory_limit_gib: float | str | None = 4.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.dataset = dataset
        self.package_uris = package_uris
        self.thresholds = thresholds
        self.serving_signature = serving_signature
        self.validation_level = validation_level
        items("extra_checks", extra_checks)  # an error is raised when the DAG file is parsed, not after the training
        self.extra_checks = extra_checks
        self.scorer = scorer
        self.prediction_task = prediction_task
        self.on_reject = on_reject
        self.require_comparison = require_comparison
        self.replace_report = replace_report
        self.model = model
        self.bucket = bucket
        self.time_limit_seconds = time_limit_seconds
        self.memory_limit_gib = memory_limit_gib
        self.report_url: str | None = None
        self.check_literals()

    def execute(self, context: Context) -> ValidationXCom:
        rules = self._rules()
        storage = self.access.storage()
        report = self._reusable_report(storage, rules)
        if report is None:
            report = self._validate(storage, rules)
            record_accepted(storage, report)
            with suppress(StorageError):  # no bucket is configured
                record_report(storage, self.access.bucket(), report)
        self._lineage = partial(lineage.validated, report)
        self.report_url = browser_url(storage, JobDir(report.job_dir).page)
        self._log(report)
        result = finite(summary(report))
        if report.verdict.decision.publishable or self.on_reject == "continue":
            return result
        # A skipped or failed task has no return value, so the result is pushed here.
        context["ti"].xcom_push(key="return_value", value=result)
        message = f"{report.verdict.decision.value}: {' '.join(report.verdict.reasons)}"
        if self.on_reject == "fail":
            raise AirflowFailException(message)
        raise AirflowSkipException(message)

    def _validate(self, storage: Storage, rules: Rules) -> Report:
        finished = load_job(
            storage,
            self.returned_or_uri("job", "job_dir"),
            model=self.model or None,
            bucket=self.bucket or None,
            package_uris=_uris(self.given("package_uris")),
            dataset=self.given("dataset"),
        )
        return validate(
            storage,
            self._with_usage(finished),
            rules,
            local_environment(storage, finished.package_uris, env=finished.env),
            replace_report=self.parsed("replace_report") or self._trained_by_this_run(),
        )

    def _trained_by_this_run(self) -> bool:
        """Whether a task of this run trained the model, so that its report is always replaced."""
        job = self.returned_or_uri("job", "job_dir")
        return not isinstance(job, str) and job.get("decision") != Decision.REUSED.value

    def _with_usage(self, finished: FinishedJob) -> FinishedJob:
        """The job with its run time and cost, for the report. Errors are only logged."""
        if finished.record is None:
            return finished
        try:
            backend = self.access.backend(finished.record.backend)
        except MlengineError as error:
            self.log.warning("could not determine the job's run time and cost: %s", error.message)
            return finished
        return replace(finished, usage=job_usage(backend, finished.record, finished.job_dir))

    def _reusable_report(self, storage: Storage, rules: Rules) -> Report | None:
        """The report of a reused job, if it covers the checks of this task."""
        job = self.returned_or_uri("job", "job_dir")
        if isinstance(job, str) or job.get("decision") != Decision.REUSED.value:
            return None
        dataset = self.given("dataset")
        uri = dataset.get("uri") if isinstance(dataset, Mapping) else dataset
        report = reusable_report(storage, job_dir_of(job), rules, str(uri or ""))
        if report is not None:
            self.log.info("keeping the report of %s from %s: it covers the same checks", report.job_id, report.created)
        return report

    def _rules(self) -> Rules:
        """The rules from the arguments.

        :raises MlengineError: an argument is invalid.
        """
        self.parsed("on_reject")
        seconds, memory = self.parsed("time_limit_seconds"), self.parsed("memory_limit_gib")
        return Rules(
            scope=self.parsed("validation_level"),
            thresholds=self.parsed("thresholds"),
            expected=self.parsed("serving_signature"),
            limits=Limits(
                seconds=_TIME_LIMIT_SECONDS if seconds is None else seconds,
                memory_bytes=None if memory is None else int(memory * 1024**3),
            ),
            extra_checks=tuple(self.extra_checks),
            require_comparison=self.parsed("require_comparison"),
            scorer=self.scorer or "",
            task=self.parsed("prediction_task"),
        )

    def _log(self, report: Report) -> None:
        """Log the checks as a table, and then the verdict and its reasons."""
        for line in table(report.verdict.checks):
            self.log.info("%s", line)
        for name, value in report.metrics.items():
            threshold = report.thresholds.metrics.get(name)
            if threshold is None or (threshold.min is None and threshold.max is None):
                shown = f"undefined: {report.undefined.get(name)}" if value is None else f"{value:.4g}"
                self.log.info("%s is %s; no minimum or maximum is set", name, shown)
        self.log.info("report: %s", self.report_url)
        self.log.info("verdict: %s", report.verdict.decision.value)
        for reason in report.verdict.reasons:
            self.log.info("  %s", reason)


def _uris(value: Any) -> tuple[str, ...]:
    """The package URIs in an argument.

    :raises MlengineError: the value is a string, but not a URI: a template that was not rendered to a list.
    """
    if not isinstance(value, str):
        return tuple(value or ())
    if not value.startswith("gs://"):
        raise MlengineError(
            f"package_uris must be a list of URIs, not the string {value!r}",
            hint="pass a list of gs:// URIs; for a template, set render_template_as_native_obj=True on the DAG",
        )
    return (value,)


def summary(report: Report) -> ValidationXCom:
    """The XCom of a validation. The report has the details."""
    job_dir = JobDir(report.job_dir)
    return {
        "verdict": report.verdict.decision.value,
        "metric": report.main_metric,
        "metric_value": report.metric_value,
        "reasons": list(report.verdict.reasons),
        "report": job_dir.report,
        "page": job_dir.page,
        "model": report.model,
        "model_uri": report.model_uri,
        "job_id": report.job_id,
        "job_dir": report.job_dir,
        "champion": report.champion.get("job_id"),
    }

"""Stage: the gate. Judges the trained model, keeps a report, and says the verdict with its reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from airflow.sdk import Context, XComArg
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlengine.core.errors import MlengineError
from mlengine.core.job import Decision
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Thresholds, table
from mlengine.core.xcoms import DatasetXCom, JobXCom, ValidationXCom, finite
from mlengine.links.job import VALIDATE_LINKS
from mlengine.links.report import ReportLink, browser_url
from mlengine.operators._base import BackendOperator
from mlengine.storage.client import Storage
from mlengine.validation.cache import kept_report, remember
from mlengine.validation.environment import local_place
from mlengine.validation.report import Report
from mlengine.validation.rules import Rules, Scope
from mlengine.validation.runner import Limits
from mlengine.validation.signature import Expectation
from mlengine.validation.subject import Subject, find_subject, job_dir_of
from mlengine.validation.usage import took
from mlengine.validation.validation import validate

ON_REJECT = ("skip", "fail", "continue")


class ValidateModelOperator(BackendOperator):
    """Judge the model of a finished job: files, signature, behaviour, quality, and the champion beside it.

    TensorFlow runs in the trainer's environment, in a process of its own with a time and a memory limit.
    A rejected model is a result: the report is written, the result is in XCom and in the log's last lines, and then
    the task is skipped, so that what comes after it is skipped too. The same holds for a model that was not compared
    with the champion (``not_compared``). Nothing here publishes.

    :param job: what the submit task or the wait returned, or a job dir's URI.
    :param dataset: what :class:`~mlengine.operators.dataset.ResolveDatasetOperator` returned, or a dataset version's
        URI: its held-out set is used. Without it, what the job recorded counts.
    :param package_uris: the packages its environment is made of; without it, those the job was submitted with.
    :param thresholds: names and bounds as in :class:`~mlengine.core.verdict.Thresholds`; what is left out keeps its
        default, and ``None`` (or an empty string, as a form gives it) asks no such question.
    :param serving_signature: how the model must be called, as in :class:`~mlengine.validation.signature.Expectation`.
    :param validation_level: ``all``; ``signature``: without running the model; ``files``: for models that are no
        SavedModel.
    :param extra_checks: functions of the user's own: each gets the folder with the model's files and the figures
        measured so far, and returns a :class:`~mlengine.core.verdict.Check`. One with ``comparison=True`` is a
        comparison with the champion.
    :param require_comparison: whether a model may be accepted only if it was compared with the champion in quality.
        The levels ``files`` and ``signature`` do not compare: with them a model is ``not_compared`` once there is a
        champion, unless this is ``False``.
    :param replace_report: replace the report of another run's job, or of a job given by its URI, even if it answers
        questions that are not asked here. The report of this run's own job is always replaced.
    :param on_reject: ``skip``: this task ends as skipped; ``fail``: as failed, without a retry; ``continue``: as a
        success, for a DAG that decides by the result itself.
    :param model: the model's name, for a job dir that was not made here.
    :param bucket: where the champion's pointer lies; by default where the job dir does.
    :param time_limit_seconds: how long the model's process may run.
    :param memory_limit_gib: the private memory of that process, in GiB; ``None`` for no limit.

    The report of a reused job stands, if the gate asks what it asked then; otherwise it is judged anew. A model that is
    accepted is cached for reuse by later runs with the same inputs (:mod:`mlengine.validation.cache`).

    :returns: :class:`~mlengine.core.xcoms.ValidationXCom`: the verdict with its reasons, and where the report is.
    :raises DatasetError: there is no held-out set; :raises EnvironmentBuildError: the environment cannot be built.
    """

    template_fields: Sequence[str] = (
        *BackendOperator.template_fields,
        "job",
        "dataset",
        "package_uris",
        "thresholds",
        "serving_signature",
        "validation_level",
        "on_reject",
        "require_comparison",
        "replace_report",
        "model",
        "bucket",
    )
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
        on_reject: str = "skip",
        require_comparison: bool | str = True,
        replace_report: bool | str = False,
        model: str | None = None,
        bucket: str | None = None,
        time_limit_seconds: float = 600.0,
        memory_limit_gib: float | None = 4.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.dataset = dataset
        self.package_uris = package_uris
        self.thresholds = thresholds
        self.serving_signature = serving_signature
        self.validation_level = validation_level
        self.extra_checks = extra_checks
        self.on_reject = on_reject
        self.require_comparison = require_comparison
        self.replace_report = replace_report
        self.model = model
        self.bucket = bucket
        self.time_limit_seconds = time_limit_seconds
        self.memory_limit_gib = memory_limit_gib
        self.report_url: str | None = None

    def execute(self, context: Context) -> ValidationXCom:
        rules = self._rules()
        storage = self.access.storage()
        report = self._kept(storage, rules)
        if report is None:
            report = self._judge(storage, rules)
            remember(storage, report)
        self.report_url = browser_url(storage, JobDir(report.job_dir).page)
        self._tell(report)
        result = finite(summary(report))
        if report.verdict.decision.publishable or self.on_reject == "continue":
            return result
        # A skipped and a failed task return nothing, so the result is left in XCom before.
        context["ti"].xcom_push(key="return_value", value=result)
        sentence = f"{report.verdict.decision.value}: {' '.join(report.verdict.reasons)}"
        if self.on_reject == "fail":
            raise AirflowFailException(sentence)
        raise AirflowSkipException(sentence)

    def _judge(self, storage: Storage, rules: Rules) -> Report:
        subject = find_subject(
            storage,
            self.returned_or_uri("job", "job_dir"),
            model=self.model or None,
            bucket=self.bucket or None,
            package_uris=self.given("package_uris") or (),
            dataset=self.given("dataset"),
        )
        return validate(
            storage,
            self._asked_what_it_took(subject),
            rules,
            local_place(storage, subject.package_uris, env=subject.env),
            replace_report=_is_true("replace_report", self.replace_report) or self._trained_by_this_run(),
        )

    def _trained_by_this_run(self) -> bool:
        """Whether the job comes from a task of this run and was not reused: then this DAG decides what is asked."""
        job = self.returned_or_uri("job", "job_dir")
        return not isinstance(job, str) and job.get("decision") != Decision.REUSED.value

    def _asked_what_it_took(self, subject: Subject) -> Subject:
        """For the report alone: whatever goes wrong there is logged, and judges nobody."""
        if subject.record is None:
            return subject
        try:
            backend = self.access.backend(subject.record.backend)
        except MlengineError as error:
            self.log.warning("what the job took is not known: %s", error.message)
            return subject
        return replace(subject, took=took(backend, subject.record, subject.job_dir))

    def _kept(self, storage: Storage, rules: Rules) -> Report | None:
        """The report of a reused job, if it answers what is asked here."""
        job = self.returned_or_uri("job", "job_dir")
        if isinstance(job, str) or job.get("decision") != Decision.REUSED.value:
            return None
        dataset = self.given("dataset")
        uri = dataset.get("uri") if isinstance(dataset, Mapping) else dataset
        report = kept_report(storage, job_dir_of(job), rules, str(uri or ""))
        if report is not None:
            self.log.info("the model of %s was judged by the same rules on %s", report.job_id, report.created)
        return report

    def _rules(self) -> Rules:
        """:raises MlengineError: a threshold, scope or limit is not understood; before anything is fetched."""
        if self.on_reject not in ON_REJECT:
            raise MlengineError(f"on_reject={self.on_reject!r}", hint=f"write one of {', '.join(ON_REJECT)}")
        memory = None if self.memory_limit_gib is None else int(self.memory_limit_gib * 1024**3)
        return Rules(
            scope=Scope.parse(self.validation_level),
            thresholds=Thresholds.from_json(self.thresholds),
            expected=Expectation.from_json(self.serving_signature),
            limits=Limits(seconds=self.time_limit_seconds, memory_bytes=memory),
            own=tuple(self.extra_checks),
            require_comparison=_is_true("require_comparison", self.require_comparison),
        )

    def _tell(self, report: Report) -> None:
        """The checks as a table; the verdict and its reasons are the last lines."""
        for line in table(report.verdict.checks):
            self.log.info("%s", line)
        self.log.info("report: %s", self.report_url)
        self.log.info("verdict: %s", report.verdict.decision.value)
        for reason in report.verdict.reasons:
            self.log.info("  %s", reason)


def _is_true(name: str, value: bool | str) -> bool:
    """A templated switch: a bool, or what a template renders of one.

    :raises MlengineError: it is neither.
    """
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return known[str(value).strip().lower()]
    except KeyError:
        raise MlengineError(f"{name}={value!r}", hint="write True or False") from None


def summary(report: Report) -> ValidationXCom:
    """The small dict that goes into XCom; the report has the rest."""
    job_dir = JobDir(report.job_dir)
    return {
        "verdict": report.verdict.decision.value,
        "accuracy": report.accuracy,
        "reasons": list(report.verdict.reasons),
        "report": job_dir.report,
        "page": job_dir.page,
        "model": report.model,
        "model_uri": report.model_uri,
        "job_id": report.job_id,
        "job_dir": report.job_dir,
        "champion": report.champion.get("job_id"),
    }

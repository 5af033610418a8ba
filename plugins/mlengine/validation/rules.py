"""The rules of a validation: its scope, the thresholds, the serving signature, and extra checks.

A report records its rules. A later validation of the same job uses them again by default; a reused job keeps its report
if the report covers the same checks; and a report is not silently replaced by one with fewer checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mlengine.core.dataset import TASKS
from mlengine.core.errors import MlengineError, ModelError
from mlengine.core.thresholds import Thresholds
from mlengine.storage.client import Storage
from mlengine.validation.export import resolve
from mlengine.validation.extra_checks import ExtraCheck, check_digest, check_name
from mlengine.validation.job import FinishedJob
from mlengine.validation.report import Report, ReportFormatError, find_report
from mlengine.validation.scoring_process import Limits
from mlengine.validation.serving_signature import ServingSignature

# The thresholds that apply without running the model.
_FILE_THRESHOLDS = ("size_bytes", "size_ratio")

_REPLACE = (
    "to replace the report, use `mlengine models validate --replace-report` or"
    " ValidateModelOperator(replace_report=True)"
)


class Scope(StrEnum):
    """The scope of a validation: which checks it makes."""

    ALL = "all"
    SIGNATURE = "signature"  # without running the model
    FILES = "files"  # for models that validation cannot run

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Parse ``validation_level``.

        :raises MlengineError: the value is unknown.
        """
        try:
            return cls(text)
        except ValueError:
            raise MlengineError(
                f"unknown validation_level: {text!r}", hint=f"use one of {', '.join(item.value for item in cls)}"
            ) from None

    def includes(self, other: Scope) -> bool:
        """Whether a validation of this scope makes all checks of the ``other`` scope."""
        order = list(Scope)
        return order.index(self) <= order.index(other)


def check_task(task: str) -> str:
    """Check the name of a task.

    :raises MlengineError: ``task`` is neither empty nor a task.
    """
    if task and task not in TASKS:
        raise MlengineError(f"unknown prediction_task: {task!r}", hint=f"use one of {', '.join(TASKS)}")
    return task


@dataclass(frozen=True)
class Rules:
    """The checks of a validation and their thresholds.

    :param expected: the serving signature.
    :param limits: the time and memory limits of the scoring process.
    :param scorer: the ``package.module:function`` that predicts; by default the one that the trainer's package names.
    :param task: the task, if it is not the dataset's.
    :param require_comparison: whether a comparison with the champion is required: without one, the verdict is
        ``not_compared``, and the model is not published.
    :param extra_checks: users' own functions. Each gets the local folder with the model's files and the values measured
        so far. They run in this process, so they must not import TensorFlow. A check that raises has failed.
    """

    scope: Scope = Scope.ALL
    thresholds: Thresholds = field(default_factory=Thresholds)
    expected: ServingSignature = field(default_factory=ServingSignature)
    limits: Limits = field(default_factory=Limits)
    extra_checks: Sequence[ExtraCheck] = ()
    require_comparison: bool = True
    scorer: str = ""
    task: str = ""

    @property
    def extra_check_records(self) -> tuple[dict[str, str], ...]:
        """The name and the digest of each extra check, for the report."""
        return tuple({"name": check_name(check), "digest": check_digest(check)} for check in self.extra_checks)


def recorded_model(storage: Storage, job: FinishedJob) -> tuple[ServingSignature, str]:
    """The serving signature and the scorer of a job: those of its report, else the defaults and the trainer's scorer.

    :raises ModelError: the recorded signature is invalid.
    """
    report = find_report(storage, job.job_dir)
    if report is None or report.checks == Scope.FILES or not report.serving_signature:
        return ServingSignature(), job.scorer
    return ServingSignature.from_report(report.serving_signature), report.scorer or job.scorer


def covers(report: Report, rules: Rules, dataset_uri: str = "") -> bool:
    """Whether ``report`` has all checks of ``rules``, with the same thresholds.

    :param dataset_uri: the dataset version to validate on, if the caller names one.
    """
    scope = Scope.parse(report.checks)
    mine = [check["digest"] for check in rules.extra_check_records]
    theirs = {check.get("digest") for check in report.extra_checks}
    return (
        scope.includes(rules.scope)
        and report.require_comparison == rules.require_comparison
        and (rules.scope is not Scope.ALL or rules.scorer in {"", report.scorer})
        and (rules.scope is not Scope.ALL or rules.task in {"", report.task})
        and _thresholds(report.thresholds, rules.scope) == _thresholds(rules.thresholds, rules.scope)
        and (rules.scope is Scope.FILES or _signature(report) == rules.expected.to_json())
        and (rules.scope is not Scope.ALL or dataset_uri in {"", report.dataset.get("uri")})
        and all(digest and digest in theirs for digest in mine)
    )


def refuse_to_drop_checks(storage: Storage, job: FinishedJob, rules: Rules) -> None:
    """Check that a new validation would not drop checks of the job's report.

    :raises ModelError: the job has a report of these files with checks that ``rules`` do not include, or a report of
        another version of mlengine, whose checks are unknown.
    """
    try:
        report = find_report(storage, job.job_dir, any_format=False)
    except ReportFormatError as error:
        raise ModelError(
            f"{job.job_dir.report}: {error.message}",
            hint=f"use that version of mlengine; {_REPLACE}",
        ) from error
    dropped = dropped_checks(report, rules) if report else []
    if report is None or not dropped:
        return
    try:
        export = resolve(storage, job.job_dir.model, known=report.checks != Scope.FILES and not report.scorer)
    except ModelError:
        return
    if export.fingerprint == report.fingerprint:  # otherwise the report is about other files, and is outdated
        raise ModelError(
            f"the report of {report.job_id} ({report.verdict.decision.value}, {report.created}) has checks that this"
            f" validation does not make: {'; '.join(dropped)}",
            hint=f"to keep them, clear the task `validate` of the job's DAG run; {_REPLACE}",
        )


def dropped_checks(report: Report, rules: Rules) -> list[str]:
    """The checks of ``report`` that a validation with ``rules`` would not make.

    Different thresholds, or different arguments of the same extra check, do not count.
    """
    dropped = []
    if not rules.scope.includes(Scope.parse(report.checks)):
        dropped.append(f"validation_level {report.checks!r}, now {rules.scope.value!r}")
    default = ServingSignature().to_json()
    known = report.checks != Scope.FILES and _signature(report) not in ({}, default)
    if known and rules.scope is not Scope.FILES and rules.expected.to_json() == default:
        dropped.append("the configured serving signature, now the default")
    mine = {_function(check_name(check)) for check in rules.extra_checks}
    dropped += [f"extra check {check['name']}" for check in report.extra_checks if _function(check["name"]) not in mine]
    return dropped


def _signature(report: Report) -> Mapping[str, Any]:
    """The report's serving signature in the current format."""
    return ServingSignature.from_report(report.serving_signature).to_json() if report.serving_signature else {}


def _function(name: str) -> str:
    """The function's name in the name of an extra check: ``has_words`` for ``has_words(5)``."""
    return name.partition("(")[0]


def _thresholds(thresholds: Thresholds, scope: Scope) -> Mapping[str, Any]:
    values = thresholds.to_json()
    return values if scope is Scope.ALL else {name: values[name] for name in _FILE_THRESHOLDS}

"""``mlengine models validate``: validate the model of a job."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.cli.documents import ValidationDocument
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.models.arguments import add_job, add_model, job_dir
from mlengine.cli.options import Commands, add_bucket, add_command, add_json, bucket_of, key_value, unique
from mlengine.cli.output import note, say, say_json
from mlengine.core.dataset import TASKS
from mlengine.core.errors import MlengineError, ModelError, UsageError
from mlengine.core.job import FailureCause, JobState, JobStatus
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check, table
from mlengine.storage.client import Storage

if TYPE_CHECKING:
    from mlengine.core.layout import JobDir
    from mlengine.validation.report import Report
    from mlengine.validation.rules import Rules

_ABOUT = """\
Validate the model of a job and write report.json and report.html. Exit code 4 if the model is not accepted. Options
that are not given default to those of the job's last report.
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "validate", "validate the model of a job", _ABOUT)
    add_model(parser)
    add_job(parser)
    parser.add_argument(
        "--validation-level",
        choices=("all", "signature", "files"),
        metavar="LEVEL",
        help="all, signature or files (default: as in the last report, otherwise all)",
    )
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        type=key_value,
        metavar="KEY=VALUE",
        help="a threshold, such as accuracy=0.97, log_loss.max=0.4 or roc_auc.max_regression=0.005; repeatable",
    )
    parser.add_argument("--scorer", metavar="MODULE:FUNCTION", help="how the model predicts (docs/own-model.md)")
    parser.add_argument("--task", choices=TASKS, help="what the model predicts (default: as the dataset says)")
    parser.add_argument(
        "--serving-signature",
        metavar="JSON",
        help="inputs and outputs as JSON, or @FILE (docs/validation.md)",
    )
    parser.add_argument(
        "--require-comparison",
        action=argparse.BooleanOptionalAction,
        help="accept the model only if it was compared with the champion (default: as in the last report, "
        "otherwise yes)",
    )
    parser.add_argument(
        "--replace-report", action="store_true", help="replace the last report even if it has more checks"
    )
    parser.add_argument(
        "--any-state",
        action="store_true",
        help="validate the model even if the job failed, was cancelled or is still running",
    )
    parser.add_argument("--dataset", metavar="GS", help="URI of the dataset version (default: the job's)")
    parser.add_argument(
        "--package", action="append", default=[], metavar="URI", help="a package of the model's environment; repeatable"
    )
    add_bucket(parser, "bucket of the model")
    add_json(parser)
    parser.set_defaults(handler=_validate)


def _validate(args: argparse.Namespace) -> int:
    from mlengine.backends import get_backend
    from mlengine.job_index.recording import record_report
    from mlengine.validation.environment import local_environment
    from mlengine.validation.job import load_job
    from mlengine.validation.report import find_report
    from mlengine.validation.usage import job_usage
    from mlengine.validation.validation import validate

    storage, bucket = Storage(), bucket_of(args)
    folder = job_dir(bucket, args.model, args.job)
    earlier = find_report(storage, folder)
    rules = _rules(args, earlier)
    subject = load_job(
        storage,
        folder.uri,
        model=args.model,
        bucket=bucket,
        package_uris=args.package,
        dataset=args.dataset or (earlier.dataset if earlier else None),
    )
    if subject.record is None and not storage.ls(folder.model):
        raise ModelError(
            f"there is no job in {folder.uri}: it has no job.json and no model",
            hint=f"check the names; `mlengine jobs list` shows the jobs of {bucket}",
        )
    if subject.record is not None:
        status = None
        with suppress(MlengineError):  # without a response of the backend, state, time and cost are not known
            backend = get_backend(subject.record.backend)
            handle = subject.record.handle(folder.uri)
            status = backend.describe([handle])[0] if handle else None
            subject = replace(subject, usage=job_usage(backend, subject.record, folder))
        if not args.any_state:
            _check_succeeded(storage, folder, status)
    if earlier:
        note(f"using the options of the report of {earlier.created}; validation_level={rules.scope.value}")
    report = validate(
        storage,
        subject,
        rules,
        local_environment(storage, subject.package_uris, env=subject.env),
        replace_report=args.replace_report,
    )
    record_report(storage, bucket, report)
    if args.json:
        say_json(_document(report, folder))
    else:
        _print(report, folder)
    return ExitCode.OK if report.verdict.decision.publishable else ExitCode.NOT_ACCEPTED


def _check_succeeded(storage: Storage, folder: JobDir, status: JobStatus | None) -> None:
    """Check that the job has succeeded, because a report on any other job would say nothing about its model.

    A job that its backend does not know, for example because its state dir was deleted, must have a complete model.

    :param status: ``None`` if the job was not submitted, or the backend does not respond.
    :raises ModelError: the job failed, was cancelled, or has not ended; or has no complete model.
    """
    from mlengine.validation.export import resolve

    state = JobState.UNKNOWN if status is None else status.state
    lost = status is not None and status.failure is not None and status.failure.cause is FailureCause.LOST
    if state is JobState.SUCCEEDED:
        return
    if state is JobState.UNKNOWN or lost:
        resolve(storage, folder.model, known=False)
        return
    then = "validates its model anyway" if state.terminal else "validates the model that is there now"
    raise ModelError(
        f"job {folder.job_id} is {state.value}, so its model was not validated",
        hint=f"see `mlengine jobs status {folder.uri}`; --any-state {then}",
    )


def _print(report: Report, folder: JobDir) -> None:
    for line in table(report.verdict.checks):
        say(line)
    say(f"report: {folder.page}")
    say(f"verdict: {report.verdict.decision.value}")
    for reason in report.verdict.reasons:
        say(f"  {reason}")


def _document(report: Report, folder: JobDir) -> ValidationDocument:
    return {
        "model": report.model,
        "job_id": report.job_id,
        "job_dir": folder.uri,
        "verdict": report.verdict.decision.value,
        "accepted": report.verdict.decision.publishable,
        "reasons": list(report.verdict.reasons),
        "checks": [_check(check) for check in report.verdict.checks],
        "report_uri": folder.page,
    }


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "passed": check.passed,
        "skipped": check.skipped,
        "value": check.value,
        "threshold": check.threshold,
        "detail": check.message,
    }


def _rules(args: argparse.Namespace, earlier: Report | None) -> Rules:
    """The validation rules: the command's options and, where none is given, those of the job's last report."""
    from mlengine.validation.rules import Rules, Scope
    from mlengine.validation.serving_signature import ServingSignature

    thresholds = earlier.thresholds.to_json() if earlier else {}
    signature = ServingSignature.from_report(earlier.serving_signature) if earlier else ServingSignature()
    if args.serving_signature:
        signature = ServingSignature.from_json(_json(args.serving_signature))
    required = earlier.require_comparison if earlier else True
    return Rules(
        scope=Scope.parse(args.validation_level or (earlier.checks if earlier else Scope.ALL)),
        thresholds=_thresholds(thresholds, unique("--threshold", args.threshold)),
        expected=signature,
        require_comparison=required if args.require_comparison is None else args.require_comparison,
        scorer=args.scorer or (earlier.scorer if earlier else ""),
        task=args.task or (earlier.task if earlier else ""),
    )


def _thresholds(earlier: Mapping[str, Any], given: Mapping[str, str]) -> Thresholds:
    """Apply the given thresholds to those of an earlier report.

    ``roc_auc=0.8`` replaces a metric's threshold, and ``roc_auc.min=0.8`` sets one field of it, in any order.

    :raises UsageError: a name is unknown, or a value is not a number in its range.
    """
    merged, fields = dict(earlier), {}
    for key, value in given.items():
        name, _, part = key.rpartition(".")
        if part not in {"min", "max", "max_regression"} or not name:
            merged[key] = value
        elif name in Thresholds.__dataclass_fields__:
            raise UsageError(f"--threshold {key}: {name} is not a metric", hint=f"write {name}=VALUE")
        else:
            fields[key] = value
    try:
        for key, value in fields.items():
            name, _, part = key.rpartition(".")
            metric = Thresholds.from_json({name: merged.get(name)}).metrics.get(name)
            merged[name] = {**(metric.to_json() if metric else {}), part: value}
        return Thresholds.from_json(merged)
    except MlengineError as error:
        raise UsageError(f"--threshold: {error.message}", hint=error.hint) from error


def _json(text: str) -> dict[str, Any]:
    """Parse the JSON object of ``--serving-signature``, or of the file after ``@``.

    :raises UsageError: the value is not a JSON object, or the file cannot be read.
    """
    try:
        data = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise UsageError(f"--serving-signature {text}: {error}", hint="pass JSON, or @FILE") from error
    if not isinstance(data, dict):
        raise UsageError(f"--serving-signature {text} is not a JSON object", hint="see docs/validation.md")
    return data

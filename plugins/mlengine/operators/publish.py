"""Operator that makes a validated model the champion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from airflow.sdk import Context, XComArg
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlengine.core.errors import MlengineError
from mlengine.core.xcoms import JobXCom, PublicationXCom, ValidationXCom, finite
from mlengine.operators._base import MlengineOperator
from mlengine.operators.champion_events import announce, publisher
from mlengine.operators.lineage import tasks as lineage
from mlengine.promotion.outcome import Force, Outcome
from mlengine.promotion.publish import publish
from mlengine.validation.job import job_dir_of
from mlengine.validation.report import Report, load_report

ON_NOT_PUBLISHED = ("skip", "fail", "continue")


def _on_not_published(value: Any) -> str:
    if value not in ON_NOT_PUBLISHED:
        raise MlengineError(f"invalid on_not_published: {value!r}", hint=f"use one of {', '.join(ON_NOT_PUBLISHED)}")
    return str(value)


class PublishModelOperator(MlengineOperator):
    """Make the job's model the champion, if its report allows it.

    A model is not published if its verdict does not allow it; if the champion was trained on a newer dataset version or
    by a later run; or if the champion changed after the validation, and the stored predictions cannot be compared or
    show that the model is worse. Then the champion stays, the task ends according to ``on_not_published``, and no asset
    event is sent. The task is idempotent.

    Assets in ``outlets`` get an event, with the model's URI and metrics in ``extra``, if and only if this task changed
    the champion (:mod:`mlengine.operators.champion_events`). An asset alias, such as
    :func:`~mlengine.assets.champions_alias`, gets an event of the published model's
    :func:`~mlengine.assets.champion_asset`. Use an alias if the model's name is a template or comes from a mapped task.

    :param job: the result of the validation, the sensor or the submit task, or the URI of a job directory.
    :param published_by: the person or task that publishes; stored in the history.
    :param force_reason: publish although a rule prevents it, for this reason; needs ``force_by``. Both are stored in
        the history.
    :param force_by: who forces the publication; by default the user who triggered the run.
    :param on_not_published: how the task ends if the model is not published: ``skip``, ``fail`` or ``continue``.
    :param bucket: the bucket with the champion's pointer; by default that of the job directory.

    :returns: :class:`~mlengine.core.xcoms.PublicationXCom`: whether it was published, and the current champion.
    :raises ModelError: the job was not validated.
    :raises PublishError: the model's files changed after validation.
    """

    template_fields: Sequence[str] = (
        *MlengineOperator.template_fields,
        "job",
        "published_by",
        "force_reason",
        "force_by",
        "on_not_published",
        "bucket",
    )
    parsers: ClassVar = {"on_not_published": _on_not_published}
    ui_color = "#d9ead3"

    def __init__(
        self,
        *,
        job: ValidationXCom | JobXCom | XComArg | str,
        published_by: str = "{{ dag.dag_id }} {{ run_id }}",
        force_reason: str = "",
        force_by: str = "{{ dag_run.triggering_user_name or '' }}",
        on_not_published: str = "skip",
        bucket: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.published_by = published_by
        self.force_reason = force_reason
        self.force_by = force_by
        self.on_not_published = on_not_published
        self.bucket = bucket
        self.check_literals()

    def execute(self, context: Context) -> PublicationXCom:
        self.parsed("on_not_published")
        storage = self.access.storage()
        job_dir = job_dir_of(self.returned_or_uri("job", "job_dir"))
        report = load_report(storage, job_dir)
        reason = str(self.given("force_reason") or "").strip()
        force = Force(str(self.given("force_by") or ""), reason) if reason else None
        bucket = self.bucket or job_dir.uri.rsplit("/", 2)[0]
        outcome = publish(storage, bucket, report, by=self.published_by, force=force, publisher=publisher(context))
        self._lineage = partial(lineage.published, bucket, report, outcome)
        result = finite(summary(outcome, report))
        self.log.info("%s: %s", outcome.decision.value, outcome.reason)
        announce(self, context, outcome, result)
        if outcome.published or self.on_not_published == "continue":
            return result
        context["ti"].xcom_push(key="return_value", value=result)
        message = f"not published ({outcome.decision.value}): {outcome.reason}"
        if self.on_not_published == "fail":
            raise AirflowFailException(message)
        raise AirflowSkipException(message)


def summary(outcome: Outcome, report: Report) -> PublicationXCom:
    """The XCom of a publication."""
    champion = outcome.champion
    return {
        "published": outcome.published,
        "decision": outcome.decision.value,
        "reason": outcome.reason,
        "model": report.model,
        "job_id": report.job_id,
        "job_dir": report.job_dir,
        "metric": report.main_metric,
        "metric_value": report.metric_value,
        "dataset_version": str(report.dataset.get("version") or ""),
        "champion": champion.model_uri if champion else None,
        "serial": champion.serial if champion else None,
        "previous": champion.previous if champion else None,
    }

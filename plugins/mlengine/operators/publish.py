"""Stage: the champion. Swaps the pointer to the validated model, unless something speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context, XComArg
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlengine.core.errors import MlengineError
from mlengine.core.xcoms import JobXCom, PublicationXCom, ValidationXCom, finite
from mlengine.operators._base import MlengineOperator
from mlengine.operators.champion_events import announce, publisher
from mlengine.promotion.outcome import Force, Outcome
from mlengine.promotion.publish import publish
from mlengine.validation.report import Report, load_report
from mlengine.validation.subject import job_dir_of

ON_NOT_PUBLISHED = ("skip", "fail", "continue")


class PublishModelOperator(MlengineOperator):
    """Make the job's model the champion, if its report allows it.

    What speaks against it: the verdict; a champion trained on a newer dataset version, or by a later run; a champion
    that came after the validation, if the two cannot be compared by their kept predictions or the new one holds its
    place. Then nothing is swapped, the task is skipped, and no asset event is sent. Running it again changes nothing.

    Assets in ``outlets`` get an event with the model's URI and figures in ``extra``, if and only if this task changed
    the champion (:mod:`mlengine.operators.champion_events`). An asset alias, such as
    :func:`~mlengine.assets.champions_alias`, gets one of :func:`~mlengine.assets.champion_asset` of the model that is
    published: use it where the model's name is a template, or comes from a mapped task.

    :param job: what the validation, the wait or the submit task returned, or a job dir's URI.
    :param published_by: who publishes; kept in the history.
    :param force_reason: publish in spite of all that; needs ``force_by``. Both are kept in the history.
    :param force_by: who takes it on themselves: by default who triggered the run.
    :param on_not_published: ``skip``, ``fail`` or ``continue``: how this task ends if the model is not published.
    :param bucket: where the champion's pointer lies; by default where the job dir does.

    :returns: :class:`~mlengine.core.xcoms.PublicationXCom`: whether it was published, and the champion now.
    :raises ModelError: the job was not validated; :raises PublishError: its files changed since.
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

    def execute(self, context: Context) -> PublicationXCom:
        if self.on_not_published not in ON_NOT_PUBLISHED:
            raise MlengineError(
                f"on_not_published={self.on_not_published!r}", hint=f"write one of {', '.join(ON_NOT_PUBLISHED)}"
            )
        storage = self.access.storage()
        job_dir = job_dir_of(self.returned_or_uri("job", "job_dir"))
        report = load_report(storage, job_dir)
        reason = (self.force_reason or "").strip()
        force = Force(self.force_by or "", reason) if reason else None
        bucket = self.bucket or job_dir.uri.rsplit("/", 2)[0]
        outcome = publish(storage, bucket, report, by=self.published_by, force=force, publisher=publisher(context))
        result = finite(summary(outcome, report))
        self.log.info("%s: %s", outcome.word.value, outcome.sentence)
        announce(self, context, outcome, result)
        if outcome.published or self.on_not_published == "continue":
            return result
        context["ti"].xcom_push(key="return_value", value=result)
        sentence = f"not published ({outcome.word.value}): {outcome.sentence}"
        if self.on_not_published == "fail":
            raise AirflowFailException(sentence)
        raise AirflowSkipException(sentence)


def summary(outcome: Outcome, report: Report) -> PublicationXCom:
    """The small dict that goes into XCom."""
    champion = outcome.champion
    return {
        "published": outcome.published,
        "decision": outcome.word.value,
        "reason": outcome.sentence,
        "model": report.model,
        "job_id": report.job_id,
        "job_dir": report.job_dir,
        "accuracy": report.accuracy,
        "dataset_version": str(report.dataset.get("version") or ""),
        "champion": champion.model_uri if champion else None,
        "serial": champion.serial if champion else None,
        "previous": champion.previous if champion else None,
    }

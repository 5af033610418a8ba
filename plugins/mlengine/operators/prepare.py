"""Operator that prepares an empty job dir with ``train/`` and ``model/``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from airflow.sdk import Context

from mlengine.core.errors import XComMissingError
from mlengine.core.job import make_job_id
from mlengine.core.layout import JobDir, check_model_name
from mlengine.core.xcoms import JobDirXCom
from mlengine.jobs.job_dir import prepare_clean
from mlengine.operators._base import MlengineOperator
from mlengine.operators.run_identity import job_key


class PrepareJobDirOperator(MlengineOperator):
    """Create the empty directory ``gs://BUCKET/<model>/<job_id>/`` with ``train/`` and ``model/``.

    The job id depends on the DAG run, this task and ``job_id_hint``: a retry prepares the same directory, a cleared
    task another one. Nothing is deleted: if the directory is not empty and has no job, the next name is used
    (``<job_id>_2``).

    :param model: the model's name: a directory in the bucket, and part of the job id.
    :param job_id_hint: a readable part of the job id: the dataset version, or a date.
    :param bucket: ``gs://NAME``; the setting ``[mlengine] bucket`` if empty.
    :returns: :class:`~mlengine.core.xcoms.JobDirXCom`: model, job id, the job directory's URI, and the digest of the
        job key.
    :raises BucketMissingError: the bucket does not exist.
    :raises StorageForbiddenError: the bucket may not be read.
    """

    template_fields: Sequence[str] = (*MlengineOperator.template_fields, "model", "job_id_hint", "bucket")
    parsers: ClassVar = {"model": lambda value: check_model_name(str(value))}
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        model: str,
        job_id_hint: str = "{{ dag_run.partition_key or dag_run.run_after.strftime('%Y%m%dT%H%M%S') }}",
        bucket: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.job_id_hint = job_id_hint
        self.bucket = bucket
        self.check_literals()

    def execute(self, context: Context) -> JobDirXCom:
        if self.job_id_hint in {None, "None"}:  # the template of a dataset version that no task returned
            raise XComMissingError(
                f"{self.task_id} has no job_id_hint",
                hint="if it is the dataset's version, clear the task that resolves the dataset",
            )
        key = job_key(context)
        named = JobDir.of(self.access.bucket(self.bucket), self.model, make_job_id(self.model, self.job_id_hint, key))
        job_dir, made = prepare_clean(self.access.storage(), named)
        self.log.info("Job directory %s: %s", "created" if made else "already exists", job_dir.uri)
        return {"model": self.model, "job_id": job_dir.job_id, "job_dir": job_dir.uri, "key": key.digest}

"""Stage: a clean job dir with ``train/`` and ``model/``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator

from mlengine.connections import configured_bucket, connect_storage
from mlengine.core.job import make_job_id
from mlengine.core.layout import JobDir
from mlengine.jobs.job_dir import prepare
from mlengine.operators.intent import job_key
from mlengine.operators.retry import RetryByCause


class PrepareJobDirOperator(BaseOperator):
    """Make ``gs://BUCKET/<model>/<job_id>/`` with ``train/`` and ``model/``, clean.

    The job id is made from the DAG run, this task and ``job_id_hint``: a retry prepares the same dir, a
    cleared task another.
    Leftovers are removed only inside this dir, and only if no job has claimed it.

    :param model: the model's name: a directory in the bucket, part of the job id.
    :param job_id_hint: what a person looks for in the job id: the dataset version, or a date.
    :param bucket: ``gs://NAME``; the setting ``[mlengine] bucket`` if empty.
    :param gcp_conn_id: the connection whose credentials are used; ``None`` for the application default credentials.

    Returns ``{"model", "job_id", "job_dir"}``.

    :raises BucketMissingError: the bucket does not exist; :raises StorageForbiddenError: it may not be read.
    """

    template_fields: Sequence[str] = ("model", "job_id_hint", "bucket", "gcp_conn_id")
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        model: str,
        job_id_hint: str = "{{ dag_run.partition_key or dag_run.run_after.strftime('%Y%m%dT%H%M%S') }}",
        bucket: str | None = None,
        gcp_conn_id: str | None = "google_cloud_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"retry_policy": RetryByCause(), **kwargs})
        self.model = model
        self.job_id_hint = job_id_hint
        self.bucket = bucket
        self.gcp_conn_id = gcp_conn_id

    def execute(self, context: Any) -> dict[str, str]:
        job_id = make_job_id(self.model, self.job_id_hint, job_key(context))
        job_dir = JobDir.of(configured_bucket(self.bucket), self.model, job_id)
        made = prepare(connect_storage(self.gcp_conn_id), job_dir)
        self.log.info("job %s: %s %s", job_id, job_dir.uri, "is ready" if made else "was ready")
        return {"model": self.model, "job_id": job_id, "job_dir": job_dir.uri}

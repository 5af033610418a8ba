"""Stage: which dataset version this run trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator

from mlengine.connect import configured_bucket, connect_storage
from mlengine.core.layout import dataset_dir
from mlengine.operators.retry import RetryByCause


class ResolveDatasetOperator(BaseOperator):
    """Name the one dataset version of this DAG run, and check that it is whole.

    In this order: the version asked for in the trigger form; the run's partition key, if such a version exists; the
    newest version at the run's date.

    :param dataset: the dataset's name below ``datasets/``.
    :param version: from the form; empty for none.
    :param partition_key: the run's; empty for none.
    :param at: an ISO date; versions after it are not looked at when the newest is chosen.
    :param bucket: ``gs://NAME``; the setting ``[mlengine] bucket`` if empty.

    Returns ``{"dataset", "version", "uri", "digest", "rows"}``.

    :raises DatasetError: there is no such version, or it is incomplete; lists those that exist.
    """

    template_fields: Sequence[str] = ("dataset", "version", "partition_key", "at", "bucket", "gcp_conn_id")
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        dataset: str,
        version: str = "{{ params.get('dataset_version') or '' }}",
        partition_key: str = "{{ dag_run.partition_key or '' }}",
        at: str = "{{ (dag_run.partition_date or dag_run.run_after).date().isoformat() }}",
        bucket: str | None = None,
        gcp_conn_id: str | None = "google_cloud_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"retry_policy": RetryByCause(), **kwargs})
        self.dataset = dataset
        self.version = version
        self.partition_key = partition_key
        self.at = at
        self.bucket = bucket
        self.gcp_conn_id = gcp_conn_id

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ARG002
        from mlengine.datasets.catalog import list_versions, load_manifest, resolve

        storage, bucket = connect_storage(self.gcp_conn_id), configured_bucket(self.bucket)
        if self.version:
            version, why = resolve(storage, bucket, self.dataset, version=self.version), "it was asked for"
        elif self.partition_key and self.partition_key in list_versions(storage, bucket, self.dataset):
            version, why = self.partition_key, "it is the run's partition key"
        else:
            version, why = resolve(storage, bucket, self.dataset, at=self.at or None), f"it is the newest at {self.at}"
        manifest = load_manifest(storage, bucket, self.dataset, version)
        uri = dataset_dir(bucket, self.dataset, version)
        rows = manifest.train.rows
        self.log.info("dataset %s, version %s, because %s: %s rows, %s", self.dataset, version, why, f"{rows:,}", uri)
        return {"dataset": self.dataset, "version": version, "uri": uri, "digest": manifest.digest, "rows": rows}

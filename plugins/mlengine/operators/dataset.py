"""Stage: which dataset version this run trains on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from mlengine.connections import configured_bucket, connect_storage
from mlengine.core.errors import MlengineError, ObjectMissingError
from mlengine.core.layout import dataset_dir
from mlengine.core.versions import version_time

if TYPE_CHECKING:
    from mlengine.core.dataset import Manifest
    from mlengine.storage.client import Storage
from mlengine.operators.retry import RetryByCause


class ResolveDatasetOperator(BaseOperator):
    """Name the one dataset version of this DAG run, and check that it is whole.

    In this order: the version asked for in the trigger form; the run's partition key, if there is such a version; the
    newest version at the run's date. A key that is no date names a version, and nothing stands in for it.

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
        storage, bucket = connect_storage(self.gcp_conn_id), configured_bucket(self.bucket)
        manifest, why = self._find(storage, bucket)
        version, rows = manifest.version, manifest.train.rows
        uri = dataset_dir(bucket, self.dataset, version)
        self._note(storage, bucket)
        self.log.info("dataset %s, version %s, because %s: %s rows, %s", self.dataset, version, why, f"{rows:,}", uri)
        return {"dataset": self.dataset, "version": version, "uri": uri, "digest": manifest.digest, "rows": rows}

    def _find(self, storage: Storage, bucket: str) -> tuple[Manifest, str]:
        """The manifest of the version that is meant, and why it is that one."""
        from mlengine.datasets.catalog import load_manifest, read_manifest, resolve

        if self.version:
            return load_manifest(storage, bucket, self.dataset, self.version), "it was asked for"
        if self.partition_key:
            why = "it is the run's partition key"
            if version_time(self.partition_key) is None:
                return load_manifest(storage, bucket, self.dataset, self.partition_key), why
            with suppress(ObjectMissingError):
                return read_manifest(storage, dataset_dir(bucket, self.dataset, self.partition_key)), why
        newest = resolve(storage, bucket, self.dataset, at=self.at or None)
        return load_manifest(storage, bucket, self.dataset, newest), f"it is the newest at {self.at}"

    def _note(self, storage: Storage, bucket: str) -> None:
        """What trigger forms on this machine will propose; a convenience, for which no run fails."""
        from mlengine.datasets.catalog import list_versions
        from mlengine.datasets.version_hints import note_versions

        with suppress(MlengineError):
            note_versions(self.dataset, list_versions(storage, bucket, self.dataset))

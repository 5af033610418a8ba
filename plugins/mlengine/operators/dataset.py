"""Operator that resolves the dataset version that a run trains on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mlengine.core.dataset import check_dataset_name
from mlengine.core.errors import MlengineError, ObjectMissingError
from mlengine.core.layout import dataset_dir
from mlengine.core.plural import number_of
from mlengine.core.versions import named_date
from mlengine.core.xcoms import DatasetXCom
from mlengine.operators._base import MlengineOperator
from mlengine.operators.lineage import tasks as lineage

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlengine.core.dataset import Manifest
    from mlengine.storage.client import Storage


class ResolveDatasetOperator(MlengineOperator):
    """Resolve the dataset version of this DAG run, and check that it is complete.

    The order of precedence is: the version chosen in the trigger form; the version named by the run's partition key;
    the newest version at the run's date. A partition key that is not a date must name a version. If it is a date, and
    there is no version of that name, the newest version at that date is used.

    Dates, including those in version names, are in the time zone of the DAG's schedule (``timezone=`` of its
    timetable). A schedule without a time zone uses that of the DAG.

    :param dataset: the dataset's name below ``datasets/``.
    :param version: the version from the trigger form; empty if none was chosen.
    :param partition_key: the partition key of the run; empty if it has none.
    :param at: an ISO date or time: use the newest version at that time instead of at the run's date. A date means the
        end of that day.
    :param bucket: ``gs://NAME``; the setting ``[mlengine] bucket`` if empty.

    :returns: :class:`~mlengine.core.xcoms.DatasetXCom`: the version, its URI and its digest.
    :raises DatasetError: the version does not exist, or is incomplete; the message lists the existing versions.
    """

    template_fields: Sequence[str] = (
        *MlengineOperator.template_fields,
        "dataset",
        "version",
        "partition_key",
        "at",
        "bucket",
    )
    parsers: ClassVar = {"dataset": lambda value: check_dataset_name(str(value))}
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        dataset: str,
        version: str = "{{ params.get('dataset_version') or '' }}",
        partition_key: str = "{{ dag_run.partition_key or '' }}",
        at: str = "",
        bucket: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.version = version
        self.partition_key = partition_key
        self.at = at
        self.bucket = bucket
        self.check_literals()

    def execute(self, context: Context) -> DatasetXCom:
        storage, bucket = self.access.storage(), self.access.bucket(self.bucket)
        manifest, why = self._find(storage, bucket, context)
        version, rows = manifest.version, manifest.train.rows
        uri = dataset_dir(bucket, self.dataset, version)
        counted = "rows not counted" if rows is None else number_of(rows, "row")
        self._lineage = partial(lineage.resolved, uri, manifest)
        self._note(storage, bucket)
        self.log.info("Dataset %s, version %s (%s): %s, %s", self.dataset, version, why, counted, uri)
        return {"dataset": self.dataset, "version": version, "uri": uri, "digest": manifest.digest, "rows": rows}

    def _find(self, storage: Storage, bucket: str, context: Context) -> tuple[Manifest, str]:
        """The manifest of the run's version, and the reason for the choice."""
        from mlengine.datasets.catalog import load_manifest, read_manifest, resolve

        if version := self.given("version"):
            return load_manifest(storage, bucket, self.dataset, version), "chosen in the form"
        date_of_key = named_date(self.partition_key) if self.partition_key else None
        if self.partition_key:
            why = "named by the partition key"
            if date_of_key is None:
                return load_manifest(storage, bucket, self.dataset, self.partition_key), why
            with suppress(ObjectMissingError):
                return read_manifest(storage, dataset_dir(bucket, self.dataset, self.partition_key)), why
        zone = schedule_zone(context["dag"])
        at = self.at or date_of_key or run_date(context["dag_run"], zone)
        newest = resolve(storage, bucket, self.dataset, at=at, zone=zone)
        return load_manifest(
            storage, bucket, self.dataset, newest
        ), f"the newest at {at}, time zone {getattr(zone, 'name', zone)}"

    def _note(self, storage: Storage, bucket: str) -> None:
        """Save the versions that trigger forms on this machine suggest. An error is ignored."""
        from mlengine.datasets.catalog import list_versions
        from mlengine.datasets.version_hints import note_versions

        with suppress(MlengineError):
            note_versions(self.dataset, list_versions(storage, bucket, self.dataset))


def run_date(dag_run: Any, zone: tzinfo) -> date:
    """The date of a DAG run's data, in ``zone``.

    It is the date of the run's partition; or else the logical date of a manual run; or else the date on which the run
    was due.
    """
    given = dag_run.logical_date if dag_run.run_type == "manual" else None
    moment: datetime = dag_run.partition_date or given or dag_run.run_after
    return moment.astimezone(zone).date()


def schedule_zone(dag: Any) -> tzinfo:
    """The time zone of a DAG's schedule; that of the DAG if the schedule has none."""
    import pendulum

    zone = _timetable_zone(dag.timetable) or dag.timezone
    return zone if isinstance(zone, tzinfo) else pendulum.timezone(zone)


def _timetable_zone(timetable: Any) -> str | tzinfo | None:
    """The time zone of a timetable. Timetables use different attribute names, and some wrap others."""
    for name in ("timezone", "_timezone"):
        if zone := getattr(timetable, name, None):
            return zone  # type: ignore[no-any-return]
    for name in ("timetable", "timetables", "_timetables"):
        if inner := getattr(timetable, name, None):
            return _timetable_zone(inner[0] if isinstance(inner, list) else inner)
    return None

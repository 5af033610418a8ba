"""OpenLineage datasets: dataset versions, packages, models, reports and champions.

Their names follow OpenLineage's convention for Cloud Storage: the namespace is ``gs://BUCKET``, and the name is the
path in the bucket. Custom facets of mlengine have the prefix ``mlengine_``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mlengine.core.layout import split_uri
from mlengine.core.xcoms import finite

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import (
        BaseFacet,
        DatasetFacet,
        InputDatasetFacet,
        data_quality_assertions_dataset,
        data_quality_metrics_input_dataset,
        schema_dataset,
    )

    from mlengine.champions.history import Champion
    from mlengine.core.dataset import ColumnStatistics, Manifest, Schema
    from mlengine.core.verdict import Check

    FacetT = TypeVar("FacetT", bound=BaseFacet)


def location(uri: str) -> tuple[str, str]:
    """The namespace and the name of an object or a folder: ``("gs://b", "a/c")`` for ``gs://b/a/c/``."""
    bucket, path = split_uri(uri)
    return f"gs://{bucket}", path.rstrip("/") or "/"


def custom(base: type[FacetT], **properties: Any) -> FacetT:
    """A custom facet of mlengine. Numbers that are not finite are left out: JSON has no NaN."""
    return cast("FacetT", base().with_additional_properties(**finite(properties)))


def read(uri: str, facets: Mapping[str, DatasetFacet], **of_input: InputDatasetFacet) -> InputDataset:
    """A dataset that a task reads.

    :param of_input: facets about this use of the dataset.
    """
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(*location(uri), facets=dict(facets), inputFacets=of_input)


def written(uri: str, facets: Mapping[str, DatasetFacet]) -> OutputDataset:
    """A dataset that a task writes."""
    from openlineage.client.event_v2 import OutputDataset

    return OutputDataset(*location(uri), facets=dict(facets))


def version_facets(dataset: Mapping[str, Any]) -> dict[str, DatasetFacet]:
    """Facets of a dataset version.

    :param dataset: ``version`` and ``digest``, as in XComs, in the record of a job and in reports.
    """
    from openlineage.client.facet_v2 import DatasetFacet

    return {
        **_versioned("FILE", str(dataset.get("version") or "")),
        "mlengine_datasetVersion": custom(DatasetFacet, digest=dataset.get("digest")),
    }


def manifest_facets(manifest: Manifest) -> dict[str, DatasetFacet]:
    """Facets of a dataset version: its schema, its origin and its splits."""
    from openlineage.client.facet_v2 import DatasetFacet, symlinks_dataset

    facets: dict[str, DatasetFacet] = {
        **_versioned("FILE", manifest.version),
        "schema": schema_facet(manifest.schema),
        "mlengine_datasetVersion": custom(
            DatasetFacet,
            digest=manifest.digest,
            created=manifest.created,
            fileFormat=manifest.format,
            task=manifest.task,
            target=manifest.schema.target,
            heldoutPolicy=manifest.heldout_policy,
            license=manifest.license,
            source=manifest.source,
            splits={
                name: {"rowCount": split.rows, "bytes": split.size, "fileCount": len(split.files)}
                for name, split in manifest.splits.items()
            },
        ),
    }
    if manifest.root:
        # The name of the dataset in the pipeline that writes these objects.
        identifier = symlinks_dataset.Identifier(*location(manifest.root), type="LOCATION")
        facets["symlinks"] = symlinks_dataset.SymlinksDatasetFacet([identifier])
    return facets


def schema_facet(schema: Schema) -> schema_dataset.SchemaDatasetFacet:
    """The facet with the columns. The description of a column is its role: target, key, time or weight."""
    from openlineage.client.facet_v2 import schema_dataset

    roles = {schema.target: "target", schema.key: "key", schema.time: "time", schema.weight: "weight"}
    return schema_dataset.SchemaDatasetFacet(
        fields=[
            schema_dataset.SchemaDatasetFacetFields(
                column.name, type=str(column), description=roles.get(column.name), ordinal_position=position
            )
            for position, column in enumerate(schema.columns, start=1)
        ]
    )


def training_statistics(manifest: Manifest) -> data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet:
    """The facet with rows, bytes and column statistics of the split that models are trained on."""
    from openlineage.client.facet_v2 import data_quality_metrics_input_dataset as quality

    train = manifest.train
    return quality.DataQualityMetricsInputDatasetFacet(
        columnMetrics={name: _column_metrics(column, train.rows) for name, column in train.statistics.items()},
        rowCount=train.rows,
        bytes=train.size,
        fileCount=len(train.files),
        lastUpdated=datetime.fromisoformat(manifest.created).isoformat(),
    )


def _column_metrics(column: ColumnStatistics, rows: int | None) -> data_quality_metrics_input_dataset.ColumnMetrics:
    from openlineage.client.facet_v2 import data_quality_metrics_input_dataset as quality

    known = rows is not None and column.nulls is not None
    steps = len(column.quantiles) - 1
    return quality.ColumnMetrics(
        nullCount=column.nulls,
        distinctCount=column.distinct,
        count=float(rows - column.nulls) if known else None,  # type: ignore[operator]
        min=_number(column.min),
        max=_number(column.max),
        quantiles={f"{rank / steps:g}": value for rank, value in enumerate(column.quantiles) if math.isfinite(value)},
    )


def _number(value: object) -> float | None:
    """A minimum or maximum as a number; ``None`` for times and strings, as OpenLineage requires finite numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def registration_checks(manifest: Manifest) -> data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet:
    """The facet with the checks of a dataset version. A check that was allowed to fail has the severity ``warn``."""
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality

    allowed = {exception.check for exception in manifest.exceptions}
    return quality.DataQualityAssertionsDatasetFacet(
        [
            quality.Assertion(
                assertion=check.name,
                success=check.passed,
                severity="warn" if check.name in allowed else "error",
                description=check.message,
                expected=check.threshold,
                actual=check.value,
            )
            for check in manifest.checks
        ]
    )


def validation_checks(checks: Iterable[Check]) -> data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet:
    """The facet with the checks of a model, without those that were skipped."""
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality

    return quality.DataQualityAssertionsDatasetFacet(
        [
            quality.Assertion(
                assertion=check.name,
                success=check.passed,
                severity="error",
                description=check.message,
                expected=check.threshold or None,
                actual=None if check.value is None else str(check.value),
            )
            for check in checks
            if not check.skipped
        ]
    )


def package_facets(digest: str) -> dict[str, DatasetFacet]:
    """Facets of a trainer's archive. Its version is the digest of its source."""
    return _versioned("FILE", digest, "PACKAGE")


def model_facets(job_id: str) -> dict[str, DatasetFacet]:
    """Facets of a job's exported model. Its version is the job."""
    return _versioned("MODEL", job_id)


def champion_facets(champion: Champion) -> dict[str, DatasetFacet]:
    """Facets of a model's champion. Its version is the serial in the champion's history."""
    from openlineage.client.facet_v2 import DatasetFacet

    return {
        **_versioned("MODEL", str(champion.serial), "CHAMPION"),
        "mlengine_champion": custom(
            DatasetFacet,
            model=champion.model,
            serial=champion.serial,
            previousSerial=champion.previous,
            action=champion.action.value,
            jobId=champion.job_id,
            modelUri=champion.model_uri,
            datasetVersion=champion.version or None,
            metric=champion.metric or None,
            metricValue=champion.metric_value,
            publishedBy=champion.by,
            publishedAt=champion.at,
            reason=champion.why,
        ),
    }


def champion_change(champion: Champion) -> DatasetFacet:
    """The facet that says whether a publication created the first champion or replaced another one."""
    from openlineage.client.facet_v2 import lifecycle_state_change_dataset as lifecycle

    change = (
        lifecycle.LifecycleStateChange.CREATE if champion.previous is None else lifecycle.LifecycleStateChange.OVERWRITE
    )
    return lifecycle.LifecycleStateChangeDatasetFacet(change)


def _versioned(kind: str, version: str, sub_type: str | None = None) -> dict[str, DatasetFacet]:
    from openlineage.client.facet_v2 import dataset_type_dataset, dataset_version_dataset

    facets: dict[str, DatasetFacet] = {"datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(kind, sub_type)}
    if version:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(version)
    return facets

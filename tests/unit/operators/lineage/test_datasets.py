"""OpenLineage facets of dataset versions: the parts of a manifest that they contain or omit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from openlineage.client.facet_v2 import DatasetFacet
from openlineage.client.serde import Serde

from mlengine.core.dataset import (
    CheckException,
    CheckResult,
    Column,
    ColumnStatistics,
    DataFile,
    Manifest,
    Schema,
    Split,
)
from mlengine.core.verdict import Check
from mlengine.operators.lineage import datasets

STATISTICS = {
    "age": ColumnStatistics(nulls=2, distinct=60, min=18, max=80, mean=40.0, quantiles=tuple(map(float, range(21)))),
    "seen": ColumnStatistics(nulls=0, min="2026-01-01T00:00:00", max="2026-02-01T00:00:00"),
    "left": ColumnStatistics(),
}
COLUMNS = (
    Column("age", "int64"),
    Column("seen", "timestamp"),
    Column("photo", "uint8", (28, 28)),
    Column("left", "bool"),
)


def manifest(
    rows: int | None = 100, statistics: Mapping[str, ColumnStatistics] = STATISTICS, **fields: Any
) -> Manifest:
    split = Split(rows, (DataFile("train/a.csv", 500, sha256="0" * 64),), statistics)
    given: dict[str, Any] = {"created": "2026-11-01T10:00:00+00:00", **fields}
    return Manifest(
        name="people",
        version="2026-11-01",
        license="CC0-1.0",
        source="s",
        format="csv",
        schema=Schema(COLUMNS, target="left", time="seen"),
        splits={"train": split},
        task="binary",
        **given,
    )


def test_names_follow_the_convention_for_cloud_storage() -> None:
    assert datasets.location("gs://bkt/datasets/people/1") == ("gs://bkt", "datasets/people/1")
    assert datasets.location("gs://bkt/prefix/m/job/model/") == ("gs://bkt", "prefix/m/job/model")
    assert datasets.location("gs://bkt") == ("gs://bkt", "/")


def test_columns_have_type_and_role() -> None:
    fields = datasets.schema_facet(manifest().schema).fields
    assert [(field.name, field.type, field.description) for field in fields or ()] == [
        ("age", "int64", None),
        ("seen", "timestamp", "time"),
        ("photo", "uint8[28x28]", None),
        ("left", "bool", "target"),
    ]


def test_statistics_of_a_column_are_reported() -> None:
    age = datasets.training_statistics(manifest()).columnMetrics["age"]
    assert (age.nullCount, age.distinctCount, age.count, age.min, age.max) == (2, 60, 98, 18, 80)
    assert len(age.quantiles or {}) == 21
    assert (age.quantiles or {})["0.05"] == 1
    assert (age.quantiles or {})["1"] == 20


def test_unknown_and_non_numeric_statistics_are_left_out() -> None:
    metrics = datasets.training_statistics(manifest()).columnMetrics
    assert (metrics["seen"].min, metrics["seen"].max, metrics["seen"].quantiles) == (None, None, {})
    assert metrics["left"].count is None
    assert datasets.training_statistics(manifest(rows=None)).columnMetrics["age"].count is None


def test_a_date_of_creation_gets_a_time() -> None:
    """A manifest may have a date without a time, which OpenLineage rejects."""
    assert datasets.training_statistics(manifest(created="2026-11-01")).lastUpdated == "2026-11-01T00:00:00"


def test_a_version_by_reference_names_its_prefix() -> None:
    assert "symlinks" not in datasets.manifest_facets(manifest())
    facet: Any = datasets.manifest_facets(manifest(root="gs://lake/people/november/"))["symlinks"]
    assert [(one.namespace, one.name, one.type) for one in facet.identifiers] == [
        ("gs://lake", "people/november", "LOCATION")
    ]


def test_an_allowed_failure_is_a_warning() -> None:
    checks = (
        CheckResult("rows", passed=True, value="100", threshold="≥ 1", message="100 rows"),
        CheckResult("drift", passed=False, value="0.4", threshold="≤ 0.2", message="age drifted"),
    )
    allowed = (CheckException("drift", "age drifted", "a new region"),)
    rows, drift = datasets.registration_checks(manifest(checks=checks, exceptions=allowed)).assertions
    assert (rows.assertion, rows.success, rows.severity) == ("rows", True, "error")
    assert (drift.assertion, drift.success, drift.severity, drift.expected) == ("drift", False, "warn", "≤ 0.2")


def test_skipped_checks_of_a_model_are_left_out() -> None:
    checks = [
        Check("roc_auc", 0.7, "≥ 0.8", passed=False, message="too low"),
        Check.skip("not worse than champion", "There is no champion."),
    ]
    (assertion,) = datasets.validation_checks(checks).assertions
    assert (assertion.assertion, assertion.success, assertion.actual) == ("roc_auc", False, "0.7")


def test_numbers_that_are_not_finite_are_left_out() -> None:
    facet = datasets.custom(DatasetFacet, metrics={"roc_auc": float("nan"), "log_loss": 0.1})
    assert json.loads(Serde.to_json(facet))["metrics"] == {"log_loss": 0.1}
    infinite = {"income": ColumnStatistics(min=1.0, max=float("inf"), quantiles=(1.0, float("inf")))}
    metrics = datasets.training_statistics(manifest(statistics=infinite)).columnMetrics["income"]
    assert (metrics.min, metrics.max, metrics.quantiles) == (1, None, {"0": 1.0})

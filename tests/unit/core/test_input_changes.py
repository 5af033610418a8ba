"""Differences between two trainings are named, except those that do not change the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlengine.core.input_changes import Inputs, changes, describe
from mlengine.core.spec import Pool, Role, TrainingSpec

SPEC = TrainingSpec(
    module="trainer.task",
    package_uris=("gs://bucket/packages/t/p1/t.tar.gz",),
    args=("--epochs", "5", "--rate", "0.1"),
    pools=(Pool(Role.CHIEF, 1), Pool(Role.WORKER, 2, "n1-standard-4")),
    env={"A": "secret one", "B": "kept"},
)
LINEAGE = {
    "package": {"digest": "p" * 40},
    "dataset": {"digest": "d" * 40, "version": "v1", "uri": "gs://bucket/datasets/digits/v1"},
    "software": {"mlengine": "1"},
}


def compared(spec: TrainingSpec = SPEC, **lineage: Any) -> str:
    return describe(changes(Inputs(SPEC.to_json(), LINEAGE), Inputs(spec.to_json(), {**LINEAGE, **lineage})))


def test_equal_inputs_do_not_differ() -> None:
    assert compared() == ""


@pytest.mark.parametrize(
    "same",
    [
        replace(SPEC, region="europe-west4", job_dir="gs://bucket/elsewhere"),
        replace(SPEC, labels={"team": "x"}, source={"scaleTier": "CUSTOM"}, scale_tier="CUSTOM"),
        replace(SPEC, max_running_seconds=60, max_wait_seconds=60),
    ],
)
def test_region_labels_and_limits_do_not_count_as_a_difference(same: TrainingSpec) -> None:
    assert compared(same) == ""


def test_mlengines_own_version_does_not_count_as_a_difference() -> None:
    assert compared(software={"mlengine": "2"}) == ""


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"module": "trainer.other"}, "module: trainer.task → trainer.other"),
        ({"args": ("--epochs", "6", "--rate", "0.1")}, "args: --epochs 5 → --epochs 6"),
        ({"args": ("--epochs", "5", "--rate", "0.2")}, "args: --rate 0.1 → --rate 0.2"),
        ({"args": ("--epochs", "5", "--rate", "0.1", "-v")}, "args: (none) → -v"),
        ({"args": ()}, "args: --epochs 5 --rate 0.1 → (none)"),
        ({"runtime_version": "2.15"}, "runtime_version: (none) → 2.15"),
        ({"primary_name": "master"}, "primary_name: chief → master"),
        (
            {"pools": (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 4, "n1-standard-4"))},
            "cluster: 1 chief, 2 workers (n1-standard-4) → 1 chief, 4 workers (n1-standard-4)",
        ),
    ],
)
def test_a_changed_field_is_named_with_both_values(other: dict[str, Any], message: str) -> None:
    assert compared(replace(SPEC, **other)) == message


def test_changed_environment_variables_are_named_without_values() -> None:
    message = compared(replace(SPEC, env={"A": "secret two", "C": "secret three"}))
    assert message == (
        "environment variable A: set → set to another value; environment variable B: set → not set; "
        "environment variable C: not set → set"
    )


def test_package_and_dataset_are_compared_by_content() -> None:
    elsewhere = {**LINEAGE["dataset"], "uri": "gs://bucket/datasets/digits/v1b"}
    assert compared(replace(SPEC, package_uris=("gs://other/t.tar.gz",)), dataset=elsewhere) == ""
    assert compared(package={"digest": "q" * 40}) == "package: pppppppppppp → qqqqqqqqqqqq"
    other = {"digest": "e" * 40, "version": "v2", "uri": "gs://bucket/datasets/digits/v2"}
    assert compared(dataset=other) == "dataset: v1 (dddddddddddd) → v2 (eeeeeeeeeeee)"


def test_without_digests_package_and_dataset_are_compared_by_uri() -> None:
    assert compared(package={}) == "", "equal package URIs must not count as a difference"
    message = compared(replace(SPEC, package_uris=("gs://other/t.tar.gz",)), package={})
    assert message == "package: gs://bucket/packages/t/p1/t.tar.gz → gs://other/t.tar.gz"
    assert compared(dataset={}) == "dataset: gs://bucket/datasets/digits/v1 → (none)"


def test_a_long_value_is_shortened() -> None:
    assert len(compared(replace(SPEC, args=("--words", "x" * 10_000)))) < 500

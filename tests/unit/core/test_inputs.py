"""Equal inputs have equal digests, and everything that changes a model changes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.inputs import inputs_digest
from mlengine.core.spec import Pool, Role, TrainingSpec

URI = "gs://bkt/datasets/mnist/2026-11-01"
PACKAGE = {"digest": "p1", "package_uris": ["gs://bkt/packages/t/p1/t.tar.gz"]}
DATASET = {"digest": "d1", "uri": URI, "version": "2026-11-01"}
SPEC = TrainingSpec(
    module="trainer.task",
    package_uris=("gs://bkt/packages/t/p1/t.tar.gz",),
    args=("--max_steps", "100", "--dataset", URI),
    pools=(Pool(Role.CHIEF, 1, "n1-standard-4"), Pool(Role.WORKER, 2, "n1-standard-4")),
)


def digest(spec: TrainingSpec = SPEC, **given: Any) -> str | None:
    return inputs_digest(spec, {**PACKAGE, **given.get("package", {})}, {**DATASET, **given.get("dataset", {})})


def test_equal_inputs_have_the_same_digest() -> None:
    found = digest()
    assert found is not None
    assert len(found) == 40
    assert found == digest()


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, module="trainer.other"),
        replace(SPEC, args=("--max_steps", "101", "--dataset", URI)),
        replace(SPEC, args=("--dataset", URI, "--max_steps", "100")),
        replace(SPEC, pools=(Pool(Role.CHIEF, 1, "n1-standard-4"),)),
        replace(SPEC, pools=(Pool(Role.CHIEF, 1, "n1-highmem-8"), Pool(Role.WORKER, 2, "n1-standard-4"))),
        replace(SPEC, env={"TF_DETERMINISTIC_OPS": "1"}),
        replace(SPEC, python_version="3.11"),
        replace(SPEC, primary_name="master"),
        replace(SPEC, job_dir_arg=""),
    ],
)
def test_what_changes_the_model_changes_the_digest(other: TrainingSpec) -> None:
    assert digest(other) != digest()


def test_package_and_dataset_change_the_digest() -> None:
    assert len({digest(), digest(package={"digest": "p2"}), digest(dataset={"digest": "d2"})}) == 3


@pytest.mark.parametrize(
    "same",
    [
        replace(SPEC, job_dir="gs://bkt/elsewhere"),
        replace(SPEC, region="europe-west4"),
        replace(SPEC, labels={"team": "x"}),
        replace(SPEC, max_running_seconds=60),
        replace(SPEC, source={"scaleTier": "CUSTOM"}),
    ],
)
def test_region_job_dir_and_labels_do_not_change_the_digest(same: TrainingSpec) -> None:
    assert digest(same) == digest()


@pytest.mark.parametrize("written", [("--dataset", "{}"), ("--dataset={}",), ("--dataset={}/",)])
def test_equal_data_in_another_version_has_the_same_digest(written: tuple[str, ...]) -> None:
    other = "gs://bkt/datasets/mnist/2026-12-01"
    here = replace(SPEC, args=tuple(arg.format(URI) for arg in written))
    there = replace(SPEC, args=tuple(arg.format(other) for arg in written))
    assert digest(here) == digest(there, dataset={"uri": other, "version": "2026-12-01"})
    assert digest(here) != digest(there)  # a URI that is not that of the dataset is part of the digest


@pytest.mark.parametrize(
    "unknown",
    [
        {"package": {"digest": ""}},
        {"dataset": {"digest": None}},
        {"dataset": {"uri": ""}},
        {"package": {"package_uris": ["gs://bkt/other.tar.gz"]}},
    ],
)
def test_unknown_inputs_have_no_digest(unknown: dict[str, Any]) -> None:
    assert digest(**unknown) is None


arguments = st.lists(st.text(st.characters(exclude_characters="\0"), max_size=8), max_size=4)


@given(arguments, arguments)
def test_different_argument_lists_have_different_digests(one: list[str], other: list[str]) -> None:
    found = [digest(replace(SPEC, args=tuple(args))) for args in (one, other)]
    assert (found[0] == found[1]) == (one == other)

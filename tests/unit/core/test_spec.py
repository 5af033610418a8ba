"""The training spec: clusters, digests, JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.errors import JobFileError
from mlengine.core.spec import Pool, Role, TrainingSpec

SPEC = TrainingSpec(
    module="trainer.task",
    package_uris=("gs://bucket/t-1.tar.gz",),
    args=("--a", "b"),
    pools=(
        Pool(Role.CHIEF, 1, "n1-standard-8", "NVIDIA_L4", 1, "python:3.11"),
        Pool(Role.WORKER, 2, "n1-standard-4"),
        Pool(Role.PS, 1, "n1-highmem-2"),
    ),
    labels={"team": "vision"},
    env={"X": "1"},
    source={"scheduling": {"priority": 1}, "network": None},
)


def test_replicas_are_named_by_role_and_index_chief_first() -> None:
    assert SPEC.replicas == ((Role.CHIEF, 0), (Role.WORKER, 0), (Role.WORKER, 1), (Role.PS, 0))
    assert (SPEC.count(Role.WORKER), SPEC.count(Role.EVALUATOR)) == (2, 0)
    assert SPEC.pool(Role.PS) == SPEC.pools[2]
    assert SPEC.pool(Role.EVALUATOR) is None
    assert TrainingSpec("t").replicas == ((Role.CHIEF, 0),)


def test_changed_replica_counts_keep_machines_and_order() -> None:
    other = SPEC.with_counts({Role.WORKER: 5, Role.PS: 0, Role.EVALUATOR: 1})
    assert [(pool.role, pool.count) for pool in other.pools] == [(Role.CHIEF, 1), (Role.WORKER, 5), (Role.EVALUATOR, 1)]
    assert other.pools[1].machine_type == "n1-standard-4"
    assert other.pools[2] == Pool(Role.EVALUATOR, 1, "n1-standard-8", image_uri="python:3.11"), (
        "an added evaluator must get the chief's machine without GPU"
    )
    assert SPEC.with_counts({}) == SPEC
    assert SPEC.with_counts({Role.EVALUATOR: 0}) == SPEC


@pytest.mark.parametrize(
    "counts", [{Role.CHIEF: 0}, {Role.CHIEF: 2}, {Role.WORKER: -1}, {Role.PS: 10**9}, {Role.EVALUATOR: 1001}]
)
def test_a_cluster_needs_one_chief_and_a_valid_number_of_replicas(counts: dict[Role, int]) -> None:
    role, count = next(iter(counts.items()))
    with pytest.raises(JobFileError, match=f"^{role} replicas: is {count}\n"):
        SPEC.with_counts(counts)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pools": (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 10**9))}, "worker replicas: is 1000000000"),
        ({"pools": (Pool(Role.CHIEF, 1, "n1-standard-8", "NVIDIA_L4", -1),)}, "chief accelerators: is -1"),
        ({"max_running_seconds": -5}, "maximum running time in seconds: is -5"),
        ({"max_wait_seconds": 0}, "wait in seconds: is 0"),
        ({"labels": {"Team": "vision"}}, "labels: is not a label: 'Team'"),
        ({"labels": {f"l{n}": "" for n in range(65)}}, "labels: has 65 labels"),
        ({"env": {"A=B": "1"}}, "env: is not the name of an environment variable: 'A=B'"),
        ({"env": {"A": "\0"}}, "env: variable A contains a NUL character"),
        ({"args": ("--a", "\0")}, "args: argument 1 contains a NUL character"),
        ({"job_dir_arg": "job-dir"}, "job_dir_arg: is not the name of an option: 'job-dir'"),
        ({"job_dir_arg": "--out="}, "job_dir_arg: is not the name of an option: '--out='"),
        ({"job_dir_arg": None}, "job_dir_arg: is not the name of an option: None"),
        ({"package_uris": ("gs://bucket/t-1.tar.gz",) * 101}, "packages: names 101 packages"),
    ],
)
def test_every_way_to_create_a_spec_checks_the_limits(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(JobFileError, match=f"^{re.escape(message)}"):
        replace(SPEC, **fields)
    valid = SPEC.to_json()
    with pytest.raises(JobFileError):
        TrainingSpec.from_json({**valid, **json.loads(json.dumps(fields, default=asdict))})


def test_a_spec_survives_json() -> None:
    again = TrainingSpec.from_json(json.loads(json.dumps(SPEC.to_json())))
    assert again == SPEC
    assert again.digest == SPEC.digest
    assert isinstance(again.pools[0].role, Role)


def test_the_argument_for_the_job_dir_can_be_renamed_or_omitted() -> None:
    assert SPEC.job_dir_args("gs://b/j") == ("--job-dir", "gs://b/j")
    assert "job_dir_arg" not in SPEC.to_json(), "the digest of a spec with the default must not change"
    for name, expected in (("--output_dir", ("--output_dir", "gs://b/j")), ("-o", ("-o", "gs://b/j")), ("", ())):
        spec = replace(SPEC, job_dir_arg=name)
        assert spec.job_dir_args("gs://b/j") == expected
        assert TrainingSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
        assert spec.digest != SPEC.digest


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"module": "t"},
        {**SPEC.to_json(), "tier": "x"},
        {**SPEC.to_json(), "pools": [{"role": "boss", "count": 1}]},
        [],
    ],
)
def test_an_invalid_spec_is_refused(data: Any) -> None:
    with pytest.raises(JobFileError, match="not a training spec"):
        TrainingSpec.from_json(data)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "module": st.text(min_size=1),
            "args": st.lists(st.text(st.characters(exclude_characters="\0"))).map(tuple),
            "region": st.none() | st.text(),
            "labels": st.dictionaries(st.from_regex("[a-z][a-z0-9_-]{0,62}", fullmatch=True), st.just("x"), max_size=3),
            "max_running_seconds": st.none() | st.integers(1, 10**6),
        },
    )
)
def test_different_specs_have_different_digests(fields: dict[str, Any]) -> None:
    other = replace(SPEC, **fields)
    assert (other.digest == SPEC.digest) == (other == SPEC)
    assert len(other.digest) == 40


def test_the_order_of_labels_does_not_change_the_digest() -> None:
    one, two = replace(SPEC, labels={"a": "1", "b": "2"}), replace(SPEC, labels={"b": "2", "a": "1"})
    assert one.digest == two.digest

"""``TF_CONFIG``, compared with the one that Google Cloud sets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mlengine.core.cluster import cluster_spec, tf_config
from mlengine.core.spec import Pool, Role, TrainingSpec

ADDRESSES = {
    Role.CHIEF: ["10.0.0.1:2222"],
    Role.WORKER: ["10.0.0.2:2222", "10.0.0.3:2222"],
    Role.PS: ["10.0.0.4:2222"],
}
SPEC = TrainingSpec(
    module="trainer.task",
    package_uris=("gs://bkt/packages/trainer-1.0.tar.gz",),
    args=("--max_steps", "100"),
    pools=(Pool(Role.CHIEF, 1), Pool(Role.WORKER, 2), Pool(Role.PS, 1), Pool(Role.EVALUATOR, 1)),
    scale_tier="CUSTOM",
    region="us-central1",
    job_dir="gs://bkt/m/job_1",
    source={"scaleTier": "CUSTOM", "masterType": "n1-highcpu-8", "workerCount": 4, "parameterServerCount": 1},
)


def test_the_tf_config_of_a_worker() -> None:
    assert tf_config(SPEC, ADDRESSES, Role.WORKER, 1) == {
        "cluster": {
            "chief": ["10.0.0.1:2222"],
            "worker": ["10.0.0.2:2222", "10.0.0.3:2222"],
            "ps": ["10.0.0.4:2222"],
        },
        "task": {"type": "worker", "index": 1},
        "job": {
            "scale_tier": "CUSTOM",
            "master_type": "n1-highcpu-8",
            "worker_count": 2,  # the number that runs; four were requested
            "parameter_server_count": 1,
            "python_module": "trainer.task",
            "package_uris": ["gs://bkt/packages/trainer-1.0.tar.gz"],
            "args": ["--max_steps", "100"],
            "region": "us-central1",
            "job_dir": "gs://bkt/m/job_1",
            "run_on_raw_vm": True,
        },
        "environment": "cloud",
    }


@pytest.mark.parametrize(
    ("role", "index", "pool"), [(Role.CHIEF, 0, 0), (Role.WORKER, 1, 1), (Role.PS, 0, 2), (Role.EVALUATOR, 0, 3)]
)
def test_the_cluster_spec_names_worker_pools_and_has_the_evaluators(role: Role, index: int, pool: int) -> None:
    assert cluster_spec(SPEC, ADDRESSES, role, index) == {
        "cluster": {
            "workerpool0": ["10.0.0.1:2222"],
            "workerpool1": ["10.0.0.2:2222", "10.0.0.3:2222"],
            "workerpool2": ["10.0.0.4:2222"],
            "workerpool3": ["127.0.0.1:2222"],
        },
        "environment": "cloud",
        "task": {"type": f"workerpool{pool}", "index": index},
        "job": SPEC.source,
    }


def test_a_single_replica_has_a_cluster_spec() -> None:
    spec = TrainingSpec("t", source={"workerPoolSpecs": [{}]})
    assert cluster_spec(spec, {}, Role.CHIEF, 0) == {
        "cluster": {"workerpool0": ["127.0.0.1:2222"]},
        "environment": "cloud",
        "task": {"type": "workerpool0", "index": 0},
        "job": {"workerPoolSpecs": [{}]},
    }


def test_old_runtimes_call_the_chief_master() -> None:
    config = tf_config(replace(SPEC, primary_name="master"), ADDRESSES, Role.CHIEF, 0)
    assert config["task"] == {"type": "master", "index": 0}
    assert "chief" not in config["cluster"]
    assert config["cluster"]["master"] == ADDRESSES[Role.CHIEF]


def test_the_evaluator_is_not_in_the_cluster() -> None:
    config = tf_config(SPEC, ADDRESSES, Role.EVALUATOR, 0)
    assert config["task"] == {"type": "evaluator", "index": 0}
    assert "evaluator" not in config["cluster"]


def test_absent_roles_have_no_entry_in_the_cluster() -> None:
    spec = SPEC.with_counts({Role.PS: 0, Role.EVALUATOR: 0})
    config = tf_config(spec, {role: ADDRESSES[role] for role in (Role.CHIEF, Role.WORKER)}, Role.CHIEF, 0)
    assert sorted(config["cluster"]) == ["chief", "worker"]
    assert config["job"]["parameter_server_count"] == 0


def test_a_single_replica_has_tf_config_only_with_the_ml_engine_option() -> None:
    spec = TrainingSpec(module="t")
    assert tf_config(spec, {Role.CHIEF: ["a:1"]}, Role.CHIEF, 0) == {}
    config = tf_config(
        replace(spec, single_replica_tf_config=True, primary_name="master"), {Role.CHIEF: ["a:1"]}, Role.CHIEF, 0
    )
    assert config["cluster"] == {"master": ["a:1"]}
    assert config["task"] == {"type": "master", "index": 0}
    assert config["job"]["python_module"] == "t"


def test_the_trial_number_is_in_tf_config() -> None:
    assert tf_config(SPEC, ADDRESSES, Role.PS, 0, trial="7")["task"] == {"type": "ps", "index": 0, "trial": "7"}


def test_field_names_become_snake_case_and_user_values_are_kept() -> None:
    source = {
        "masterConfig": {"acceleratorConfig": {"count": "1"}},
        "labels": {"camelCase": "kept"},
        "scheduling": {"maxRunningTime": "7200s"},
        "enableWebAccess": [{"innerName": 1}],
    }
    job = tf_config(replace(SPEC, source=source), ADDRESSES, Role.CHIEF, 0)["job"]
    assert job["master_config"] == {"accelerator_config": {"count": "1"}}
    assert job["labels"] == {"camelCase": "kept"}
    assert job["scheduling"] == {"max_running_time": "7200s"}
    assert job["enable_web_access"] == [{"inner_name": 1}]


@pytest.mark.parametrize(("role", "index"), [(Role.WORKER, 2), (Role.CHIEF, 1), (Role.PS, 1)])
def test_a_replica_outside_the_job_is_refused(role: Role, index: int) -> None:
    with pytest.raises(ValueError, match=f"no {role}-{index} in this job"):
        tf_config(SPEC, ADDRESSES, role, index)


def test_a_missing_address_is_refused() -> None:
    with pytest.raises(ValueError, match="2 addresses needed for worker, 1 given"):
        tf_config(SPEC, {**ADDRESSES, Role.WORKER: ["a:1"]}, Role.CHIEF, 0)


@given(some.integers(0, 5), some.integers(0, 3), some.integers(0, 1), some.sampled_from(["chief", "master"]))
def test_all_replicas_agree_on_the_cluster_and_each_finds_itself(
    workers: int, servers: int, evaluators: int, primary: str
) -> None:
    counts = {Role.WORKER: workers, Role.PS: servers, Role.EVALUATOR: evaluators}
    spec = replace(TrainingSpec(module="t"), primary_name=primary).with_counts(counts)
    addresses = {role: [f"{role}:{index}" for index in range(spec.count(role))] for role in Role}
    configs = {replica: tf_config(spec, addresses, *replica) for replica in spec.replicas}
    if len(spec.replicas) == 1:
        assert list(configs.values()) == [{}]
        return
    assert len({json.dumps(config["cluster"]) for config in configs.values()}) == 1
    for (role, index), config in configs.items():
        task = config["task"]
        if role is not Role.EVALUATOR:
            assert config["cluster"][task["type"]][task["index"]] == f"{role}:{index}"

"""The variables of each replica of a cluster, for each framework."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.runtime.rendezvous import CHIEF_PORTS, rendezvous_variables

CLUSTER = {"chief": ["c:1"], "worker": ["w0:2", "w1:3"], "ps": ["p:4"]}


def of(role: str, index: int = 0, cluster: dict[str, list[str]] | None = None, **more: Any) -> dict[str, str]:
    config = {"cluster": CLUSTER if cluster is None else cluster, "task": {"type": role, "index": index}}
    return rendezvous_variables(config, **more)


def test_the_variables_of_a_worker() -> None:
    assert of("worker", 1, chief_ports=(7, 8, 9)) == {
        "MASTER_ADDR": "c",
        "MASTER_PORT": "7",
        "RANK": "2",
        "WORLD_SIZE": "3",
        "NODE_RANK": "2",
        "GROUP_RANK": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "JAX_COORDINATOR_ADDRESS": "c:8",
        "JAX_NUM_PROCESSES": "3",
        "JAX_PROCESS_ID": "2",
        "DMLC_TRACKER_URI": "c",
        "DMLC_TRACKER_PORT": "9",
        "DMLC_TASK_ID": "000002",
        "LIGHTGBM_MACHINES": "c:1,w0:2,w1:3",
        "LIGHTGBM_LOCAL_LISTEN_PORT": "3",
    }


@pytest.mark.parametrize(
    ("chief", "worker"), [("chief", "worker"), ("master", "worker"), ("workerpool0", "workerpool1")]
)
def test_the_chief_is_rank_0_by_any_name(chief: str, worker: str) -> None:
    cluster = {worker: ["w:1"], chief: ["c:1"], "workerpool2": ["p:1"], "workerpool3": ["e:1"]}
    ranks = [of(role, cluster=cluster)["RANK"] for role in (chief, worker)]
    assert ranks == ["0", "1"]
    assert of(worker, cluster=cluster)["WORLD_SIZE"] == "2"
    assert of(worker, cluster=cluster)["MASTER_ADDR"] == "c"


@pytest.mark.parametrize("role", ["ps", "evaluator", "workerpool2", "workerpool3"])
def test_parameter_servers_and_evaluators_get_no_rank(role: str) -> None:
    assert of(role) == {}


@pytest.mark.parametrize("config", [{}, {"cluster": {}, "task": {}}, {"cluster": {"chief": ["127.0.0.1:2222"]}}])
def test_a_single_replica_has_world_size_1(config: dict[str, Any]) -> None:
    config = config if not config.get("cluster") else {**config, "task": {"type": "chief", "index": 0}}
    found = rendezvous_variables(config)
    assert (found["RANK"], found["WORLD_SIZE"]) == ("0", "1")
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("127.0.0.1", str(CHIEF_PORTS[0]))
    assert not [name for name in found if name.startswith("LIGHTGBM_")], (
        "a single replica must not make LightGBM wait for others"
    )


def test_the_ports_of_the_first_contact_differ() -> None:
    found = of("chief")
    ports = {found["MASTER_PORT"], found["JAX_COORDINATOR_ADDRESS"].split(":")[1], found["DMLC_TRACKER_PORT"]}
    assert len(ports | {"1"}) == 4, "nor are they the chief's port in TF_CONFIG"


def test_several_accelerators_leave_the_local_rank_to_a_launcher() -> None:
    one, four = of("chief", accelerator="NVIDIA_L4", count=1), of("chief", accelerator="NVIDIA_L4", count=4)
    assert set(one) - set(four) == {"LOCAL_RANK", "LOCAL_WORLD_SIZE"}


def test_a_tpu_has_its_own_metadata() -> None:
    assert of("chief", accelerator="TPU_V6E", count=4) == {}


def test_task_ids_sort_as_ranks() -> None:
    cluster = {"chief": ["c:1"], "worker": [f"w{index}:1" for index in range(11)]}
    ids = [of("worker", index, cluster)["DMLC_TASK_ID"] for index in range(11)]
    assert ids == sorted(ids)
    assert of("chief", cluster=cluster)["DMLC_TASK_ID"] < ids[0]


def test_an_ipv6_address_is_supported() -> None:
    found = of("chief", cluster={"chief": ["[fd00::1]:2222"]})
    assert found["MASTER_ADDR"] == found["DMLC_TRACKER_URI"] == "fd00::1"
    assert found["JAX_COORDINATOR_ADDRESS"] == "[fd00::1]:29501"

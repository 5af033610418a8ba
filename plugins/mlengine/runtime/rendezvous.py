"""The environment variables by which the replicas of PyTorch, JAX, XGBoost and LightGBM find each other.

The world consists of the chief, which is rank 0, and the workers. Parameter servers and evaluators are not in the world
and get none of these variables. A replica counts as a node with one process.

The chief has three ports for rendezvous, one each for PyTorch, JAX and XGBoost, as a TensorFlow server may use its port
in ``TF_CONFIG``. LightGBM needs a port on every replica; it gets those of ``TF_CONFIG``.

This module uses the standard library only, and nothing newer than Python 3.8, because the start command of a container
(:mod:`mlengine.backends.vertex.bootstrap`) includes this source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The ports of a chief that does not share its machine: PyTorch's default, and the next ones.
CHIEF_PORTS = (29500, 29501, 29502)
# The roles in order of rank, by their names in TF_CONFIG and CLUSTER_SPEC.
WORLD_ROLES = ("chief", "master", "workerpool0", "worker", "workerpool1")
ONE_REPLICA = {"cluster": {"chief": ["127.0.0.1:2222"]}, "task": {"type": "chief", "index": 0}}


def rendezvous_variables(
    config: Mapping[str, Any], chief_ports: Sequence[int] = CHIEF_PORTS, *, accelerator: str = "", count: int = 0
) -> dict[str, str]:
    """The variables of one replica; ``{}`` if it is not in the world, or has a TPU, which gets its own metadata.

    :param config: ``cluster`` and ``task`` as in ``TF_CONFIG`` or ``CLUSTER_SPEC``; empty for a job of one replica.
    :param chief_ports: free ports of the chief's host, for PyTorch, JAX and XGBoost.
    :param accelerator: the type of the replica's accelerators, such as ``NVIDIA_L4``; "" for none.
    :param count: the number of its accelerators. If there are several, ``LOCAL_RANK`` is not set, as the launcher that
        starts a process for each of them sets it.
    """
    if not config.get("cluster"):
        config = ONE_REPLICA
    cluster, task = config["cluster"], config.get("task") or {}
    world = [(role, index) for role in WORLD_ROLES for index in range(len(cluster.get(role) or ()))]
    own = (task.get("type"), int(task.get("index") or 0))
    if own not in world or accelerator.startswith("TPU"):
        return {}
    rank, size = str(world.index(own)), str(len(world))
    addresses = [cluster[role][index] for role, index in world]
    host = addresses[0].rpartition(":")[0]
    values = {
        "MASTER_ADDR": host.strip("[]"),  # the brackets of an IPv6 address
        "MASTER_PORT": str(chief_ports[0]),
        "RANK": rank,
        "WORLD_SIZE": size,
        "NODE_RANK": rank,
        "GROUP_RANK": rank,
        "JAX_COORDINATOR_ADDRESS": f"{host}:{chief_ports[1]}",
        "JAX_NUM_PROCESSES": size,
        "JAX_PROCESS_ID": rank,
        "DMLC_TRACKER_URI": host.strip("[]"),
        "DMLC_TRACKER_PORT": str(chief_ports[2]),
        "DMLC_TASK_ID": rank.zfill(6),  # XGBoost sorts them as strings
    }
    if count <= 1:
        values.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    if len(world) > 1:
        values.update(
            LIGHTGBM_MACHINES=",".join(addresses),
            LIGHTGBM_LOCAL_LISTEN_PORT=addresses[int(rank)].rpartition(":")[2],
        )
    return values

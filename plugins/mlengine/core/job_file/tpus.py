"""The TPUs of Vertex AI training: machine types, topologies, and replacements of ML Engine's names.

A TPU job has one pool of one replica, which the service distributes over the machines of the topology. The tables are
in ``vertex_machines.toml``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlengine.core import vertex_machines

_TABLE = vertex_machines.table()
CLOUD_TPU: str = _TABLE["cloud_tpu"]["machine"]  # v2 and v3: the accelerator says which
CLOUD_TPU_KINDS = frozenset(_TABLE["cloud_tpu"]["accelerators"])
CORES: int = _TABLE["cloud_tpu"]["cores"]  # cores of a single v2 or v3
POD_CORES: int = _TABLE["cloud_tpu"]["pod_cores"]  # pods have a multiple of this number

# The topologies of each machine type. The topology of a single machine is first.
TOPOLOGIES: Mapping[str, tuple[str, ...]] = {name: tuple(it["topologies"]) for name, it in _TABLE["tpu"].items()}


def is_tpu(machine_type: str) -> bool:
    return machine_type == CLOUD_TPU or machine_type in TOPOLOGIES


def chips(topology: str) -> int:
    """The number of chips of a topology: ``2x4`` has 8."""
    return math.prod(int(side) for side in topology.split("x"))


def topology(machine_type: str, wanted: int = 0) -> str | None:
    """The topology of a machine type with ``wanted`` chips; for 0, the topology of a single machine.

    Returns ``None`` if requests for the machine type name no topology, or if none has that number of chips.
    """
    known = TOPOLOGIES.get(machine_type, ())
    if not wanted:
        return known[0] if known else None
    return next((name for name in known if chips(name) == wanted), None)


def machine_for(accelerator: str, count: int) -> str | None:
    """The machine type for the accelerator of an ML Engine job file; ``None`` if it is not a known TPU."""
    if accelerator in CLOUD_TPU_KINDS:
        return CLOUD_TPU
    if accelerator != "TPU_V5_LITEPOD":
        return None
    single = f"ct5lp-hightpu-{count}t"
    return single if single in TOPOLOGIES else "ct5lp-hightpu-4t"


def kind(machine_type: str) -> str:
    """The generation of a TPU that has its own machine type: ``v5e``, ``v6e`` or ``7x``; empty for others."""
    return str(_TABLE["tpu"].get(machine_type, {}).get("generation", ""))


def generation(machine: Mapping[str, Any]) -> str:
    """The generation of a ``machineSpec``'s TPU: ``v2``, ``v3``, ``v5e``, ``v6e`` or ``7x``; empty if it has none."""
    name = machine.get("machineType", "")
    if name == CLOUD_TPU:
        return str(machine.get("acceleratorType", "")).removeprefix("TPU_").lower()
    return kind(name)


def is_pod(machine: Mapping[str, Any]) -> bool:
    """Whether a ``machineSpec`` is for a TPU that spans several machines."""
    name = machine.get("machineType", "")
    if name == CLOUD_TPU:
        return int(machine.get("acceleratorCount", 0)) > CORES
    own = _TABLE["tpu"].get(name)
    return bool(own) and chips(machine.get("tpuTopology") or own["topologies"][0]) > own["chips"]


def chips_of_machine(machine: Mapping[str, Any]) -> int:
    """The number of chips (for v2 and v3, of cores) in one machine of a ``machineSpec``."""
    name = machine.get("machineType", "")
    return CORES if name == CLOUD_TPU else int(_TABLE["tpu"].get(name, {}).get("chips", 0))

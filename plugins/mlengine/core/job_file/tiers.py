"""ML Engine's scale tiers and machine types, and their replacements on Vertex AI.

Job files may also name Compute Engine machine types. These are unchanged, except for a few that Vertex AI does not
offer. The tables are in ``vertex_machines.toml``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mlengine.core import vertex_machines
from mlengine.core.job_file import tpus
from mlengine.core.spec import Pool, Role

CUSTOM = "CUSTOM"


@dataclass(frozen=True)
class Machine:
    """An ML Engine machine type.

    :param vertex_type: the machine type that replaces it on Vertex AI.
    """

    name: str
    vcpus: int
    vertex_type: str
    accelerator_type: str | None = None
    accelerator_count: int = 0


_TABLE = vertex_machines.table()["ml_engine"]

MACHINES: dict[str, Machine] = {
    name: Machine(name, it["vcpus"], it["machine"], it.get("accelerator"), it.get("count", 0))
    for name, it in _TABLE["machines"].items()
}
TIERS: dict[str, tuple[Pool, ...]] = {
    name: tuple(
        Pool(Role(it["role"]), it["count"], it["machine"], it.get("accelerator"), it.get("accelerators", 0))
        for it in pools
    )
    for name, pools in _TABLE["tiers"].items()
}
TIER_NAMES: tuple[str, ...] = (*TIERS, CUSTOM)

# Known accelerators. The list is not closed: the service decides about names that are not in it.
ACCELERATORS: tuple[str, ...] = vertex_machines.accelerators()

_NOT_ON_VERTEX: dict[str, str] = _TABLE["replaced"]
# Compute Engine's names: family-shape-size, such as n1-standard-8, a2-highgpu-1g, cloud-tpu, e2-medium.
_COMPUTE_ENGINE = re.compile(r"[a-z]+[0-9]*[a-z]*-[a-z]+[0-9a-z]*(-[0-9]+[a-z]?)?(-[a-z]+)?")


def is_machine_type(name: str) -> bool:
    """Whether ``name`` is one of ML Engine's machine types, or has the form of a Compute Engine one."""
    return name in MACHINES or _COMPUTE_ENGINE.fullmatch(name) is not None


def machine_size(machine_type: str) -> vertex_machines.Size | None:
    """The vCPUs and memory of a machine type in a job file; ``None`` if they are not known."""
    machine = MACHINES.get(machine_type)
    return vertex_machines.size(machine.vertex_type if machine else machine_type)


def accelerators(pool: Pool) -> tuple[str, int]:
    """The type and number of a pool's accelerators, named or built into its machine type; ``("", 0)`` if it has none.

    A TPU with its own machine type is named by its generation, such as ``TPU_V6E``.
    """
    if pool.accelerator_type:
        return pool.accelerator_type, pool.accelerator_count
    machine_type = pool.machine_type or ""
    if machine_type in MACHINES:
        machine = MACHINES[machine_type]
        return machine.accelerator_type or "", machine.accelerator_count
    if tpus.is_tpu(machine_type):
        own = {"machineType": machine_type}
        return f"TPU_{tpus.generation(own).upper()}".rstrip("_"), tpus.chips_of_machine(own)
    return vertex_machines.built_in(machine_type) or ("", 0)


def for_vertex(pool: Pool) -> tuple[Pool, list[str]]:
    """The pool with replacements that Vertex AI offers today, and one message for each replaced value."""
    notes: list[str] = []
    machine_type, accelerator, count = pool.machine_type, pool.accelerator_type, pool.accelerator_count
    machine = MACHINES.get(machine_type or "")
    if machine is not None:
        machine_type = machine.vertex_type
        if accelerator is None:
            accelerator, count = machine.accelerator_type, machine.accelerator_count
    elif machine_type in _NOT_ON_VERTEX:
        machine_type = _NOT_ON_VERTEX[machine_type]
    with_tpu = tpus.machine_for(accelerator or "", count)
    if with_tpu is not None and not tpus.is_tpu(machine_type or ""):
        machine_type = with_tpu
    if machine_type in tpus.TOPOLOGIES and (accelerator or "").startswith("TPU_"):
        accelerator, count = None, 0  # the machine type implies it
    if machine_type != pool.machine_type:
        notes.append(f"{pool.role.value}: {pool.machine_type} is {machine_type} on Vertex AI")
    withdrawn = vertex_machines.withdrawn(accelerator) if accelerator else None
    if withdrawn is not None:
        notes.append(
            f"{pool.role.value}: {accelerator} has not been available since {withdrawn.on}; "
            f"requesting {withdrawn.instead} instead"
        )
        accelerator = withdrawn.instead
        count = _nearest(machine_type, accelerator, count)
    return replace(pool, machine_type=machine_type, accelerator_type=accelerator, accelerator_count=count), notes


def with_built_in(pool: Pool, machine_type: str) -> tuple[Pool, list[str]]:
    """The pool with the built-in accelerator of ``machine_type`` added, and a note, if the job file names none.

    The service does not add the accelerator: a request for such a machine without it fails.
    """
    own = vertex_machines.built_in(machine_type)
    if own is None or pool.accelerator_type is not None:
        return pool, []
    accelerator, count = own
    note = f"{pool.role.value}: {machine_type} comes with {count} {accelerator}, which the request names"
    return replace(pool, accelerator_type=accelerator, accelerator_count=count), [note]


def _nearest(machine_type: str | None, accelerator: str, count: int) -> int:
    """The largest valid accelerator count up to ``count``; if there is none, the smallest valid count."""
    machine = vertex_machines.machines().get(machine_type or "")
    valid = machine.accelerators.get(accelerator, ()) if machine else ()
    return max((number for number in valid if number <= count), default=min(valid, default=count))

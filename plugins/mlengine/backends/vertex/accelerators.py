"""Checks a request's machines against the table of Vertex AI's machine types (:mod:`mlengine.core.vertex_machines`).

Machine types of families that are newer than the table are accepted with any accelerator: the service decides about
them, and :func:`notes` names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from mlengine.core import vertex_machines
from mlengine.core.job_file import tpus
from mlengine.core.vertex_machines import Machine

# Pairs of a problem and a hint.
Problems = list[tuple[str, str]]

_RESERVATION = re.compile(r"projects/[^/]+/zones/[^/]+/reservations/[^/]+")
_COMMAND = "`mlengine vertex machines` prints the table"


def of_pool(pool: Mapping[str, Any], *, new: bool = False) -> Problems:
    """The problems of one pool's machine, accelerators, reservation and disk.

    :param new: whether to accept an accelerator that the table does not have.
    """
    machine = pool["machineSpec"]
    name, accelerator = machine["machineType"], machine.get("acceleratorType")
    found = _disk(pool.get("diskSpec", {})) + _reservation(machine)
    if vertex_machines.is_offered(name) is False:
        return [*found, (f"Vertex AI does not offer {name} for training", _similar(name))]
    if "tpuTopology" in machine and name not in tpus.TOPOLOGIES:
        hint = f"remove it, or use one of {', '.join(tpus.TOPOLOGIES)}"
        return [*found, (f"{name} has no tpuTopology", hint)]
    if tpus.is_tpu(name):
        return found
    if accelerator is None:
        return found + _required(name)
    if new and accelerator not in vertex_machines.accelerators():
        return found
    return found + (_kind(name, accelerator) or _count(name, accelerator, int(machine.get("acceleratorCount", 1))))


def notes(body: Mapping[str, Any]) -> list[str]:
    """Notes about the machine types and accelerators that are not checked, as the table does not have them."""
    found: dict[str, None] = {}
    for pool in body["jobSpec"]["workerPoolSpecs"]:
        machine = pool.get("machineSpec", {})
        name, accelerator = machine.get("machineType"), machine.get("acceleratorType")
        if name and vertex_machines.is_offered(name) is None:
            found[f"the machine type {name} is not known here, and not checked; {_COMMAND}"] = None
        if accelerator and accelerator not in vertex_machines.accelerators():
            near = _similar_kinds(accelerator)
            hint = f"similar: {', '.join(near)}; {_COMMAND}" if near else _COMMAND
            found[f"the accelerator {accelerator} is not known here, and not checked; {hint}"] = None
    return list(found)


def _similar_kinds(accelerator: str) -> list[str]:
    return get_close_matches(accelerator, vertex_machines.accelerators(), 3, 0.8)


def _similar(name: str) -> str:
    """A hint that names similar machine types."""
    names = list(vertex_machines.machines())
    near = get_close_matches(name, names, 3, 0.8)
    if not near:
        # Prefer the same shape of another family, such as n2-standard-8 for n2d-standard-8.
        shape = name.partition("-")[2]
        near = [f"{family}-{shape}" for family in ("n2", "n1", "e2") if f"{family}-{shape}" in names]
    return f"use {' or '.join(near)}; {_COMMAND}" if near else _COMMAND


def _required(name: str) -> Problems:
    """Check that a machine that comes with accelerators is requested with them."""
    built_in = vertex_machines.built_in(name)
    if built_in is None:
        return []
    accelerator, count = built_in
    return [(f"{name} needs its accelerators in the request", f"add {count} {accelerator}")]


def _kind(name: str, accelerator: str) -> Problems:
    """Check that the machine can have this accelerator."""
    if accelerator.startswith("TPU_"):
        return [(f"{name} cannot have a TPU ({accelerator})", "use the machine type ct5lp-hightpu-4t, without one")]
    withdrawn = vertex_machines.withdrawn(accelerator)
    if withdrawn is not None:
        return [(f"{accelerator} has not been available since {withdrawn.on}", f"use {withdrawn.instead}")]
    machine = vertex_machines.machines().get(name)
    if machine is None or accelerator in machine.accelerators:
        return []
    return _other_kind(machine, accelerator)


def _other_kind(machine: Machine, accelerator: str) -> Problems:
    name, built_in = machine.name, vertex_machines.built_in(machine.name)
    if built_in is not None:
        return [(f"{name} comes with {built_in[0]}, not with {accelerator}", f"name {built_in[0]}")]
    others = vertex_machines.with_accelerator(accelerator)
    hint = f"use {', '.join(others[:4])}{' …' if len(others) > 4 else ''}; {_COMMAND}" if others else _COMMAND
    if not machine.accelerators:
        return [(f"{name} cannot have an accelerator ({accelerator})", hint)]
    if accelerator not in vertex_machines.accelerators():
        return _misspelt(machine, accelerator)
    return [(f"{accelerator} cannot be attached to {name}", hint)]


def _misspelt(machine: Machine, accelerator: str) -> Problems:
    """Report an unknown accelerator whose name is almost that of one that the known machine can have."""
    near = get_close_matches(accelerator, machine.accelerators, 3, 0.8)
    if not near:
        return []
    hint = (
        f"did you mean {' or '.join(near)}? If it is new, the vertex setting accelerator_checks=false submits the job"
    )
    return [(f"{machine.name} has no accelerator {accelerator}", hint)]


def _count(name: str, accelerator: str, count: int) -> Problems:
    """Check that the machine can have this number of accelerators."""
    machine = vertex_machines.machines().get(name)
    valid = machine.accelerators.get(accelerator, ()) if machine else ()
    if not valid or count in valid:
        return []
    numbers = " or ".join(map(str, valid))
    return [(f"{name} cannot have {count} of {accelerator}", f"set the accelerator's count to {numbers}")]


def _reservation(machine: Mapping[str, Any]) -> Problems:
    accelerator, affinity = machine.get("acceleratorType"), machine.get("reservationAffinity", {})
    kind = affinity.get("reservationAffinityType")
    for name in affinity.get("values", ()) if kind == "SPECIFIC_RESERVATION" else ():
        if not _RESERVATION.fullmatch(name):
            return [(f"{name!r} is not the full name of a reservation", f"use {vertex_machines.reservation_name()}")]
    if accelerator in vertex_machines.needs_reservation() and kind != "SPECIFIC_RESERVATION":
        hint = "name a reservation that is shared with Vertex AI in the vertex setting reservation"
        return [(f"{machine['machineType']} with {accelerator} needs a reservation", hint)]
    return []


def _disk(disk: Mapping[str, Any]) -> Problems:
    """Check the type of the boot disk. Its size is checked with the other limits."""
    types = vertex_machines.disk_types()
    given = disk.get("bootDiskType")
    if given is None or given in types:
        return []
    return [(f"bootDiskType: is {given!r}", f"use {', '.join(types)}")]


def tpu(pools: list[Mapping[str, Any]], strategy: str = "STANDARD") -> Problems:
    """Check that a job with a TPU has no other pools, and that its topology is one of the few that are offered.

    :param strategy: the API's name of the provisioning strategy.
    """
    machines = [pool["machineSpec"] for pool in pools if tpus.is_tpu(pool["machineSpec"]["machineType"])]
    if not machines:
        return []
    if len(pools) > 1 or int(pools[0].get("replicaCount", 1)) != 1:
        return [
            (
                "a job with a TPU has one pool of one replica, which runs on the TPU's own machine",
                "name the TPU as masterType and leave out workers, parameter servers and evaluators",
            )
        ]
    found = _slice(machines[0]) if machines[0]["machineType"] in tpus.TOPOLOGIES else _cloud_tpu(machines[0])
    if not found and strategy == "SPOT" and tpus.is_pod(machines[0]):
        found.append(("Spot is not offered for TPU pods", "remove spot, or use the topology of one machine"))
    return found


def _slice(machine: Mapping[str, Any]) -> Problems:
    name, kind, topology = machine["machineType"], machine.get("acceleratorType"), machine.get("tpuTopology")
    known = tpus.TOPOLOGIES[name]
    found: Problems = []
    if kind is not None:
        found.append((f"{name} is a TPU and takes no accelerator ({kind})", "remove the accelerator"))
    if topology not in known:
        found.append((f"{name} has no topology {topology}", f"use one of {', '.join(known)}"))
    return found


def _cloud_tpu(machine: Mapping[str, Any]) -> Problems:
    kind, cores = machine.get("acceleratorType"), int(machine.get("acceleratorCount", 0))
    if kind not in tpus.CLOUD_TPU_KINDS:
        return [(f"{tpus.CLOUD_TPU} is a TPU_V2 or TPU_V3, not {kind}", "name one of them, or use ct5lp-hightpu-4t")]
    if not cores or (cores != tpus.CORES and cores % tpus.POD_CORES):
        return [(f"{cores} cores of {kind}", f"use {tpus.CORES}, or a multiple of {tpus.POD_CORES} for a pod")]
    return []

"""Which machine types can have which accelerators, and how many; an impossible combination is an error with a hint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlengine.core.job_file import tpus

# Machines that come with accelerators of their own kind; N1 takes what is attached to it; the rest takes none.
_BUILT_IN: tuple[tuple[str, frozenset[str]], ...] = (
    ("g2-", frozenset({"NVIDIA_L4"})),
    ("a2-ultragpu-", frozenset({"NVIDIA_A100_80GB"})),
    ("a2-", frozenset({"NVIDIA_TESLA_A100"})),
    ("a3-highgpu-", frozenset({"NVIDIA_H100_80GB"})),
    ("a3-megagpu-", frozenset({"NVIDIA_H100_MEGA_80GB"})),
    ("a3-ultragpu-", frozenset({"NVIDIA_H200_141GB"})),
    ("a4-", frozenset({"NVIDIA_B200"})),
    ("a4x-", frozenset({"NVIDIA_GB200"})),
    ("g4-", frozenset({"NVIDIA_RTX_PRO_6000"})),
)
# What is attached to N1, and how many a machine may have.
_ATTACHABLE = {f"NVIDIA_TESLA_{name}": (1, 2, 4) for name in ("T4", "P4", "P100")} | {"NVIDIA_TESLA_V100": (1, 2, 4, 8)}
# a2-highgpu-4g and its like have their number in their name.
_GPUS = re.compile(r"-(?P<count>\d+)g")
_NO_ACCELERATOR = ("e2-", "n2-", "n2d-", "c2-", "c2d-", "c3-", "c3d-", "c4-", "m1-", "n4-", "t2d-")

# What is wrong, and what to do about it.
Problems = list[tuple[str, str]]


def of_pool(pool: Mapping[str, Any]) -> Problems:
    """What cannot be about a pool's machine. Machines newer than this file go through."""
    machine = pool["machineSpec"]
    name, accelerator = machine["machineType"], machine.get("acceleratorType")
    if "tpuTopology" in machine and name not in tpus.TOPOLOGIES:
        return [(f"{name} has no tpuTopology", f"drop it, or take one of {', '.join(tpus.TOPOLOGIES)}")]
    if accelerator is None or tpus.is_tpu(name):
        return []
    return _kind(name, accelerator) or _count(name, accelerator, int(machine.get("acceleratorCount", 1)))


def _kind(name: str, accelerator: str) -> Problems:
    """Whether a machine may have it."""
    if accelerator.startswith("TPU_"):
        return [(f"{name} cannot have a TPU ({accelerator})", "take the machine type ct5lp-hightpu-4t, without one")]
    kinds = next((kinds for prefix, kinds in _BUILT_IN if name.startswith(prefix)), None)
    if kinds is not None and accelerator not in kinds:
        return [(f"{name} comes with {', '.join(sorted(kinds))}, not with {accelerator}", f"name {min(kinds)}")]
    if name.startswith(_NO_ACCELERATOR):
        return [(f"{name} cannot have an accelerator ({accelerator})", "take an n1, g2, a2 or a3 machine type")]
    if name.startswith("n1-") and accelerator.startswith("NVIDIA") and accelerator not in _ATTACHABLE:
        return [(f"{accelerator} cannot be attached to {name}", "take the g2, a2 or a3 machine that comes with it")]
    return []


def _count(name: str, accelerator: str, count: int) -> Problems:
    """Whether a machine may have so many."""
    fixed = _GPUS.search(name)
    allowed = (int(fixed["count"]),) if fixed else _ATTACHABLE.get(accelerator, (count,))
    if count in allowed:
        return []
    numbers = " or ".join(map(str, allowed))
    return [(f"{name} cannot have {count} of {accelerator}", f"set the accelerator's count to {numbers}")]


def tpu(pools: list[Mapping[str, Any]]) -> Problems:
    """A TPU is the whole job, in one of a few shapes."""
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
    return _slice(machines[0]) if machines[0]["machineType"] in tpus.TOPOLOGIES else _cloud_tpu(machines[0])


def _slice(machine: Mapping[str, Any]) -> Problems:
    name, kind, topology = machine["machineType"], machine.get("acceleratorType"), machine.get("tpuTopology")
    known = tpus.TOPOLOGIES[name]
    found: Problems = []
    if kind is not None:
        found.append((f"{name} is a TPU and takes no accelerator ({kind})", "drop the accelerator"))
    if topology not in known:
        found.append((f"{name} has no topology {topology}", f"one of {', '.join(known)}"))
    return found


def _cloud_tpu(machine: Mapping[str, Any]) -> Problems:
    kind, cores = machine.get("acceleratorType"), int(machine.get("acceleratorCount", 0))
    if kind not in tpus.CLOUD_TPU_KINDS:
        return [(f"{tpus.CLOUD_TPU} is a TPU_V2 or TPU_V3, not {kind}", "name one of them, or take ct5lp-hightpu-4t")]
    if not cores or (cores != tpus.CORES and cores % tpus.POD_CORES):
        return [(f"{cores} cores of {kind}", f"{tpus.CORES}, or a multiple of {tpus.POD_CORES} for a pod")]
    return []

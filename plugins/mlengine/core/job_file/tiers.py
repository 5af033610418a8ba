"""ML Engine's scale tiers and machine types, and their replacements on Vertex AI.

Job files may also name Compute Engine machine types. These are unchanged, except for a few that Vertex AI does not
offer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mlengine.core.job_file import tpus
from mlengine.core.spec import Pool, Role

CUSTOM = "CUSTOM"


@dataclass(frozen=True)
class Machine:
    """One of ML Engine's machine types.

    :param vertex_type: its replacement on Vertex AI.
    """

    name: str
    vcpus: int
    vertex_type: str
    accelerator_type: str | None = None
    accelerator_count: int = 0


_K80, _P100, _V100 = "NVIDIA_TESLA_K80", "NVIDIA_TESLA_P100", "NVIDIA_TESLA_V100"
_T4, _TPU = "NVIDIA_TESLA_T4", "TPU_V2"

MACHINES: dict[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine("standard", 4, "n1-standard-4"),
        Machine("large_model", 8, "n1-highmem-8"),
        Machine("complex_model_s", 8, "n1-standard-8"),
        Machine("complex_model_m", 16, "n1-highcpu-16"),
        Machine("complex_model_l", 32, "n1-highcpu-32"),
        Machine("standard_gpu", 8, "n1-standard-8", _K80, 1),
        Machine("complex_model_m_gpu", 16, "n1-standard-16", _K80, 4),
        Machine("complex_model_l_gpu", 32, "n1-standard-32", _K80, 8),
        Machine("standard_p100", 8, "n1-standard-8", _P100, 1),
        Machine("complex_model_m_p100", 16, "n1-standard-16", _P100, 4),
        Machine("standard_v100", 8, "n1-standard-8", _V100, 1),
        Machine("large_model_v100", 16, "n1-highmem-16", _V100, 1),
        Machine("complex_model_m_v100", 16, "n1-standard-16", _V100, 4),
        Machine("complex_model_l_v100", 32, "n1-standard-32", _V100, 8),
        Machine("cloud_tpu", 4, "cloud-tpu", _TPU, 8),
    )
}

TIERS: dict[str, tuple[Pool, ...]] = {
    "BASIC": (Pool(Role.CHIEF, 1, "n1-standard-4"),),
    "STANDARD_1": (
        Pool(Role.CHIEF, 1, "n1-highcpu-8"),
        Pool(Role.WORKER, 4, "n1-highcpu-8"),
        Pool(Role.PS, 3, "n1-standard-4"),
    ),
    "PREMIUM_1": (
        Pool(Role.CHIEF, 1, "n1-highcpu-16"),
        Pool(Role.WORKER, 19, "n1-highcpu-16"),
        Pool(Role.PS, 11, "n1-highmem-8"),
    ),
    "BASIC_GPU": (Pool(Role.CHIEF, 1, "n1-standard-8", _K80, 1),),
    "BASIC_TPU": (Pool(Role.CHIEF, 1, "n1-standard-4", _TPU, 8),),
}
TIER_NAMES: tuple[str, ...] = (*TIERS, CUSTOM)

# Known accelerators. The list is not closed: the service decides about names that are not in it.
ACCELERATORS: tuple[str, ...] = (
    *(f"NVIDIA_TESLA_{name}" for name in ("K80", "P4", "P100", "V100", "T4", "A100")),
    *("NVIDIA_L4", "NVIDIA_A100_80GB", "NVIDIA_H100_80GB", "NVIDIA_H100_MEGA_80GB", "NVIDIA_H200_141GB"),
    *("NVIDIA_B200", "NVIDIA_GB200", "TPU_V2", "TPU_V3", "TPU_V4_POD", "TPU_V5_LITEPOD"),
)

# Compute Engine types that Vertex AI's training does not offer, although ML Engine's tiers used them.
_NOT_ON_VERTEX = {
    "n1-highcpu-2": "n1-standard-4",
    "n1-highcpu-4": "n1-standard-4",
    "n1-highcpu-8": "n1-standard-8",
    "n1-standard-1": "n1-standard-4",
    "n1-standard-2": "n1-standard-4",
}
_MAX_T4 = 4  # a machine has 1, 2 or 4 of them
_DISCONTINUED = {
    _K80: (_T4, "was discontinued in 2024"),
    _P100: (_P100, "is deprecated and available in few regions; consider NVIDIA_TESLA_T4 or NVIDIA_L4"),
    "TPU_V2": ("TPU_V2", "is deprecated; consider TPU_V5_LITEPOD"),
}
# Compute Engine's names: family-shape-size, such as n1-standard-8, a2-highgpu-1g, cloud-tpu, e2-medium.
_COMPUTE_ENGINE = re.compile(r"[a-z]+[0-9]*[a-z]*-[a-z]+[0-9a-z]*(-[0-9]+[a-z]?)?(-[a-z]+)?")


def is_machine_type(name: str) -> bool:
    """Whether ``name`` is one of ML Engine's machine types, or has the form of a Compute Engine one."""
    return name in MACHINES or _COMPUTE_ENGINE.fullmatch(name) is not None


def for_vertex(pool: Pool) -> tuple[Pool, list[str]]:
    """The pool with what Vertex AI offers today, and one message for each value that was replaced."""
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
    if accelerator in _DISCONTINUED:
        successor, reason = _DISCONTINUED[accelerator]
        instead = f"; requesting {successor} instead" if successor != accelerator else ""
        notes.append(f"{pool.role.value}: {accelerator} {reason}{instead}")
        accelerator, count = successor, min(count, _MAX_T4) if successor == _T4 else count
    return replace(pool, machine_type=machine_type, accelerator_type=accelerator, accelerator_count=count), notes

"""The TPUs of Vertex AI's training: machine types, topologies, and replacements of ML Engine's names.

A TPU job has one pool of one replica, which the service distributes over the machines of the topology. Source:
Google's page "Configure compute resources", 2026.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

CLOUD_TPU = "cloud-tpu"  # v2 and v3: the accelerator says which
CLOUD_TPU_KINDS = frozenset({"TPU_V2", "TPU_V3"})
CORES = 8  # of a single v2 or v3
POD_CORES = 32  # pods have a multiple of these

_SLICES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
# By machine type, the single machine first.
TOPOLOGIES: Mapping[str, tuple[str, ...]] = {
    **{f"{family}-1t": ("1x1",) for family in ("ct5lp-hightpu", "ct6e-standard")},
    **{f"{family}-4t": _SLICES for family in ("ct5lp-hightpu", "ct6e-standard")},
    **{f"{family}-8t": ("2x4",) for family in ("ct5lp-hightpu", "ct6e-standard")},
    "tpu7x-standard-4t": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16"),
}


def is_tpu(machine_type: str) -> bool:
    return machine_type == CLOUD_TPU or machine_type in TOPOLOGIES


def chips(topology: str) -> int:
    """The number of chips of a topology: ``2x4`` has 8."""
    return math.prod(int(side) for side in topology.split("x"))


def topology(machine_type: str, wanted: int = 0) -> str | None:
    """The topology of a machine type with ``wanted`` chips; with 0, that of a single machine.

    ``None`` if requests for the machine type name no topology, or if it has none with that number of chips.
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

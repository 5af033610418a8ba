"""The maximum cost of a job, before submission.

List prices of Vertex AI's training in us-central1, in USD an hour, as this project's authors knew them at
:data:`AS_OF`. Those of :data:`CHECKED` were compared with Google's price page as it was read at :data:`CHECKED_ON`: the
catalogue of api-evangelist has them with that date (``plans/google-vertex-ai-plans-pricing.yml``). The rest were not.
Nothing updates them and other regions cost more: they are for a cap and an order of magnitude, not for a bill. A user's
own figures go over them, by machine type or accelerator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.core.errors import BackendError
from mlengine.core.job_file import tpus

AS_OF = "2025-06"
CHECKED_ON = "2026-10-07"
CHECKED: Mapping[str, float] = {"n1-standard-4": 0.21849885, "NVIDIA_H100_80GB": 9.79655057}
DEFAULT_TIMEOUT_SECONDS = 7 * 24 * 3600  # the service's own

# By family: a vCPU and a GiB of memory; training costs Compute Engine's price and 15 %.
_FAMILIES: Mapping[str, tuple[float, float]] = {
    "n1": (0.03635265, 0.00487255),
    "n2": (0.03635265, 0.00487255),
    "e2": (0.02508265, 0.00336145),
    "c2": (0.03907700, 0.00523250),
    "n2d": (0.03163650, 0.00424005),
    "c3": (0.03908850, 0.00521870),
}
# GiB of memory for each vCPU, by family and shape.
_MEMORY: Mapping[str, float] = {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0}
_N1_MEMORY: Mapping[str, float] = {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9}
# Machines that come with their accelerators: all in one.
_WHOLE: Mapping[str, float] = {
    "g2-standard-4": 0.8129,
    "g2-standard-8": 0.9819,
    "g2-standard-12": 1.1505,
    "g2-standard-16": 1.3193,
    "g2-standard-24": 2.3010,
    "g2-standard-32": 1.9949,
    "g2-standard-48": 4.6020,
    "g2-standard-96": 9.2040,
    "a2-highgpu-1g": 4.4252,
    "a2-highgpu-2g": 8.8505,
    "a2-highgpu-4g": 17.7010,
    "a2-highgpu-8g": 35.4020,
    "a2-megagpu-16g": 65.7075,
    "a2-ultragpu-1g": 6.2506,
    "a2-ultragpu-2g": 12.5012,
    "a2-ultragpu-4g": 25.0024,
    "a2-ultragpu-8g": 50.0048,
    "a3-highgpu-8g": 101.0074,
}
_ACCELERATORS: Mapping[str, float] = {
    "NVIDIA_TESLA_T4": 0.4025,
    "NVIDIA_TESLA_P4": 0.6900,
    "NVIDIA_TESLA_P100": 1.6790,
    "NVIDIA_TESLA_V100": 2.8520,
    "NVIDIA_L4": 0.6449,
    "NVIDIA_H100_80GB": 9.79655057,
    "TPU_V2": 0.646875,  # a core; a single TPU has eight
    "TPU_V3": 1.15,
}
# A chip of the TPUs that are machine types of their own.
_CHIPS: Mapping[str, float] = {"ct5lp-hightpu": 1.38, "ct6e-standard": 3.105}
_TYPE = re.compile(r"(?P<family>[a-z0-9]+)-(?P<shape>standard|highmem|highcpu)-(?P<vcpus>\d+)")


@dataclass(frozen=True)
class Estimate:
    """The most that a job can cost, in USD, if it runs until its time limit; ``unpriced`` has no price here."""

    usd_per_hour: float
    hours: float
    unpriced: tuple[str, ...] = ()

    @property
    def usd(self) -> float:
        return self.usd_per_hour * self.hours

    def __str__(self) -> str:
        more = f", without {', '.join(self.unpriced)}, whose price is not known" if self.unpriced else ""
        return (
            f"at most {self.usd:,.2f} USD: {self.usd_per_hour:,.2f} USD an hour for up to {self.hours:g} h{more} "
            f"(list prices of us-central1, {AS_OF})"
        )


def machine_price(machine_type: str, prices: Mapping[str, float]) -> float | None:
    """USD an hour, ``None`` if unknown."""
    if machine_type in prices:
        return prices[machine_type]
    if machine_type in _WHOLE:
        return _WHOLE[machine_type]
    if machine_type == tpus.CLOUD_TPU:
        return 0.0  # its cores are what costs
    match = _TYPE.fullmatch(machine_type)
    if match is None or match["family"] not in _FAMILIES:
        return None
    vcpu, gib = _FAMILIES[match["family"]]
    memory = (_N1_MEMORY if match["family"] == "n1" else _MEMORY)[match["shape"]]
    return int(match["vcpus"]) * (vcpu + gib * memory)


def estimate(body: Mapping[str, Any], prices: Mapping[str, float]) -> Estimate:
    """The most that the ``CustomJob`` in ``body`` can cost. Spot and commitments are cheaper; disks are left out."""
    hourly, unpriced = 0.0, []
    for pool in body["jobSpec"]["workerPoolSpecs"]:
        machine = pool.get("machineSpec")
        if not machine:
            continue
        count = int(pool.get("replicaCount", 1))
        name = machine["machineType"]
        price = _tpu_price(name, machine, prices) if name in tpus.TOPOLOGIES else machine_price(name, prices)
        if price is None:
            unpriced.append(name)
        accelerator = machine.get("acceleratorType")
        extra = 0.0
        if accelerator and name not in _WHOLE and name not in prices:
            each = prices.get(accelerator, _ACCELERATORS.get(accelerator))
            if each is None:
                unpriced.append(accelerator)
            extra = (each or 0.0) * int(machine.get("acceleratorCount", 1))
        hourly += count * ((price or 0.0) + extra)
    timeout = body["jobSpec"].get("scheduling", {}).get("timeout", f"{DEFAULT_TIMEOUT_SECONDS}s")
    return Estimate(hourly, float(str(timeout).rstrip("s")) / 3600, tuple(dict.fromkeys(unpriced)))


def _tpu_price(name: str, machine: Mapping[str, Any], prices: Mapping[str, float]) -> float | None:
    """All machines of a topology; a user's own price is that of one machine."""
    wanted = tpus.chips(machine.get("tpuTopology") or tpus.TOPOLOGIES[name][0])
    family, _, own = name.rpartition("-")
    if name in prices:
        return prices[name] * wanted / int(own.rstrip("t"))
    return _CHIPS[family] * wanted if family in _CHIPS else None


def check_cap(job_id: str, found: Estimate, cap_usd: float | None) -> None:
    """:raises BackendError: if the job may cost more than the cap, or its cost is unknown."""
    if cap_usd is None:
        return
    if found.unpriced:
        raise BackendError(
            f"job {job_id}: there is a cap of {cap_usd:,.2f} USD, and no price for {', '.join(found.unpriced)}",
            hint="give its USD an hour in the vertex setting 'prices', or lift the cap",
        )
    if found.usd > cap_usd:
        raise BackendError(
            f"job {job_id} may cost {found}; the cap is {cap_usd:,.2f} USD",
            hint="set a shorter time limit (scheduling.maxRunningTime, or timeout_seconds), take fewer or smaller "
            "machines, or raise cost_cap_usd",
        )

"""The maximum cost of a job, before submission.

Prices come from ``vertex_machines.toml``, which has only prices from a dated source. They are not updated, and other
regions cost more: they are for a cap and an order of magnitude, not for a bill. A user's own prices, by machine type or
accelerator, take precedence. Hardware without a price is named in the estimate, and refused if there is a cost cap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.core import vertex_machines
from mlengine.core.errors import BackendError
from mlengine.core.job_file import tpus

DEFAULT_TIMEOUT_SECONDS = 7 * 24 * 3600  # the default of the service


@dataclass(frozen=True)
class Estimate:
    """The maximum cost of a job in USD, if it runs until its time limit.

    :param unpriced: the machine types and accelerators without a price, which are not in ``usd_per_hour``.
    :param own: whether all prices are the user's.
    """

    usd_per_hour: float
    hours: float
    unpriced: tuple[str, ...] = ()
    own: bool = False

    @property
    def usd(self) -> float:
        return self.usd_per_hour * self.hours if self.usd_per_hour else 0.0

    def __str__(self) -> str:
        missing = ", ".join(self.unpriced)
        if self.unpriced and not self.usd_per_hour:
            return f"no cost estimate: no price is known for {missing}; set the vertex setting 'prices'"
        source = vertex_machines.price_source()
        listed = "your own prices" if self.own else f"list prices of {source.region}, read {source.read}"
        more = f", without {missing}, for which no price is known" if self.unpriced else ""
        if self.hours == math.inf:
            return f"any amount: {self.usd_per_hour:,.2f} USD an hour, without a time limit{more} ({listed})"
        return (
            f"at most {self.usd:,.2f} USD{more}: {self.usd_per_hour:,.2f} USD an hour for up to {self.hours:g} h "
            f"({listed})"
        )


@dataclass(frozen=True)
class _Cost:
    """The cost of hardware in USD per hour, and the names under which prices were searched."""

    usd: float = 0.0
    names: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.usd + other.usd, (*self.names, *other.names), (*self.unpriced, *other.unpriced))

    def times(self, count: float) -> _Cost:
        return _Cost(self.usd * count, self.names, self.unpriced)


def estimate(body: Mapping[str, Any], prices: Mapping[str, float]) -> Estimate:
    """The maximum cost of the ``CustomJob`` in ``body``. Spot and commitments are cheaper; disks are not included.

    :param prices: the user's own prices, in USD per hour, by machine type or accelerator.
    """
    known = {**vertex_machines.usd_per_hour(), **prices}
    total = _Cost()
    for pool in body["jobSpec"]["workerPoolSpecs"]:
        machine = pool.get("machineSpec")
        if machine:
            total += _machine(machine, known, prices).times(int(pool.get("replicaCount", 1)))
    timeout = body["jobSpec"].get("scheduling", {}).get("timeout", f"{DEFAULT_TIMEOUT_SECONDS}s")
    own = all(name in prices for name in total.names)
    hours = float(str(timeout).rstrip("s")) / 3600 or math.inf  # 0 means no limit
    return Estimate(total.usd, hours, tuple(dict.fromkeys(total.unpriced)), own)


def _machine(machine: Mapping[str, Any], known: Mapping[str, float], prices: Mapping[str, float]) -> _Cost:
    """The cost of one replica: the machine and its accelerators."""
    name, accelerator = machine["machineType"], machine.get("acceleratorType")
    if name in tpus.TOPOLOGIES:
        chips = tpus.chips(machine.get("tpuTopology") or tpus.TOPOLOGIES[name][0])
        return _price(name, known).times(chips / tpus.chips_of_machine(machine))
    # The price of a TPU v2 or v3 is per core. A user's price for a machine type that comes with accelerators includes
    # them.
    cost = _Cost() if name == tpus.CLOUD_TPU and name not in known else _price(name, known)
    includes = name in prices and vertex_machines.built_in(name) is not None
    if accelerator is None or includes:
        return cost
    return cost + _price(accelerator, known).times(int(machine.get("acceleratorCount", 1)))


def _price(name: str, known: Mapping[str, float]) -> _Cost:
    return _Cost(known[name], (name,)) if name in known else _Cost(unpriced=(name,))


def check_cap(job_id: str, found: Estimate, cap_usd: float | None) -> None:
    """Check that the estimated cost of a job is within the cap.

    :raises BackendError: the job may cost more than the cap, or its cost is unknown.
    """
    if cap_usd is None:
        return
    if found.unpriced:
        raise BackendError(
            f"job {job_id}: there is a cap of {cap_usd:,.2f} USD, and no price for {', '.join(found.unpriced)}",
            hint="give its USD an hour in the vertex setting 'prices' (Google's price list: "
            f"{vertex_machines.price_source().page}), or remove the cap",
        )
    if found.usd > cap_usd:
        raise BackendError(
            f"job {job_id} may cost {found}; the cap is {cap_usd:,.2f} USD",
            hint="set a shorter time limit (scheduling.maxRunningTime, or timeout_seconds), use fewer or smaller "
            "machines, or raise cost_cap_usd",
        )

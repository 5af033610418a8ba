"""Fallbacks for when machines are missing: other machines, another region or another strategy, tried in order.

A fallback is a mapping: fields of :class:`~mlengine.backends.vertex.options.VertexOptions` that replace the job's, and
:data:`OWN` fields, which change the finished request. The service has no such list, so each fallback is a separate
attempt, created after the attempt before it has ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.reservations import affinity
from mlengine.core import vertex_machines
from mlengine.core.errors import BackendError
from mlengine.core.job import FailureCause, JobStatus
from mlengine.core.job_file import tpus

Fallback = Mapping[str, Any]

# "reservation" and "standard" are on-demand machines for the API: the affinity of the pools distinguishes them.
STRATEGIES: Mapping[str, str | None] = {
    "standard": None,
    "spot": "SPOT",
    "flex-start": "FLEX_START",
    "reservation": None,
}
OWN = ("region", "strategy", "machine_type", "accelerator_type", "accelerator_count", "tpu_topology")
# Resources of the service and the network belong to a region, so a fallback in another region may need others.
REPLACED = (
    "max_wait_seconds", "timeout_seconds", "reservation", "boot_disk_gb", "boot_disk_type", "image_uri",
    "service_account", "network", "reserved_ip_ranges", "psc_interface", "nfs_mounts", "encryption_key",
    "tensorboard", "experiment", "experiment_run", "persistent_resource",
)  # fmt: skip
_NUMBER = "number"  # the field for the number of a fallback, from 1, in the claim's record
_TEXTS = frozenset({"region", "strategy", "machine_type", "accelerator_type", "tpu_topology"})
_REGION = re.compile(r"[a-z]+(-[a-z]+)+[0-9]+")

# The service's messages about missing machines. It tried all zones of the region, and a Spot job up to six times.
_MISSING = re.compile(
    r"resources are insufficient|stockout|resource_?pool_?exhausted|does not have enough resources", re.I
)


def check(fallbacks: Sequence[Any]) -> None:
    """Check the fields and values of fallbacks.

    :raises BackendError: a fallback is not a mapping, or a field or value of one is not valid.
    """
    for number, fallback in enumerate(fallbacks, start=1):
        problem = _problem(fallback)
        if problem:
            raise BackendError(
                f"the vertex setting fallbacks, number {number}: {problem}",
                hint=f"use only {', '.join((*OWN, *REPLACED))}",
            )


def _problem(fallback: Any) -> str:
    if not isinstance(fallback, Mapping) or not fallback:
        return f"not a mapping with a field: {fallback!r}"
    for name, value in fallback.items():
        if name not in OWN and name not in REPLACED:
            return f"no field {name!r}"
        if name in _TEXTS and not isinstance(value, str) and not (value is None and name == "accelerator_type"):
            return f"{name} is not a string: {value!r}"
    if "strategy" in fallback and fallback["strategy"] not in STRATEGIES:
        return f"strategy is one of {', '.join(STRATEGIES)}, not {fallback['strategy']!r}"
    if "region" in fallback and not _REGION.fullmatch(fallback["region"]):
        return f"not a region: {fallback['region']!r}"
    count = fallback.get("accelerator_count", 1)
    valid = isinstance(count, int) and not isinstance(count, bool) and count > 0
    return "" if valid else f"accelerator_count is not a positive number: {count!r}"


def numbered(fallbacks: Sequence[Fallback]) -> list[Fallback]:
    """The fallbacks as they are recorded: with their number in the list, from 1."""
    return [{_NUMBER: number, **fallback} for number, fallback in enumerate(fallbacks, start=1)]


def following(fallbacks: Sequence[Fallback], current: Fallback | None) -> Fallback | None:
    """The fallback after ``current``, which may be from a list that was changed since; ``None`` after the last one."""
    place = int(current[_NUMBER]) if current else 0
    return numbered(fallbacks)[place] if place < len(fallbacks) else None


def described(fallback: Fallback) -> str:
    """A description of a fallback for people, such as ``fallback 1: region europe-west4, strategy spot``."""
    what = ", ".join(f"{name} {value}" for name, value in fallback.items() if name != _NUMBER)
    return f"fallback {fallback[_NUMBER]}: {what}"


def notes(options: VertexOptions, current: Fallback | None) -> list[str]:
    """Notes about the fallback that a request uses, and about those that are left."""
    place = int(current[_NUMBER]) if current else 0
    used = [f"this is {described(current)}"] if current else []
    return used + [f"if machines are missing: {described(left)}" for left in numbered(options.fallbacks)[place:]]


def lacks_machines(status: JobStatus) -> bool:
    """Whether a job ended because the service had no machines for it, or the project no quota."""
    failure = status.failure
    if failure is None:
        return False
    # A flex-start job with max_wait_seconds ends at that limit; the service's message for this is not documented.
    waited = failure.cause is FailureCause.DEADLINE and status.started is None
    # The last lines of a replica's log may follow the first line.
    message = failure.message.partition("\n")[0]
    # This includes a quota whose limit is 0, as another quota may apply to the fallback.
    return failure.cause.value in {"quota", "no_quota"} or waited or _MISSING.search(message) is not None


def options_of(options: VertexOptions, fallback: Fallback | None) -> VertexOptions:
    """The options of an attempt with this fallback."""
    if not fallback:
        return options
    changed = {name: fallback[name] for name in REPLACED if name in fallback}
    strategy = fallback.get("strategy")
    if strategy is not None:
        changed |= {"spot": strategy == "spot", "flex_start": strategy == "flex-start"}
        if strategy != "reservation":
            changed.setdefault("reservation", None)
        if strategy != "flex-start" and options.flex_start:
            changed.setdefault("max_wait_seconds", None)  # the job's value was for flex-start
    return replace(options, **VertexOptions.typed(changed))


def apply(body: dict[str, Any], options: VertexOptions, fallback: Fallback | None) -> dict[str, Any]:
    """Apply the changes of a fallback, which have precedence over the job file and the option ``raw``, to a request.

    :param options: the options of this attempt.
    :raises BackendError: the strategy ``reservation`` without a reservation.
    """
    if not fallback:
        return body
    spec = dict(body["jobSpec"])
    pools = [dict(pool) for pool in spec["workerPoolSpecs"]]
    if "strategy" in fallback:
        spec["scheduling"] = _scheduling(spec.get("scheduling", {}), fallback)
        _reserve(pools, options, fallback["strategy"])
    replaced = _scarce(pools)
    for pool in filter(None, pools):
        if _hardware(pool) == replaced:
            pool["machineSpec"] = _machine(pool["machineSpec"], fallback)
    return {**body, "jobSpec": {**spec, "workerPoolSpecs": pools}}


def _hardware(pool: Mapping[str, Any]) -> tuple[Any, Any]:
    return pool["machineSpec"]["machineType"], pool["machineSpec"].get("acceleratorType")


def _scarce(pools: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """The hardware that a fallback replaces: that of the first pool with accelerators, or else that of the chief."""
    accelerated = (pool for pool in pools if pool and _hardware(pool)[1])
    return _hardware(next(accelerated, pools[0]))


def _scheduling(scheduling: Mapping[str, Any], fallback: Fallback) -> dict[str, Any]:
    kept = {name: value for name, value in scheduling.items() if name != "strategy"}
    if fallback["strategy"] != "flex-start" and "max_wait_seconds" not in fallback:
        kept.pop("maxWaitDuration", None)  # the service accepts it for flex-start only
    word = STRATEGIES[fallback["strategy"]]
    return {**kept, "strategy": word} if word else kept


def _reserve(pools: list[dict[str, Any]], options: VertexOptions, strategy: str) -> None:
    for pool in filter(None, pools):
        machine = dict(pool["machineSpec"])
        if strategy != "reservation":
            machine.pop("reservationAffinity", None)
        elif options.reservation:
            machine["reservationAffinity"] = affinity(options.reservation)
        elif "reservationAffinity" not in machine:
            raise BackendError(
                "the strategy reservation of a fallback needs a reservation",
                hint="add 'reservation' to the fallback: any, or projects/P/zones/Z/reservations/NAME",
            )
        pool["machineSpec"] = machine


def _machine(machine: Mapping[str, Any], fallback: Fallback) -> dict[str, Any]:
    """A pool's ``machineSpec`` with the fallback's machine."""
    changed = dict(machine)
    if "machine_type" in fallback:
        changed["machineType"] = fallback["machine_type"]
        changed.pop("tpuTopology", None)
        topology = tpus.topology(fallback["machine_type"])
        if topology:
            changed["tpuTopology"] = topology
        built_in = vertex_machines.built_in(fallback["machine_type"])
        if tpus.is_tpu(fallback["machine_type"]) or fallback.get("accelerator_type", "") is None:
            changed.pop("acceleratorType", None)
            changed.pop("acceleratorCount", None)
        elif built_in and "accelerator_type" not in fallback:
            changed["acceleratorType"], changed["acceleratorCount"] = built_in
    if "tpu_topology" in fallback:
        changed["tpuTopology"] = fallback["tpu_topology"]
    if fallback.get("accelerator_type"):
        changed |= {"acceleratorType": fallback["accelerator_type"], "acceleratorCount": 1}
    if "accelerator_count" in fallback:
        changed["acceleratorCount"] = fallback["accelerator_count"]
    return changed

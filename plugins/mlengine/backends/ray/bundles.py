"""The resources that each replica reserves in the cluster: one bundle of the placement group.

They come from :attr:`RaySettings.resources <mlengine.backends.ray.settings.RaySettings>`, or else from the machine
types of the job file. The setting has resources for all replicas, ``{"CPU": 4, "GPU": 1, "memory_gib": 8}``, or by
role, ``{"chief": {…}, "worker": {…}}``; other names are Ray's custom resources.
:mod:`mlengine.core.job_file.ray_section` has checked them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mlengine.backends.ray import packing
from mlengine.core.errors import BackendError
from mlengine.core.job_file import tiers
from mlengine.core.job_file.ray_section import MEMORY
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.core.vertex_machines import Size
from mlengine.runtime.extras import ACCELERATOR_COUNT, ACCELERATOR_TYPE

Bundle = dict[str, float]

_ANY_GPU = "GPU"  # the accelerator of a replica whose job file does not name a type
_GIB = float(1 << 30)
_ROLES = frozenset(role.value for role in Role)
_DEFAULT = Size(1)  # the size of a replica without a machine type
# The share of a machine type's memory that is reserved. A Ray node of that type does not offer all of it: 30% of the
# memory that is free when the node starts becomes its object store.
_MEMORY_SHARE = 0.6


def bundles(spec: TrainingSpec, resources: Mapping[str, Any]) -> list[Bundle]:
    """One bundle for each of ``spec.replicas``, in their order.

    :param resources: ``resources`` of the job's :class:`RaySettings`.
    :raises BackendError: a replica requests a TPU, or has a machine type whose size is not known.
    """
    by_role = bool(resources) and _ROLES.issuperset(resources)
    result = []
    for pool in spec.pools:
        chosen = resources.get(pool.role.value) if by_role else resources
        bundle = _named(chosen) if chosen else _of_machine(pool)
        result += [dict(bundle) for _ in range(pool.count)]
    return result


def accelerators(spec: TrainingSpec, resources: Mapping[str, Any]) -> list[dict[str, str]]:
    """The environment variables that tell each of ``spec.replicas`` its accelerator; empty without one.

    The environment of a replica has the packages' extra for its accelerator: see :mod:`mlengine.runtime.extras`.
    """
    result = []
    for (role, _), bundle in zip(spec.replicas, bundles(spec, resources), strict=True):
        # A replica that reserves half a GPU sees one GPU.
        pool, count = spec.pool(role), math.ceil(bundle.get("GPU", 0))
        name = tiers.accelerators(pool)[0] if pool else ""
        if not name.startswith("NVIDIA_"):
            name = _ANY_GPU
        result.append({ACCELERATOR_TYPE: name, ACCELERATOR_COUNT: str(count)} if count else {})
    return result


def check_fit(
    job_id: str, spec: TrainingSpec, wanted: list[Bundle], nodes: Iterable[Bundle], placement: str = "PACK"
) -> None:
    """Refuse a job that the cluster cannot run, even when it is empty.

    A job for which the search reaches its limit of steps is accepted.

    :param nodes: the total resources of each node.
    :param placement: Ray's strategy for the placement group.
    :raises BackendError: the job does not fit; the message has the replica, its needs, and the resources of the largest
        node.
    """
    there = list(nodes)
    for (role, index), bundle in zip(spec.replicas, wanted, strict=True):
        if not any(_fits(bundle, node) for node in there):
            raise _does_not_fit(
                f"{job_id}: {role.value}-{index} needs {describe(bundle)}, and no node of the Ray cluster has that; "
                f"{_largest(there, bundle)}"
            )
    total, has = _sum(wanted), _sum(there)
    if not _fits(total, has):
        raise _does_not_fit(
            f"{job_id}: its {len(wanted)} replicas need {describe(total)} together, and the Ray cluster has "
            f"{describe(_comparable(has, total))}"
        )
    if placement == "STRICT_PACK" and not any(_fits(total, node) for node in there):
        raise _does_not_fit(
            f"{job_id}: its {len(wanted)} replicas need {describe(total)} on one node (ray_placement is STRICT_PACK); "
            f"{_largest(there, total)}"
        )
    if placement == "STRICT_SPREAD":
        _check_own_nodes(job_id, spec, wanted, there)
    elif placement != "STRICT_PACK" and (crowded := packing.without_room(wanted, there)) is not None:
        raise _does_not_fit(
            f"{job_id}: its {len(wanted)} replicas do not fit on {_nodes(len(there))} at the same time: "
            f"{_replica(spec, crowded)} needs {describe(wanted[crowded])}, and the others leave no node with that; "
            f"{_largest(there, wanted[crowded])} when it is empty"
        )


def _check_own_nodes(job_id: str, spec: TrainingSpec, wanted: list[Bundle], nodes: list[Bundle]) -> None:
    needed = f"{job_id}: its {len(wanted)} replicas need as many nodes (ray_placement is STRICT_SPREAD)"
    if len(wanted) > len(nodes):
        raise _does_not_fit(f"{needed}, and the Ray cluster has {len(nodes)}")
    if (index := packing.without_own_node(wanted, nodes)) is not None:
        raise _does_not_fit(
            f"{needed}: {_replica(spec, index)} needs {describe(wanted[index])}, and the nodes that have that are "
            f"needed for others; {_largest(nodes, wanted[index])}"
        )


def _replica(spec: TrainingSpec, index: int) -> str:
    role, number = spec.replicas[index]
    return f"{role.value}-{number}"


def _nodes(count: int) -> str:
    return f"the {count} nodes of the Ray cluster" if count > 1 else "the node of the Ray cluster"


def _does_not_fit(message: str) -> BackendError:
    return BackendError(
        message,
        hint="request less (resources below 'ray:' in the job file, the setting ray_resources, or other machine "
        "types), add nodes, or set ray_autoscaling = true if the cluster adds nodes by itself",
    )


def _largest(nodes: list[Bundle], bundle: Bundle) -> str:
    """The node that comes closest to ``bundle``, by the first resource that all nodes lack, then by size."""
    lacking = next((name for name in bundle if all(node.get(name, 0.0) < bundle[name] for node in nodes)), "CPU")
    largest = max(
        nodes, key=lambda node: (node.get(lacking, 0.0), node.get("CPU", 0.0), node.get("memory", 0.0)), default={}
    )
    return f"the largest of {len(nodes)} has {describe(_comparable(largest, bundle))}"


def describe(bundle: Mapping[str, float]) -> str:
    """A bundle for a message, such as ``4 CPU, 8 GiB memory``."""
    parts = [
        f"{amount / _GIB:.3g} GiB memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in bundle.items()
    ]
    return ", ".join(parts) or "nothing"


def _named(chosen: Mapping[str, float]) -> Bundle:
    bundle: Bundle = {}
    for name, amount in chosen.items():
        if amount:
            bundle["memory" if name == MEMORY else name] = amount * (_GIB if name == MEMORY else 1.0)
    # Ray refuses an empty bundle.
    return bundle or {"CPU": 0.01}


def _of_machine(pool: Pool) -> Bundle:
    accelerator, count = tiers.accelerators(pool)
    if accelerator.startswith("TPU"):
        raise BackendError(
            f"{pool.role.value} requests {count} {accelerator}, and replicas on Ray get no TPUs",
            hint="request GPUs or none, or use the backend vertex; to train without the TPU, give the role resources "
            "below 'ray:' in the job file, or in the setting ray_resources",
        )
    size = tiers.machine_size(pool.machine_type) if pool.machine_type else _DEFAULT
    if size is None:
        raise BackendError(
            f"{pool.role.value} has the machine type {pool.machine_type}, whose size is not known",
            hint="give the role resources below 'ray:' in the job file, or in the setting ray_resources; or use "
            "another machine type",
        )
    bundle = {"CPU": float(size.vcpus)}
    if count:
        bundle["GPU"] = float(count)
    if size.gib:
        bundle["memory"] = math.floor(size.gib * _MEMORY_SHARE * 10) / 10 * _GIB
    return bundle


def _fits(bundle: Mapping[str, float], node: Mapping[str, float]) -> bool:
    # Ray counts in units of 0.0001. Without rounding, the sum of ten times 0.1 would not be exactly 1.
    return all(node.get(name, 0.0) + 0.00005 >= amount for name, amount in bundle.items())


def _comparable(node: Mapping[str, float], bundle: Mapping[str, float]) -> Bundle:
    return {name: node.get(name, 0.0) for name in bundle}


def _sum(parts: Iterable[Mapping[str, float]]) -> Bundle:
    total: Bundle = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0.0) + amount
    return total

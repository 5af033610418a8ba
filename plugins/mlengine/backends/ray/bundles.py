"""What each replica reserves in the cluster: one bundle of the placement group.

From :attr:`RaySettings.resources <mlengine.backends.ray.settings.RaySettings>`, or else from the machine types of the
job file. These resources are for all replicas, ``{"CPU": 4, "GPU": 1, "memory_gib": 8}``, or by role,
``{"chief": {…}, "worker": {…}}``; other names are Ray's custom resources.
:mod:`mlengine.core.job_file.ray_section` has checked them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mlengine.core.errors import BackendError
from mlengine.core.job_file.ray_section import MEMORY
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.runtime.extras import ACCELERATOR_COUNT, ACCELERATOR_TYPE

Bundle = dict[str, float]

_ANY_GPU = "GPU"  # of a replica whose job file does not name one
_GIB = float(1 << 30)
_ROLES = frozenset(role.value for role in Role)
# The last number in a machine type of Google's is its number of CPUs: n1-standard-8, e2-highmem-4, c3-highcpu-22.
_SIZE = re.compile(r"-(\d+)$")
_DEFAULT_CPUS = 1.0


def bundles(spec: TrainingSpec, resources: Mapping[str, Any]) -> list[Bundle]:
    """One bundle for each of ``spec.replicas``, in their order.

    :param resources: the job's :class:`RaySettings` have them.
    """
    by_role = bool(resources) and _ROLES.issuperset(resources)
    result = []
    for pool in spec.pools:
        chosen = resources.get(pool.role.value) if by_role else resources
        bundle = _named(chosen) if chosen else _of_machine(pool)
        result += [dict(bundle) for _ in range(pool.count)]
    return result


def accelerators(spec: TrainingSpec, resources: Mapping[str, Any]) -> list[dict[str, str]]:
    """The variables by which each of ``spec.replicas`` learns of its accelerator; empty without one.

    The environment of a replica has the packages' extra for it: see :mod:`mlengine.runtime.extras`.
    """
    result = []
    for (role, _), bundle in zip(spec.replicas, bundles(spec, resources), strict=True):
        pool, count = spec.pool(role), int(bundle.get("GPU", 0))
        name = (pool.accelerator_type if pool else None) or _ANY_GPU
        result.append({ACCELERATOR_TYPE: name, ACCELERATOR_COUNT: str(count)} if count else {})
    return result


def check_fit(
    job_id: str, spec: TrainingSpec, wanted: list[Bundle], nodes: Iterable[Bundle], placement: str = "PACK"
) -> None:
    """Refuse a job that the cluster cannot run, even when it is empty.

    :param nodes: what each node has in all.
    :param placement: Ray's strategy for the placement group.
    :raises BackendError: names the replica, what it needs, and what the largest node has.
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
    if placement == "STRICT_SPREAD" and len(wanted) > len(there):
        raise _does_not_fit(
            f"{job_id}: its {len(wanted)} replicas need as many nodes (ray_placement is STRICT_SPREAD), and the Ray "
            f"cluster has {len(there)}"
        )


def _does_not_fit(message: str) -> BackendError:
    return BackendError(
        message,
        hint="request less (resources below 'ray:' in the job file, the setting ray_resources, or other machine "
        "types), add nodes, or set ray_autoscaling = true if the cluster adds nodes by itself",
    )


def _largest(nodes: list[Bundle], bundle: Bundle) -> str:
    """The node that comes closest, by the first resource that all lack, then by size."""
    lacking = next((name for name in bundle if all(node.get(name, 0.0) < bundle[name] for node in nodes)), "CPU")
    largest = max(
        nodes, key=lambda node: (node.get(lacking, 0.0), node.get("CPU", 0.0), node.get("memory", 0.0)), default={}
    )
    return f"the largest of {len(nodes)} has {describe(_comparable(largest, bundle))}"


def describe(bundle: Mapping[str, float]) -> str:
    """``4 CPU, 8 GiB memory``."""
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
    size = _SIZE.search(pool.machine_type or "")
    bundle = {"CPU": float(size[1]) if size else _DEFAULT_CPUS}
    if pool.accelerator_count:
        bundle["GPU"] = float(pool.accelerator_count)
    return bundle


def _fits(bundle: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in bundle.items())


def _comparable(node: Mapping[str, float], bundle: Mapping[str, float]) -> Bundle:
    return {name: node.get(name, 0.0) for name in bundle}


def _sum(parts: Iterable[Mapping[str, float]]) -> Bundle:
    total: Bundle = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0.0) + amount
    return total
